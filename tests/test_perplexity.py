"""Perplexity against formulas written out here, with and without a real runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_session import BEGIN, VOCAB, FakeSession
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate.perplexity import negative_log_likelihood, plan, score_text
from edgegauge.evaluate.result import PerplexityResult
from edgegauge.evaluate.task import Text

np = pytest.importorskip("numpy")


def scored(
    session: Any, content: str, context: int = 32, limit: int | None = None
) -> PerplexityResult:
    text = Text("t.txt", "0" * 64, content)
    return score_text([session], text, context, limit, lambda done, total: None)


def noise(tokens: Sequence[int]) -> Any:
    """Logits that depend on everything before, so that a wrong window would show."""
    return np.random.default_rng(list(tokens)).standard_normal(VOCAB).astype(np.float32) * 3


def log_probability(row: Any, token: int) -> float:
    exact = row.astype(np.longdouble)
    return float(exact[token] - np.log(np.exp(exact).sum()))


@given(st.integers(1, 700), st.integers(2, 100), st.integers(0, 1))
def test_every_token_is_scored_once_with_enough_before_it(
    tokens: int, room: int, first: int
) -> None:
    stride = max(1, room // 2)
    spans = list(plan(tokens, room, stride, first))
    marks = [t for span in spans for t in range(span.scored, span.end)]
    assert marks == list(range(first, tokens))
    for span in spans:
        assert 0 <= span.start <= span.end <= tokens and span.end - span.start <= room
    for span in spans[1:]:
        assert span.scored - span.start >= room - stride


@pytest.mark.parametrize("begins", [True, False])
def test_windows_against_a_loop_over_tokens(begins: bool) -> None:
    session = FakeSession(row=noise, begins=begins)
    content = "The quick brown fox jumps over the lazy dog, again and again and again. " * 2
    found = scored(session, content)
    tokens, head = list(content.encode()), [BEGIN] if begins else []
    room = 32 - len(head)
    total, end = 0.0, 0
    for position in range(0 if begins else 1, len(tokens)):
        while position >= end:
            end = room if end == 0 else min(end + 16, len(tokens))
        seen = head + tokens[max(0, end - room) : position]
        total -= log_probability(noise(seen), tokens[position])
    count = len(tokens) - (not begins)
    assert found.tokens == count == found.bytes
    assert found.perplexity.value == pytest.approx(math.exp(total / count), rel=1e-5)
    assert found.bits_per_byte.value == pytest.approx(total / count / math.log(2), rel=1e-6)
    assert all(len(fed) <= 32 and fed[: len(head)] == head for fed in session.fed)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    session = FakeSession(row=lambda tokens: np.full(VOCAB, 7.0, np.float32))
    found = scored(session, "some words, ä and ö among them " * 9)
    assert found.perplexity.value == pytest.approx(VOCAB)
    assert found.bits_per_byte.value == pytest.approx(math.log2(VOCAB))
    assert found.perplexity.least == pytest.approx(found.perplexity.most)  # no window differs


def test_the_interval_covers_what_other_text_of_the_kind_gives() -> None:
    def row(tokens: Sequence[int]) -> Any:
        return np.eye(VOCAB, dtype=np.float32)[97] * 4

    random = np.random.default_rng(5)
    hits = 0
    for _ in range(60):
        content = "".join("ab"[i] for i in random.integers(0, 2, 400))
        figure = scored(FakeSession(row=row), content).perplexity
        log_total = math.log(math.exp(4) + VOCAB - 1)
        hits += figure.least <= math.exp(log_total - 2) <= figure.most
    assert hits >= 52  # 95 % of 60 is 57; below 52 once in 200 such tests


def test_a_limit_scores_the_first_windows_only() -> None:
    session = FakeSession(row=noise)
    content = "abcdefgh" * 40
    found = scored(session, content, limit=3)
    assert [w.tokens for w in found.windows] == [31, 16, 16]
    assert found.bytes == found.tokens == 63


def test_one_window_has_no_interval() -> None:
    figure = scored(FakeSession(row=noise), "just this").perplexity
    assert figure.low is None and figure.high is None


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(InputError, match="too short"):
        scored(FakeSession(row=noise, begins=False), "ab")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_model_gives_no_figure(bad: float) -> None:
    session = FakeSession(row=lambda tokens: np.full(VOCAB, bad, np.float32))
    with pytest.raises(MeasurementError, match="not finite"):
        scored(session, "some text")


def test_log_likelihoods_survive_extreme_logits() -> None:
    row = np.array([90000.0, 0.0, -90000.0], np.float32)
    assert negative_log_likelihood(row, 0) == 0.0
    assert negative_log_likelihood(row, 2) == pytest.approx(180000.0)


def test_llama_cpp_gives_the_closed_form(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from make_bigram import BEGIN as BOS
    from make_bigram import NORM, VOCAB, WIDTH, token_of, write_bigram

    from edgegauge.measure.runtimes import runtime_for

    output = np.random.default_rng(3).standard_normal((VOCAB, WIDTH)).astype(np.float32) / 10
    path = write_bigram(tmp_path / "bigram.gguf", output)
    content = "every probability of this model is known in closed form; " * 5
    with closing(runtime_for("gguf").open(path, threads=1, context=64)) as session:
        found = scored(session, content, context=64)
    tokens = [token_of(c) for c in content]
    total = 0.0
    for position, token in enumerate(tokens):
        # A window's first token follows the beginning mark, but it is scored in the first only.
        last = BOS if position == 0 else tokens[position - 1]
        total -= log_probability(output[:, last] * np.float32(NORM), token)
    assert found.tokens == len(tokens) == found.bytes
    assert found.perplexity.value == pytest.approx(math.exp(total / len(tokens)), rel=1e-4)
