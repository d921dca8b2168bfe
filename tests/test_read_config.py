"""Reading config.json: what transformers would build, or a refusal that names the key."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_models import FAMILIES, config_of, make_spec

from edgegauge import catalog
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec, RopeScaling
from edgegauge.read_config import spec_from_config, spec_from_folder

CONFIGS = Path(__file__).parent / "data" / "configs"
LLAMA = config_of(make_spec("llama"))
BARE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4,
}  # fmt: skip


def read(config: dict[str, Any]) -> ModelSpec:
    return spec_from_config(config, "x", "config.json")


def problems(config: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        read(config)
    return f"{caught.value}\n{caught.value.hint or ''}"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_published_forms_give_the_catalogs_spec(path: Path) -> None:
    id = path.stem.removesuffix(".transformers5")
    assert spec_from_folder(path, id) == catalog.load()[id].spec


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_transformers_4_writes(family: str) -> None:
    spec = make_spec(family)
    assert spec_from_config(config_of(spec), spec.id, "config.json") == spec


def as_transformers_5(config: dict[str, Any], family: str) -> dict[str, Any]:
    """The same configuration with its rotary positions in `rope_parameters`."""
    new = {k: v for k, v in config.items() if not k.startswith("rope_")}
    full = {"rope_type": "default", **(config["rope_scaling"] or {})}
    full["rope_theta"] = config["rope_theta"]
    local = {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq")}
    tables = {"full_attention": full, "sliding_attention": local}
    return new | {"rope_parameters": tables if family == "gemma3" else full}


@pytest.mark.parametrize("family", FAMILIES)
def test_reads_what_transformers_5_writes(family: str) -> None:
    spec = make_spec(family)
    new = as_transformers_5(config_of(spec), spec.family)
    assert spec_from_config(new, spec.id, "config.json") == spec


# What transformers 5.23 makes of a configuration with nothing but sizes, checked there.
@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("LlamaForCausalLM", {"kv_heads": 4, "head_dim": 16, "context": 2048, "tied": False}),
        ("Qwen3ForCausalLM", {"kv_heads": 32, "head_dim": 128, "context": 32768, "tied": False}),
        ("Gemma3ForCausalLM", {
            "kv_heads": 4, "head_dim": 256, "context": 131072, "tied": True, "rope_theta": 1e6,
            "rope_local_theta": 1e4, "sliding_window": 4096, "global_every": 6,
        }),
    ],
)  # fmt: skip
def test_absent_keys_mean_what_transformers_assumes(
    architecture: str, expected: dict[str, Any]
) -> None:
    heads = 32 if architecture.startswith("Qwen") else 4
    spec = read({"architectures": [architecture], **BARE, "num_attention_heads": heads})
    assert spec.norm_eps == 1e-6
    assert {key: getattr(spec, key) for key in expected} == expected


def test_null_key_value_heads_mean_as_many_as_heads() -> None:
    qwen = {"architectures": ["Qwen2ForCausalLM"], **BARE}
    assert read(qwen | {"num_key_value_heads": None}).kv_heads == 4
    assert "kv_heads" in problems(qwen)  # absent means 32 in Qwen 2, which 4 heads do not allow


def test_mobilellm_ties_and_shares_through_its_own_keys() -> None:
    config = LLAMA | {"tie_word_embeddings": False, "share_embedding": True, "layer_sharing": True}
    spec = read(config)
    assert (spec.tied, spec.layer_repeats, spec.executed_layers) == (True, 2, 6)
    assert "layer_sharing" in problems(config | {"layer_sharing": "yes"})


def test_mistral_is_llama_only_without_a_window() -> None:
    mistral = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    assert read(mistral | {"sliding_window": None}).family == "llama"
    assert "sliding_window" in problems(mistral | {"sliding_window": 4096})
    assert "sliding_window" in problems(mistral)  # transformers then assumes 4096


def test_gemma3_patterns_and_query_scale() -> None:
    config = config_of(make_spec("gemma3"))
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    assert read(config | {"layer_types": kinds}).global_every == 3
    all_local = read(config | {"layer_types": ["sliding_attention"] * 6})
    assert [all_local.is_global(i) for i in range(6)] == [False] * 6
    all_global = read(config | {"layer_types": ["full_attention"] * 6})
    assert all_global.sliding_window is None
    assert "layer_types" in problems(config | {"layer_types": kinds[::-1]})
    assert "6 layers" in problems(config | {"layer_types": kinds[:3]})
    scaled = read(config | {"query_pre_attn_scalar": 168})
    assert scaled.query_scale is not None and math.isclose(scaled.query_scale, 168**-0.5)
    assert read(config | {"query_pre_attn_scalar": 32}).query_scale is None


def test_rope_of_both_generations() -> None:
    linear = RopeScaling(kind="linear", factor=2)
    assert read(LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}).rope_scaling == linear
    inner = read(LLAMA | {"rope_theta": 7.0, "rope_parameters": {"rope_theta": 5.0}})
    assert inner.rope_theta == 5
    outer = read(LLAMA | {"rope_theta": 7.0, "rope_parameters": {"rope_type": "default"}})
    assert outer.rope_theta == 7
    flat = config_of(make_spec("gemma3")) | {"rope_parameters": {"rope_theta": 5.0}}
    assert "full_attention" in problems(flat)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MixtralForCausalLM"]}, "architectures: 'MixtralForCausalLM'"),
    ({"architectures": None, "model_type": "bert"}, "architectures: missing"),
    ({"architectures": [{}]}, "architectures"),
    ({"model_type": "qwen2"}, "model_type: 'qwen2' does not belong"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"attention_bias": True}, "attention_bias"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"num_local_experts": 8}, "num_local_experts"),
    ({"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling.rope_type"),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_scaling.rope_type"),
    ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor: required"),
    ({"rope_scaling": "linear"}, "rope_scaling: expected a table"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}, "rope_scaling": None}, "rotary"),
    ({"layer_types": ["full_attention", "sliding_attention", "x"]}, "layer_types"),
    ({"hidden_size": "64"}, "hidden_size: must be a valid integer, got '64'"),
    ({"hidden_size": None}, "hidden_size: required, but missing"),
    ({"num_hidden_layers": True}, "num_hidden_layers: must be a valid integer"),
    ({"num_hidden_layers": -3}, "num_hidden_layers: must be greater than 0"),
    ({"vocab_size": 10**5000}, "vocab_size"),
    ({"rms_norm_eps": math.nan}, "rms_norm_eps: must be a finite number"),
    ({"rope_theta": math.inf}, "rope_theta"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
    ({"num_attention_heads": 5, "num_key_value_heads": 5}, "head_dim: missing"),
    ({"num_attention_heads": 3, "num_key_value_heads": 2, "head_dim": 16}, "multiple"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_refusals_name_the_key_and_the_file(change: dict[str, Any], message: str) -> None:
    text = problems(LLAMA | change)
    assert message in text
    assert "@ config.json" in text
    assert len(text) < 2000


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"query_pre_attn_scalar": "256"}, "query_pre_attn_scalar"),
    ],
)
def test_variants_of_gemma3_are_refused(change: dict[str, Any], key: str) -> None:
    assert f"{key}: " in problems(config_of(make_spec("gemma3")) | change)


def test_every_problem_is_reported_at_once_under_the_nested_path() -> None:
    inner = config_of(make_spec("gemma3")) | {"head_dim": "x", "attention_bias": True}
    nested = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
    text = problems(nested | {"text_config": inner, "quantization_config": {}})
    for key in ("head_dim", "attention_bias", "quantization_config"):
        assert f"text_config.{key}: " in text
    assert "text_config: expected a table" in problems(nested)


def test_use_sliding_window_counts_only_where_layers_use_it() -> None:
    qwen = config_of(make_spec("qwen2")) | {"use_sliding_window": True, "sliding_window": 128}
    assert read(qwen | {"max_window_layers": 3}).sliding_window is None
    assert "use_sliding_window" in problems(qwen | {"max_window_layers": 2})


def test_folder_and_hub_cache_names(tmp_path: Path) -> None:
    plain = tmp_path / "SmolLM2-Tiny"
    cached = tmp_path / "models--Owner--Tiny-1B" / "snapshots" / "abc"
    for folder in (plain, cached):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(LLAMA))
    assert spec_from_folder(plain).id == "smollm2-tiny"
    assert spec_from_folder(plain / "config.json") == spec_from_folder(plain)
    assert spec_from_folder(cached).id == "tiny-1b"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"hidden_size": 1' + "0" * 9000])
def test_broken_files_are_input_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError):
        spec_from_folder(tmp_path)
    with pytest.raises(InputError, match=r"no config\.json"):
        spec_from_folder(tmp_path.parent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = sorted(
    {k for family in FAMILIES for k in config_of(make_spec(family))}
    | {"rope_parameters", "layer_types", "text_config", "quantization_config", "layer_sharing"}
)


@settings(max_examples=100, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=4),
    dropped=st.sets(st.sampled_from(KEYS), max_size=2),
)
def test_any_junk_is_a_spec_or_an_input_error(
    family: str, changes: dict[str, Any], dropped: set[str]
) -> None:
    config = config_of(make_spec(family)) | changes
    try:
        spec = read({k: v for k, v in config.items() if k not in dropped})
    except InputError as error:
        assert "config.json" in str(error)
    else:
        assert spec.parameters == sum(t.elements for t in spec.tensors())


@given(
    family=st.sampled_from(FAMILIES),
    layers=st.integers(1, 40).map(lambda n: 6 * n),
    kv=st.integers(1, 8),
    groups=st.integers(1, 4),
    half=st.integers(1, 64),
    vocab=st.integers(1, 300_000),
    tied=st.booleans(),
)
def test_any_shape_survives_the_trip_through_a_config(
    family: str, layers: int, kv: int, groups: int, half: int, vocab: int, tied: bool
) -> None:
    hidden = kv * groups * 2 * half  # Qwen 2 knows no other head_dim
    spec = make_spec(
        family, layers=layers, kv_heads=kv, heads=kv * groups, head_dim=2 * half, hidden=hidden,
        vocab=vocab, tied=tied,
    )  # fmt: skip
    assert spec_from_config(config_of(spec), spec.id, "config.json") == spec
