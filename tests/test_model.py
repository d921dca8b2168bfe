"""Model specs: parameter counts and caches against published facts, and their own consistency."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_models import FAMILIES, make_spec

from edgegauge import catalog
from edgegauge.document import parse
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec

FACTS = list(
    csv.DictReader((Path(__file__).parent / "data" / "models.csv").read_text().splitlines())
)
"""Counts collected from model cards, papers and configurations; sources are in the last columns."""


def spec_of(fact: dict[str, str]) -> ModelSpec:
    return catalog.load()[fact["id"].split("/")[-1].split(":")[-1].lower()].spec


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"].split("/")[-1])
def test_counts_equal_the_published_facts(fact: dict[str, str]) -> None:
    spec = spec_of(fact)
    assert spec.parameters == int(fact["params_total_computed"])
    assert spec.embedding_parameters == int(fact["params_embedding"])
    assert spec.head_parameters == int(fact["params_lm_head"])
    assert spec.kv_bytes_per_token == int(fact["kv_bytes_fp16_per_token_global"])
    # The facts apply every window but not the model's own length.
    assert spec.kv_cache_bytes(4096) == int(fact["kv_bytes_fp16_4096"])
    if fact["params_published_exact"]:
        assert spec.parameters == int(fact["params_published_exact"])


def test_facts_cover_every_shape_of_the_catalog() -> None:
    counted = {spec_of(fact).parameters for fact in FACTS}
    assert {entry.spec.parameters for entry in catalog.load().values()} == counted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_split_is_the_sum_of_the_tensors(family: str) -> None:
    spec = make_spec(family)
    tensors = list(spec.tensors())
    assert spec.parameters == sum(t.elements for t in tensors)
    outside = sum(t.elements for t in tensors if t.role in ("token_embd", "output"))
    assert spec.embedding_parameters + spec.head_parameters == outside
    assert len({(t.role, t.layer) for t in tensors}) == len(tensors)


def test_shared_blocks_are_stored_once_and_run_twice() -> None:
    spec, single = make_spec("mobilellm"), make_spec("mobilellm", layer_repeats=1)
    assert spec.parameters == single.parameters
    assert spec.kv_cache_bytes(100) == 2 * single.kv_cache_bytes(100)
    unrolled = [t for t in spec.tensors(unrolled=True) if t.role == "attn_q"]
    assert [t.layer for t in unrolled] == list(range(2 * spec.layers))


@given(context=st.integers(1, 10_000), window=st.integers(1, 5000), every=st.integers(1, 8))
def test_a_window_bounds_the_cache_of_local_layers(context: int, window: int, every: int) -> None:
    spec = make_spec("gemma3", sliding_window=window, global_every=every)
    per_layer = 2 * 2 * spec.kv_heads * spec.head_dim
    global_layers = spec.layers // every
    local = (spec.layers - global_layers) * min(context, window)
    assert spec.kv_cache_bytes(context) == per_layer * (global_layers * context + local)
    full = max(context, window)
    growth = spec.kv_cache_bytes(full + 1) - spec.kv_cache_bytes(full)
    assert growth == spec.kv_bytes_per_token


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kv_heads": 3}, "multiple of kv_heads"),
        ({"head_dim": 15}, "head_dim must be even"),
        ({"sliding_window": 8}, "given together"),
        ({"layers": 0}, "layers: must be > 0"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, object], message: str) -> None:
    fields = make_spec("llama").model_dump() | wrong
    with pytest.raises(InputError, match=message):
        parse(fields, ModelSpec, "x.toml")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_survives_json(family: str) -> None:
    spec = make_spec(family)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(spec.model_copy())
