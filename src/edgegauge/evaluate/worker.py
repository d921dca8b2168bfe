"""The child process of an evaluation: a job in, messages out (see `measure.child`).

    {"progress": [done, total, "answers"]}
    {"facts": {...}, "accuracy": {...} | null, "perplexity": {...} | null}      the last message

It may be killed or crash without harm: `manager` holds everything that must survive.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgegauge.evaluate.accuracy import exact_match, tokenize_task
from edgegauge.evaluate.lanes import opened
from edgegauge.evaluate.perplexity import DEFAULT_CONTEXT, score_text
from edgegauge.evaluate.result import AccuracyResult, PerplexityResult
from edgegauge.evaluate.task import Item, Task, Text
from edgegauge.measure.child import Send
from edgegauge.measure.runtimes import Runtime, Session, runtime_for

SEQUENCES = 16
"""Prompts decoded side by side: most of the gain of batching, at little memory."""

MAX_CONTEXT_TOKENS = 32_768
"""Tokens of context opened at once for all sequences; fewer sequences where prompts are long."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to evaluate; `model_context` is None where nobody stated it."""

    artifact: Path
    file_format: str
    model_context: int | None
    task: Task | None
    text: Text | None
    limit: int | None
    threads: int
    """Of each lane."""
    lanes: int
    """Sessions side by side."""

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads back."""
        return asdict(self) | {"artifact": str(self.artifact)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """The job of `to_json`; trusted, since the parent wrote it."""
        task, text = value["task"], value["text"]
        if task:
            task = Task(task["name"], task["sha256"], tuple(Item(**i) for i in task["items"]))
        return cls(
            **value
            | {
                "artifact": Path(value["artifact"]),
                "task": task,
                "text": Text(**text) if text else None,
            }
        )


def evaluate_here(job: Job, progress: Progress) -> dict[str, Any]:
    """Do the job in this process; returns the last message."""
    runtime = runtime_for(job.file_format)
    facts: dict[str, Any] = {}
    accuracy = _accuracy(runtime, job, job.task, facts, progress) if job.task else None
    perplexity = _perplexity(runtime, job, job.text, facts, progress) if job.text else None
    return {
        "facts": facts,
        "accuracy": accuracy and accuracy.model_dump(mode="json"),
        "perplexity": perplexity and perplexity.model_dump(mode="json"),
    }


def _accuracy(
    runtime: Runtime, job: Job, task: Task, facts: dict[str, Any], progress: Progress
) -> AccuracyResult:
    # A first, tiny context only counts tokens: how large the real one must be follows from them.
    with closing(runtime.open(job.artifact, threads=job.threads, context=64)) as session:
        prompts = tokenize_task(session, task, job.model_context)
    fitting = max(1, MAX_CONTEXT_TOKENS // prompts.context)
    sequences = min(SEQUENCES, fitting, len(task.items))
    context = prompts.context * sequences

    def open_one() -> Session:
        return runtime.open(job.artifact, threads=job.threads, context=context, sequences=sequences)

    with opened(min(job.lanes, len(task.items)), open_one) as sessions:
        facts.update(sessions[0].facts())
        return exact_match(
            sessions, task, prompts, sequences, lambda done, total: progress(done, total, "answers")
        )


def _perplexity(
    runtime: Runtime, job: Job, text: Text, facts: dict[str, Any], progress: Progress
) -> PerplexityResult:
    context = min(DEFAULT_CONTEXT, job.model_context or DEFAULT_CONTEXT)

    def open_one() -> Session:
        return runtime.open(job.artifact, threads=job.threads, context=context, all_logits=True)

    with opened(job.lanes, open_one) as sessions:
        facts.update(sessions[0].facts())
        return score_text(
            sessions, text, context, job.limit, lambda done, total: progress(done, total, "windows")
        )


def work(job: dict[str, Any], send: Send) -> None:
    """Do the job of `Job.to_json` and send progress, then the answer."""
    send(
        evaluate_here(
            Job.from_json(job), lambda done, total, what: send({"progress": [done, total, what]})
        )
    )
