"""Perplexity and bits per byte of a text, by a sliding window.

The rule: the text is cut into windows of `context` tokens, each moved on by half a window, and
each begins with the model's beginning token where it has one. A window scores only the tokens that
no earlier window has scored: all of them in the first, the second half in the others. So every
token of the text is scored exactly once, and all but those of the first window see at least half a
window before them. (A model without a beginning token cannot score the very first token.)

    perplexity    = exp(nats / tokens)          comparable for one tokenizer only
    bits per byte = nats / ln 2 / UTF-8 bytes   comparable between all models

The intervals take the windows as independent samples of text like this one (delta method).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate.intervals import ratio_half_width
from edgegauge.evaluate.lanes import side_by_side
from edgegauge.evaluate.result import PerplexityResult, Source, Window
from edgegauge.evaluate.task import Text
from edgegauge.figure import Figure
from edgegauge.measure.runtimes import Session

DEFAULT_CONTEXT = 512

Progress = Callable[[int, int], None]
"""Called with the number of windows done and the number in all."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start`..`end` of the text are fed, `scored`..`end` are scored."""

    start: int
    scored: int
    end: int


def plan(tokens: int, room: int, stride: int, first: int) -> Iterator[Span]:
    """The windows of a text: `room` tokens each, `stride` apart; tokens before `first` unscored."""
    end = min(room, tokens)
    yield Span(0, first, end)
    while end < tokens:
        scored, end = end, min(end + stride, tokens)
        yield Span(end - room, scored, end)


def score_text(
    sessions: Sequence[Session], text: Text, context: int, limit: int | None, progress: Progress
) -> PerplexityResult:
    """Score `text` (its first `limit` windows) in windows of `context` tokens.

    Raises InputError if there are fewer than two tokens to score.
    """
    started = time.monotonic()
    session = sessions[0]
    begin = session.tokenize("")[:1]
    tokens = session.tokenize(text.content, special=False)
    first = 0 if begin else 1
    stride = context // 2
    spans = list(plan(len(tokens), context - len(begin), stride, first))[:limit]
    if spans[-1].end - first < 2:
        raise InputError(f"{text.name} is too short: {len(tokens)} tokens, at least 3 are needed")
    windows = []
    for window in side_by_side(sessions, lambda s, span: _score(s, begin, tokens, span), spans):
        windows.append(window)
        progress(len(windows), len(spans))
    scored_bytes = _bytes(session, text, tokens, spans[-1].end, first)
    return PerplexityResult(
        text=Source(name=text.name, sha256=text.sha256),
        perplexity=_perplexity(windows, text.name),
        bits_per_byte=_bits_per_byte(windows, scored_bytes, text.name),
        tokens=sum(w.tokens for w in windows),
        bytes=scored_bytes,
        context=context,
        stride=stride,
        seconds=time.monotonic() - started,
        windows=windows,
    )


def _score(session: Session, begin: list[int], tokens: list[int], span: Span) -> Window:
    """Feed one window and add up the negative log-likelihoods of its scored tokens."""
    fed = begin + tokens[span.start : span.end]
    # The row at position i predicts token i + 1 of what is fed.
    first_row = span.scored - span.start + len(begin) - 1
    nats = math.fsum(
        negative_log_likelihood(row, fed[position + 1])
        for position, row in enumerate(session.logits(fed))
        if first_row <= position < len(fed) - 1
    )
    if not math.isfinite(nats):
        raise MeasurementError(
            f"the model gives no probabilities for tokens {span.scored} to {span.end} of the text "
            "(logits are not finite)",
            hint="the artifact is damaged, or its recipe breaks this model",
        )
    return Window(tokens=span.end - span.scored, nats=nats)


def negative_log_likelihood(row: Any, token: int) -> float:
    """-log softmax(row)[token] in nats, summed in double precision; `row` is (vocab,) float32."""
    import numpy as np

    top = row.max()
    if not np.isfinite(top):
        return math.nan
    return math.log(np.exp(row - top).sum(dtype=np.float64)) - float(row[token] - top)


def _bytes(session: Session, text: Text, tokens: list[int], end: int, first: int) -> int:
    """UTF-8 bytes of the scored tokens; exact for the whole text, else by detokenising."""
    content = text.content if end == len(tokens) else session.detokenize(tokens[:end])
    unscored = session.detokenize(tokens[:first]) if first else ""
    return max(1, len(content.encode()) - len(unscored.encode()))


def _perplexity(windows: list[Window], name: str) -> Figure:
    counts = [w.tokens for w in windows]
    mean = math.fsum(w.nats for w in windows) / sum(counts)
    half = ratio_half_width([w.nats for w in windows], counts)
    source = f"{sum(counts)} tokens of {name}"
    if half is None:
        return Figure(_exp(mean), "1", "measured", source)
    return Figure(
        _exp(mean), "1", "measured", source, max(1.0, _exp(mean - half)), _exp(mean + half)
    )


def _bits_per_byte(windows: list[Window], scored_bytes: int, name: str) -> Figure:
    counts = [w.tokens for w in windows]
    scale = sum(counts) / scored_bytes / math.log(2)
    mean = math.fsum(w.nats for w in windows) / sum(counts)
    half = ratio_half_width([w.nats for w in windows], counts)
    source = f"{scored_bytes} bytes of {name}"
    if half is None:
        return Figure(mean * scale, "bits", "measured", source)
    low, high = max(0.0, mean - half) * scale, (mean + half) * scale
    return Figure(mean * scale, "bits", "measured", source, low, high)


def _exp(nats: float) -> float:
    """exp, at most the largest double: a broken model may be surer than a float can say."""
    return math.exp(min(nats, 700.0))
