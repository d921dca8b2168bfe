"""Speed by calibration: what short runs on the device itself say of every other model.

    decode  t = sum(weights x cost of their type) + sum(weights past the cache x what that adds)
                + layers x t_layer + t_token + activations + attention to the tokens in the cache
    prefill t = tokens x sum(weights x cost of their type) + attention to the tokens before each
                + tokens x activations + passes x (layers x t_pass + t_call)
                + the head, for the last token

Each `x` is one kind of work. `decode_work` and `prefill_work` say how much of it a candidate asks
for; `calibrate.py` fits a coefficient to each and writes it into the profile, and
`CalibratedSpeed` multiplies the two. Coefficients are seconds per unit:

    Q4_0, INT8/128, ...  a multiply-add with a weight of this type (prompts have their own)
    Q4_0 past, ...       what it adds that such a weight comes from memory and not from the
                         last-level cache: little where products take longer than reading
    layer, token         what is spent between products, per layer and per token
    attention            a multiply-add with a key or value
    keys, keys past      a byte of keys and values, and what it adds that it comes from memory
    keys cut             what it adds that a byte is copied out of a longer cache first
    activations          an element that a layer hands on, about the root of its weights: also the
                         end of each sum of products, so that short rows cost more by the weight
    pass, call           a layer, and all else, per piece of the prompt that is computed at once

The interval (80 %) comes from the errors of the coefficients, from the residuals of their fit, and
from how far other models are from such a fit (`UNSEEN_DECODE`, `UNSEEN_PREFILL`). Errors of costs
that models have together are opposite, and a sum knows better than its parts: hence correlations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgegauge.device import Calibration, Coefficient
from edgegauge.speed import Estimate
from edgegauge.tflite_spans import CONTEXT, PIECE, spans_of
from edgegauge.work import Work

UNSEEN_DECODE = 0.05
UNSEEN_PREFILL = 0.05
"""Standard deviation that models which no calibration saw add to what is known of the costs. With
it, 80 % (decode) and 87 % (prefill) of the workloads of `scripts/validate_calibration` are in the
80 % interval, 71 to 100 % by machine and runtime."""

Z_80 = 1.2816
"""Standard deviations to either side that hold 80 % of a normal distribution."""

UNRUN_ERROR = 0.3
"""Of the cost of a weight type that was not run, which is that of the nearest type."""

ROW = 4096
"""Taken for the block of a type that names none."""

FEW_TOKENS = 8
"""LiteRT: what is left of a prompt and shorter than this is read token by token."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How a runtime goes about a prompt and a cache."""

    batch: int
    """Prompt tokens computed at once."""
    spans: tuple[int, ...] = ()
    """Cache lengths that its graphs attend to, whatever is in the cache; empty: what is in it."""

    def span(self, tokens: int) -> int:
        """Positions attended to by the last of so many tokens."""
        return next((span for span in self.spans if tokens <= span), tokens)


HABITS = {
    "llama.cpp": Habits(512),
    "onnxruntime": Habits(512),
    "litert": Habits(PIECE, spans_of(CONTEXT)),
}
"""By the name of the runtime's entry point; from measure/runtimes and our TFLite files."""

Terms = dict[str, float]
"""Kind of work: how much of it."""

KEPT_SHARE = 0.5
"""Of the last-level cache; in the prior too, weights that fit in so much cost no memory time."""

PAST = " past"
"""Ends the name of the work of reading weights of a type from memory."""


def decode_work(work: Work, depth: int, cache_bytes: float, habits: Habits) -> Terms:
    """What a token asks for with `depth` tokens in the cache."""
    cut = 0.0
    if habits.spans:
        seen = habits.span(depth + 1)
        attention = seen * (work.attention_per_token + work.local_attention_per_token)
        keys = seen * (work.kv_bytes_per_token + work.local_kv_bytes_per_token)
        # XNNPACK copies a span out before it packs it for the product; the whole it only packs.
        cut = keys if seen < habits.spans[-1] else 0.0
    else:
        attention, keys = work.attention(depth + 1), work.kv_bytes(depth + 1)
    past = past_cache(work.weight_bytes + keys, cache_bytes)
    return {
        **work.weights, **_read(work.weights, past), "layer": work.layers, "token": 1.0,
        "activations": _activations(work), "attention": attention,
        "keys": keys, "keys" + PAST: past * keys, "keys cut": cut,
    }  # fmt: skip


def prefill_work(work: Work, tokens: int, habits: Habits) -> Terms:
    """What a prompt asks for from an empty cache, without its last step (`last_step`)."""
    if habits.spans:
        pieces = _pieces(tokens, habits)
        read, passes = habits.batch * len(pieces), len(pieces)
        seen = habits.batch * sum(pieces)
        attention = seen * (work.attention_per_token + work.local_attention_per_token)
        keys = sum(pieces) * (work.kv_bytes_per_token + work.local_kv_bytes_per_token)
    else:
        read, passes = tokens, -(-tokens // habits.batch)
        near = min(tokens, work.window)
        attention = _triangle(tokens) * work.attention_per_token
        # Up to the window each token sees all before it, and then the window.
        local = _triangle(near) + (tokens - near) * near
        attention += local * work.local_attention_per_token
        keys = 0.0
    terms: Terms = {kind: read * count for kind, count in work.body.items()}
    terms["attention"], terms["keys"] = attention, keys
    terms["activations"] = read * _activations(work)
    terms["pass"], terms["call"] = passes * work.layers, passes
    return terms


def last_step(work: Work, tokens: int, cache_bytes: float, habits: Habits) -> Terms:
    """What a prompt of so many tokens asks for beside `prefill_work`, in terms of `decode_work`.

    The head for the last token; with spans, whole steps for it and for a short rest.
    """
    if habits.spans:
        rest = (tokens - 1) % habits.batch
        steps = 1 + (rest if rest < FEW_TOKENS else 0)
        terms = decode_work(work, tokens - 1, cache_bytes, habits)
        return {name: steps * amount for name, amount in terms.items()} if steps > 1 else terms
    body = work.body
    head = {kind: count - body.get(kind, 0) for kind, count in work.weights.items()}
    return {**head, **_read(head, past_cache(work.weight_bytes, cache_bytes))}


def _activations(work: Work) -> float:
    """Elements that the layers hand on for a token, each about the root of its weights."""
    return math.sqrt(sum(work.body.values()) * work.layers)


def _read(weights: Mapping[str, int], past: float) -> Terms:
    """The weights of each type that come from memory."""
    return {kind + PAST: past * count for kind, count in weights.items()}


def past_cache(size: float, cache_bytes: float) -> float:
    """Share of so many bytes, all read for every token, that comes from memory. Smooth around half
    of the cache: what is read in circles has left a full cache before it is wanted again, and
    programs, or the other users of a server, share it. Of three times as much nothing is kept."""
    ratio = KEPT_SHARE * cache_bytes / size
    return 1 / (1 + ratio * ratio * ratio)


def _pieces(tokens: int, habits: Habits) -> list[int]:
    """Positions that each piece of a prompt attends to; the last token is none of them."""
    before = tokens - 1
    full, rest = divmod(before, habits.batch)
    ends = [(i + 1) * habits.batch for i in range(full + (rest >= FEW_TOKENS))]
    return [habits.span(end) for end in ends]


def _triangle(tokens: int) -> float:
    return tokens * (tokens + 1) / 2


class Costs(dict[str, tuple[float, float]]):
    """Kind of work: seconds per unit and their error; a weight type that was not run takes the
    cost of the `nearest`, and what reading it adds by its bits."""

    def __init__(
        self, coefficients: dict[str, Coefficient], correlations: Sequence[Sequence[float]] = ()
    ) -> None:
        super().__init__({name: (c.value, c.error) for name, c in coefficients.items()})
        names = sorted(coefficients)
        self._together = [
            (name, other, correlation)
            for name, row in zip(names, correlations, strict=False)
            for other, correlation in zip(names, row, strict=False)
            if correlation
        ]
        """Pairs of kinds, and the correlation of their errors."""

    def __missing__(self, kind: str) -> tuple[float, float]:
        found = nearest(kind, list(self))
        if found is None:
            return (0.0, 0.0)
        name, times = found
        value, error = self[name]
        self[kind] = (times * value, times * math.hypot(error, UNRUN_ERROR * value))
        return self[kind]

    def seconds(self, terms: Terms) -> tuple[float, float]:
        """The time that this work takes, and its variance by the errors alone."""
        total = variance = 0.0
        errors: Terms = {}
        for name, amount in terms.items():
            value, error = self[name]
            total += amount * value
            errors[name] = amount * error
            variance += errors[name] ** 2
        for one, other, correlation in self._together:
            if one in errors and other in errors:
                variance += 2 * correlation * errors[one] * errors[other]
        return total, max(variance, 0.0)  # rounded correlations may say less than nothing


def nearest(kind: str, names: Iterable[str]) -> tuple[str, float] | None:
    """Which of these stands in for a weight type that is not among them, and how many times its
    cost counts: products as they are, reading by the bits. None where nothing does.

    Nearest in bits, then in the length of blocks; of two as near, the one with more scales.
    """
    bits, block, past = bits_of(kind), _block_of(kind), kind.endswith(PAST)
    types = [name for name in names if bits_of(name) and name.endswith(PAST) == past]
    if not bits or not types:
        return None

    def distance(name: str) -> tuple[float, float, int, str]:
        blocks = abs(math.log2(_block_of(name) / block))
        return abs(bits_of(name) - bits), blocks, _block_of(name), name

    name = min(types, key=distance)
    return name, bits / bits_of(name) if past else 1.0


def bits_of(kind: str) -> int:
    """The bits of a weight type (Q4_0, INT8/128, F32); 0 for other work."""
    match = re.fullmatch(r"(?:Q|INT|BF|F)(\d+)([_/ ].*)?", kind)
    return int(match[1]) if match else 0


def _block_of(kind: str) -> int:
    """How many weights share a scale, where the name of the type says so; else as in a row. The
    name may be somebody's, so that it may say 0."""
    match = re.search(r"/(\d+)", kind)
    return (int(match[1]) if match else 0) or ROW


class CalibratedSpeed:
    """A SpeedModel from a calibration, for its number of threads."""

    def __init__(self, runtime: str, calibration: Calibration) -> None:
        self.threads = calibration.threads
        self._habits = HABITS[runtime]
        self._cache_bytes = calibration.cache_bytes
        self._decode = Costs(calibration.decode, calibration.decode_correlations)
        self._prefill = Costs(calibration.prefill, calibration.prefill_correlations)
        self._decode_spread = math.hypot(UNSEEN_DECODE, calibration.decode_residual)
        self._prefill_spread = math.hypot(UNSEEN_PREFILL, calibration.prefill_residual)
        doubt = "" if calibration.trustworthy else ", disturbed"
        self._source = f"calibration of {runtime} {calibration.runtime_version} here{doubt}"

    def decode(self, work: Work, depth: int) -> Estimate:
        """Seconds per generated token with `depth` tokens in the cache."""
        terms = decode_work(work, depth, self._cache_bytes, self._habits)
        return self._estimate(*self._decode.seconds(terms), self._decode_spread)

    def prefill(self, work: Work, tokens: int) -> Estimate:
        """Seconds to read a prompt from an empty cache up to the first logits."""
        most, spread = self._prefill.seconds(prefill_work(work, tokens, self._habits))
        step = last_step(work, tokens, self._cache_bytes, self._habits)
        last, more = self._decode.seconds(step)
        return self._estimate(most + last, spread + more, self._prefill_spread)

    def _estimate(self, seconds: float, variance: float, spread: float) -> Estimate:
        width = math.exp(Z_80 * math.sqrt(spread * spread + variance / (seconds * seconds)))
        return Estimate(seconds, seconds / width, seconds * width, self._source)
