"""Exact match: the share of prompts whose greedy continuation is the right answer.

The rule, for every item:
1. The prompt is given as it stands (no chat template, no added examples), after the model's
   beginning token where it has one.
2. The model continues greedily up to an end token or `max_tokens`, which is the longest answer of
   the task plus SPARE_TOKENS, so that going on after the right words is seen.
3. White space at both ends of what it said is dropped. Where the right answer is one line, only
   the first line of what is left counts: base models often go on with another question.
4. It is right when this equals the answer, white space at its ends dropped too.

Several prompts are decoded side by side, which reads the weights once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgegauge.errors import InputError
from edgegauge.evaluate.intervals import wilson
from edgegauge.evaluate.lanes import side_by_side
from edgegauge.evaluate.result import AccuracyResult, Outcome, Source
from edgegauge.evaluate.task import MAX_PROBLEMS, Item, Task
from edgegauge.figure import Figure
from edgegauge.measure.runtimes import Session

SPARE_TOKENS = 8
"""Tokens beyond the longest answer: room for another spelling in tokens, and to see it go on."""

CHUNK_ROUNDS = 4
"""Prompts handed to a session at once, in multiples of those decoded side by side: a finished one
makes room for the next."""

Progress = Callable[[int, int], None]
"""Called with the number done and the number in all."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """A task in tokens of one model."""

    tokens: list[list[int]]
    max_tokens: int

    @property
    def context(self) -> int:
        """Tokens that the longest prompt and its answer take."""
        return max(map(len, self.tokens)) + self.max_tokens


def tokenize_task(session: Session, task: Task, model_context: int | None) -> Prompts:
    """The prompts in tokens; InputError if some do not fit the model's context."""
    tokens = [session.tokenize(item.prompt) for item in task.items]
    longest = max(len(session.tokenize(item.answer, special=False)) for item in task.items)
    prompts = Prompts(tokens, longest + SPARE_TOKENS)
    if model_context is None or prompts.context <= model_context:
        return prompts
    room = model_context - prompts.max_tokens
    problems = [
        f"line {item.line}: {len(prompt)} tokens"
        for item, prompt in zip(task.items, tokens, strict=True)
        if len(prompt) > room
    ]
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"and {len(problems) - MAX_PROBLEMS} more")
    raise InputError(
        f"prompts of {task.name} are too long: the model's context is {model_context} tokens, "
        f"of which answers take {prompts.max_tokens}",
        shown,
    )


def exact_match(
    sessions: Sequence[Session], task: Task, prompts: Prompts, sequences: int, progress: Progress
) -> AccuracyResult:
    """Answer every item, `sequences` at a time in each session, and count the right ones."""
    started = time.monotonic()
    stop = sessions[0].end_tokens()
    chunk = sequences * CHUNK_ROUNDS

    def answer(session: Session, first: int) -> list[Outcome]:
        batch = prompts.tokens[first : first + chunk]
        said = session.generate(batch, prompts.max_tokens, stop)
        return [
            judge(index, task.items[index], session.detokenize(tokens))
            for index, tokens in enumerate(said, first)
        ]

    outcomes: list[Outcome] = []
    for done in side_by_side(sessions, answer, range(0, len(task.items), chunk)):
        outcomes += done
        progress(len(outcomes), len(task.items))
    return AccuracyResult(
        task=Source(name=task.name, sha256=task.sha256),
        exact_match=share_right(outcomes, task.name),
        correct=sum(item.ok for item in outcomes),
        total=len(outcomes),
        max_tokens=prompts.max_tokens,
        sequences=sequences,
        seconds=time.monotonic() - started,
        items=outcomes,
    )


def judge(index: int, item: Item, said: str) -> Outcome:
    """Rules 3 and 4: the outcome of an item from what the model said."""
    right, got = item.answer.strip(), said.strip()
    if "\n" not in right:
        got = got.split("\n", 1)[0].rstrip()
    return Outcome(index=index, id=item.id, ok=got == right, got=got)


def share_right(items: Sequence[Outcome], task_name: str) -> Figure:
    """The share of right outcomes, with its Wilson interval."""
    correct = sum(item.ok for item in items)
    low, high = wilson(correct, len(items))
    source = f"exact match, {len(items)} items of {task_name}"
    return Figure(correct / len(items), "1", "measured", source, low, high)
