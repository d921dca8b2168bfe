"""The NumPy reference against the numbers of the transformers library, and against itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_models import FAMILIES, make_spec, plain_weights

from edgegauge.errors import InputError
from edgegauge.model import RopeScaling, Tensor
from edgegauge_converters.blueprint import Attention, Rotary, blueprint, rotary_frequencies
from edgegauge_converters.reference import Cache, Reference

GOLDEN = Path(__file__).parent / "data" / "golden_logits"
TOKENS = np.random.RandomState(5).randint(0, 512, 60)


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_transformers(family: str) -> None:
    golden = np.load(GOLDEN / f"{family}.npz")
    spec = make_spec(family)
    logits = Reference(spec, plain_weights(spec, int(golden["seed"]))).logits(golden["tokens"])
    ours = logits[np.ix_(golden["positions"], golden["columns"])]
    # float32 rounding alone is 2e-5 at a logit spread of 2.
    assert np.abs(ours - golden["logits"]).max() < 1e-4
    assert np.array_equal(logits.argmax(1), golden["argmax"])


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_then_single_tokens_equals_one_pass(family: str) -> None:
    spec = make_spec(family)
    reference = Reference(spec, plain_weights(spec, 1), np.float64)
    whole = reference.logits(TOKENS)
    cache = Cache()
    parts = [reference.logits(TOKENS[:37], cache), reference.logits(TOKENS[37:50], cache)]
    parts += [reference.logits([token], cache) for token in TOKENS[50:]]
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-9
    assert cache.tokens == len(TOKENS)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_models_have_lively_logits(family: str) -> None:
    spec = make_spec(family)
    logits = Reference(spec, plain_weights(spec, 2)).logits(TOKENS)
    assert 1 < logits.std() < 4
    assert len(set(logits.argmax(1))) > len(TOKENS) / 4  # no token wins everywhere


def test_attention_is_causal() -> None:
    spec = make_spec("qwen3")
    reference = Reference(spec, plain_weights(spec, 3))
    changed = TOKENS.copy()
    changed[40] += 1
    before, after = reference.logits(TOKENS), reference.logits(changed)
    assert np.array_equal(before[:40], after[:40])
    assert np.abs(before[40:] - after[40:]).max(axis=1).min() > 1e-3


def test_window_hides_what_lies_before_it() -> None:
    spec = make_spec("gemma3", layers=1, global_every=2, sliding_window=8)
    reference = Reference(spec, plain_weights(spec, 3))
    changed = TOKENS.copy()
    changed[10] += 1
    difference = np.abs(reference.logits(TOKENS) - reference.logits(changed)).max(axis=1)
    assert np.flatnonzero(difference).tolist() == list(range(10, 18))


def test_shared_blocks_run_in_a_row() -> None:
    shared = make_spec("mobilellm")
    weights = plain_weights(shared, 4)
    unrolled = make_spec("mobilellm", layers=shared.executed_layers, layer_repeats=1)

    def stored_once(tensor: Tensor) -> np.ndarray:
        layer = None if tensor.layer is None else tensor.layer // 2
        return weights(Tensor(tensor.role, layer, tensor.rows, tensor.cols))

    expected = Reference(unrolled, stored_once).logits(TOKENS)
    assert np.array_equal(Reference(shared, weights).logits(TOKENS), expected)


def test_gemma_alternates_windows_and_bases() -> None:
    spec = make_spec("gemma3")
    operations = list(blueprint(spec))
    windows = [o.window for o in operations if isinstance(o, Attention)]
    assert windows == [24, 24, 24, 24, 24, None]
    second = [o.frequencies[1] for o in operations if isinstance(o, Rotary)][::2]
    assert second == pytest.approx([1e4 ** (-2 / 32)] * 5 + [1e6 ** (-2 / 32)])


def test_llama3_scaling_slows_only_slow_turns() -> None:
    scaling = RopeScaling(kind="llama3", factor=8, original_context=8192)
    spec = make_spec("llama3", head_dim=128, rope_scaling=scaling)
    plain = np.array(rotary_frequencies(spec.model_copy(update={"rope_scaling": None}), True))
    ratio = np.array(rotary_frequencies(spec, True)) / plain
    turns = 8192 * plain / (2 * np.pi)
    assert np.all(ratio[turns > 4] == 1)
    assert np.allclose(ratio[turns < 1], 1 / 8)
    between = ratio[(turns >= 1) & (turns <= 4)]
    assert len(between) and np.all(np.diff(between) < 0)


@pytest.mark.parametrize("tokens", [[], [-1], [512], [[1, 2]]])
def test_impossible_tokens_are_refused(tokens: list[int]) -> None:
    spec = make_spec("llama")
    with pytest.raises(InputError, match="token ids from 0 to 511"):
        Reference(spec, plain_weights(spec, 0)).logits(tokens)


def test_a_weight_of_another_shape_is_refused() -> None:
    spec = make_spec("llama")
    weights = plain_weights(spec, 0)
    broken = Reference(spec, lambda t: weights(t).T if t.role == "ffn_down" else weights(t))
    with pytest.raises(InputError, match="ffn_down of layer 0: expected shape"):
        broken.logits([1])
