"""Exact match: the rule, item by item, and the comparison of two artifacts."""

from __future__ import annotations

import pytest
from fake_session import FakeSession

from edgegauge.errors import InputError
from edgegauge.evaluate.accuracy import SPARE_TOKENS, exact_match, judge, tokenize_task
from edgegauge.evaluate.result import AccuracyResult, paired_difference
from edgegauge.evaluate.task import Item, Task


def task_of(*pairs: tuple[str, str]) -> Task:
    items = tuple(Item(line, prompt, answer) for line, (prompt, answer) in enumerate(pairs, 1))
    return Task("t.jsonl", "0" * 64, items)


def answered(task: Task, said: dict[str, str], sequences: int = 2) -> AccuracyResult:
    session = FakeSession(said)
    prompts = tokenize_task(session, task, None)
    return exact_match([session], task, prompts, sequences, lambda done, total: None)


@pytest.mark.parametrize(
    ("answer", "said", "ok", "got"),
    [
        ("Paris", "Paris", True, "Paris"),
        ("Paris", " Paris \n", True, "Paris"),
        (" Paris", "Paris", True, "Paris"),
        ("Paris", "\n\nParis\nQ: and Italy?", True, "Paris"),
        ("Paris", "Paris, France", False, "Paris, France"),
        ("Paris", "paris", False, "paris"),
        ("Paris", "", False, ""),
        ("a\nb", "a\nb\n", True, "a\nb"),
        ("a\nb", "a", False, "a"),
    ],
)
def test_the_rule(answer: str, said: str, ok: bool, got: str) -> None:
    outcome = judge(3, Item(1, "p", answer, "x"), said)
    assert (outcome.ok, outcome.got, outcome.index, outcome.id) == (ok, got, 3, "x")


def test_the_share_has_its_interval_and_every_outcome_is_kept() -> None:
    task = task_of(("1", "one"), ("2", "two"), ("3", "three"), ("4", "four"))
    found = answered(task, {"1": "one", "2": "TWO", "3": "three\n", "4": "four"})
    assert (found.correct, found.total) == (3, 4)
    figure = found.exact_match
    assert (figure.value, figure.unit, figure.kind) == (0.75, "1", "measured")
    assert (figure.least, figure.most) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert [(item.index, item.ok) for item in found.items] == [
        (0, True), (1, False), (2, True), (3, True)
    ]  # fmt: skip


def test_answers_may_go_on_a_little_so_that_going_on_is_seen() -> None:
    task = task_of(("p", "12345"))
    prompts = tokenize_task(FakeSession(), task, None)
    assert prompts.max_tokens == 5 + SPARE_TOKENS
    assert prompts.context == len("p") + 1 + prompts.max_tokens  # one token begins the prompt
    assert not answered(task, {"p": "123456789012345678901234567890"}).items[0].ok


def test_all_items_are_answered_whatever_the_batch() -> None:
    pairs = [(f"p{i}", f"{i}") for i in range(45)]
    for sequences in (1, 2, 16):
        found = answered(task_of(*pairs), {p: a for p, a in pairs}, sequences)
        assert found.correct == 45 and [item.got for item in found.items] == [a for _, a in pairs]


def test_prompts_beyond_the_context_are_named() -> None:
    task = task_of(("short", "yes"), ("x" * 50, "no"))
    with pytest.raises(InputError, match="context is 40 tokens") as caught:
        tokenize_task(FakeSession(), task, 40)
    assert caught.value.problems == ["line 2: 51 tokens"]


def test_what_quantisation_cost_follows_from_paired_outcomes() -> None:
    task = task_of(*((f"p{i}", "right") for i in range(200)))
    good = answered(task, {f"p{i}": "right" if i < 150 else "x" for i in range(200)})
    worse = answered(task, {f"p{i}": "right" if 12 <= i < 152 else "x" for i in range(200)})
    found = paired_difference(good, worse)
    assert (found.only_a, found.only_b, found.total) == (12, 2, 200)
    assert found.difference.value == pytest.approx(-0.05)
    assert found.difference.most < 0 and found.certain and found.p_value < 0.05
    # The two intervals overlap widely: without pairs nothing could be said.
    assert worse.exact_match.most > good.exact_match.least
    same = paired_difference(good, good)
    assert not same.certain and same.difference.value == 0
    assert same.difference.least < 0 < same.difference.most


def test_only_the_same_questions_are_compared() -> None:
    a = answered(task_of(("p", "a")), {"p": "a"})
    with pytest.raises(InputError, match="not the same task"):
        paired_difference(a, a.model_copy(update={"task": a.task.model_copy(
            update={"sha256": "1" * 64})}))  # fmt: skip
    with pytest.raises(InputError, match="no item in common"):
        paired_difference(a, a.model_copy(update={"items": []}))
