"""A Hugging Face `config.json` as a `ModelSpec`: exactly, or not at all.

    spec_from_folder(Path("SmolLM2-135M"))              # a folder, or the path of a config.json
    spec_from_config(config, "smollm2-135m", "x.json")  # a JSON object that is already read

Supported are the architectures of ARCHITECTURES. Keys that are absent mean what transformers takes
them to mean for that architecture (class defaults of transformers 4.57 and 5.23), except for sizes
that every published file states: a file without those is incomplete. Both ways of writing rotary
positions are read: `rope_theta` and `rope_scaling` at the top (transformers 4), and
`rope_parameters` (transformers 5).

Whatever would change the arithmetic and has no field in `ModelSpec` is refused: InputError lists
every finding as `key.path: what was expected, what was found @ file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegauge.config_reader import ConfigReader, shown
from edgegauge.document import read_json_object
from edgegauge.errors import InputError
from edgegauge.model import Family, ModelSpec

_LLAMA: dict[str, Any] = {
    "head_dim": None, "num_key_value_heads": None, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "rope_theta": 1e4,
}  # fmt: skip
_QWEN2 = _LLAMA | {"num_key_value_heads": 32, "max_position_embeddings": 32768}
_GEMMA3: dict[str, Any] = {
    "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "rope_theta": 1e6,
    "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "sliding_window_pattern": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a name in `architectures` stands for: block structure, model types, absent keys."""

    family: Family
    model_types: tuple[str, ...]
    defaults: Mapping[str, Any]
    nested: bool = False
    """The decoder is described in `text_config`."""


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", ("llama", "mobilellm"), _LLAMA),
    "MobileLLMForCausalLM": Architecture("llama", ("mobilellm",), _LLAMA),
    "MistralForCausalLM": Architecture(
        "llama",
        ("mistral",),
        _LLAMA
        | {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    ),
    "Qwen2ForCausalLM": Architecture("qwen2", ("qwen2",), _QWEN2),
    "Qwen3ForCausalLM": Architecture("qwen3", ("qwen3",), _QWEN2 | {"head_dim": 128}),
    "Gemma3ForCausalLM": Architecture("gemma3", ("gemma3_text",), _GEMMA3),
    "Gemma3ForConditionalGeneration": Architecture("gemma3", ("gemma3",), _GEMMA3, nested=True),
}
"""Every architecture that is read. Of Gemma 3 with vision, the text stack (`text_config`)."""

SILU = ("silu", "swish")
MOE_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
SHAPES = "silu or gelu_pytorch_tanh gates, rotary positions (plain, linear, llama3), no experts"


def spec_from_folder(path: Path, id: str | None = None) -> ModelSpec:
    """The spec of a Hugging Face folder or of a `config.json`; `id` defaults to the folder's name.

    Raises InputError where there is no config.json or it is not an architecture supported here.
    """
    config = path / "config.json" if path.is_dir() else path
    if not config.exists():
        raise InputError(
            f"no config.json in {path}" if path.is_dir() else f"no such file: {path}",
            hint="name a folder in Hugging Face's form: config.json, *.safetensors, tokenizer.json",
        )
    return spec_from_config(read_json_object(config), id or id_of(config), str(config))


def id_of(config: Path) -> str:
    """The id of the model whose config.json this is: its folder's name in lower case.

    In the hub's own cache (`models--owner--name/snapshots/REVISION`) it is `name`.
    """
    folder = config.resolve().parent
    for part in folder.parts[::-1]:
        if part.startswith("models--"):
            return part.split("--")[-1].lower()
    return folder.name.lower()[:200] or "model"


def spec_from_config(config: dict[str, Any], id: str, where: str) -> ModelSpec:
    """The spec that this configuration describes; `where` names its file in errors.

    Raises InputError with all problems.
    """
    architecture = _architecture(config, where)
    text = config.get("text_config") if architecture.nested else config
    if not isinstance(text, dict):
        raise InputError(f"text_config: expected a table, got {shown(text)} @ {where}")
    reader = ConfigReader(
        text,
        architecture.family,
        architecture.defaults,
        where,
        "text_config." if architecture.nested else "",
    )
    if architecture.nested:
        reader.inherit(config, "tie_word_embeddings", "quantization_config")
    _refuse_variants(reader)
    fields = _shape(reader) | _rope(reader)
    if architecture.family == "gemma3":
        fields |= _gemma3(reader)
    return reader.build(ModelSpec, {"id": id, "family": architecture.family} | fields)


def _architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """The supported architecture that the file names; `model_type` serves where none is named."""
    names, kind = config.get("architectures"), config.get("model_type")
    supported = f"supported are {', '.join(ARCHITECTURES)}"
    if not names:
        named = [n for n, a in ARCHITECTURES.items() if kind in a.model_types] if kind else []
        if not named:
            raise InputError(
                f"architectures: missing, and model_type is {shown(kind)} @ {where}", hint=supported
            )
        return ARCHITECTURES[named[-1]]
    name = names[0] if isinstance(names, list) else names
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(
            f"architectures: {shown(name)} is not supported @ {where}",
            hint=f"{supported}: dense decoders with {SHAPES}",
        )
    found = ARCHITECTURES[name]
    if kind is not None and kind not in found.model_types:
        raise InputError(
            f"model_type: {shown(kind)} does not belong to {name}, "
            f"which has {' or '.join(found.model_types)} @ {where}"
        )
    return found


def _refuse_variants(reader: ConfigReader) -> None:
    """Everything that changes the arithmetic and that a spec cannot say."""
    config, family = reader.config, reader.family
    act = "hidden_activation" if family == "gemma3" else "hidden_act"
    acts = ("gelu_pytorch_tanh",) if family == "gemma3" else SILU
    reader.refuse(act, unless=acts, why=f"only {' or '.join(acts)} is supported for {family}")
    if family != "qwen2":
        reader.refuse("attention_bias", unless=(None, False), why=f"{family} has no bias here")
    reader.refuse("mlp_bias", unless=(None, False), why="biases in the MLP are not supported")
    reader.refuse(
        "partial_rotary_factor", unless=(None, 1, 1.0), why="only full rotary heads are supported"
    )
    reader.refuse(
        "quantization_config",
        unless=(None,),
        why="weights that are quantised already cannot be read; use the original model",
    )
    for key in MOE_KEYS:
        reader.refuse(key, unless=(None, 0), why="mixtures of experts are not supported")
    if family != "gemma3":
        _refuse_windows(reader, config)


def _refuse_windows(reader: ConfigReader, config: Mapping[str, Any]) -> None:
    """Sliding windows outside Gemma 3, where they are really in use."""
    types = reader.get("layer_types")
    if types is not None and not (
        isinstance(types, list) and all(t == "full_attention" for t in types)
    ):
        reader.problem("layer_types", f"only full_attention is supported here, got {shown(types)}")
    if "sliding_window" in reader.defaults:
        # Mistral: an explicit null means full attention, an absent key transformers' window.
        if config.get("sliding_window", reader.defaults["sliding_window"]) is not None:
            reader.problem("sliding_window", "only null (full attention) is supported for Mistral")
    elif reader.get("use_sliding_window") not in (None, False):
        first, layers = reader.get("max_window_layers"), reader.get("num_hidden_layers")
        if not (isinstance(first, int) and isinstance(layers, int) and first >= layers):
            reader.problem("use_sliding_window", "sliding windows are supported for Gemma 3 only")


def _shape(reader: ConfigReader) -> dict[str, Any]:
    """Sizes and flags that all families share."""
    names = {
        "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
        "intermediate": "intermediate_size", "vocab": "vocab_size", "norm_eps": "rms_norm_eps",
        "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "tied": "tie_word_embeddings",
        "context": "max_position_embeddings",
    }  # fmt: skip
    reader.keys |= names
    fields = {spec: reader.get(key) for spec, key in names.items()}
    if reader.config.get("num_key_value_heads", 0) is None or fields["kv_heads"] is None:
        fields["kv_heads"] = fields["heads"]
    fields["head_dim"] = _head_dim(reader, fields)
    _sharing(reader, fields)
    family = reader.family
    return fields | {"attention_bias": family == "qwen2", "qk_norm": family in ("qwen3", "gemma3")}


def _head_dim(reader: ConfigReader, fields: Mapping[str, Any]) -> Any:
    """`head_dim`, or hidden_size / num_attention_heads where it is absent."""
    hidden, heads, stated = fields["hidden"], fields["heads"], fields["head_dim"]
    if not (_is_count(hidden) and _is_count(heads)):
        # Both are reported as they are; 2 only keeps this field out of the report.
        return 2 if stated is None else stated
    if stated is None and hidden % heads:
        reader.problem("head_dim", f"missing, and {hidden} is no multiple of {heads} heads")
        return 2
    if stated is not None and reader.family == "qwen2" and stated != hidden / heads:
        reader.problem("head_dim", "only hidden_size / num_attention_heads is supported for Qwen 2")
    return hidden // heads if stated is None else stated


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _sharing(reader: ConfigReader, fields: dict[str, Any]) -> None:
    """MobileLLM's own keys: a tied head whatever `tie_word_embeddings` says, blocks run twice.

    Source: facebookresearch/MobileLLM, pretrain.py and the configuration of the published models.
    """
    for key in ("share_embedding", "layer_sharing"):
        reader.refuse(key, unless=(None, True, False), why="expected true or false")
    if reader.get("share_embedding") is True:
        fields["tied"] = True
    if reader.get("layer_sharing") is True:
        fields["layer_repeats"] = 2


def _gemma3(reader: ConfigReader) -> dict[str, Any]:
    """Windows, the query scale, and the variants of Gemma 3 that are not supported."""
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        reader.refuse(key, unless=(None,), why="soft-capping is not supported")
    only_causal = "only causal attention is supported"
    reader.refuse("use_bidirectional_attention", unless=(None, False), why=only_causal)
    reader.keys |= {"sliding_window": "sliding_window", "global_every": "sliding_window_pattern"}
    every = _global_every(reader)
    fields: dict[str, Any] = {}
    if every != 1:
        fields = {"sliding_window": reader.get("sliding_window"), "global_every": every}
    scalar, head_dim = reader.number("query_pre_attn_scalar"), reader.get("head_dim")
    if scalar is not None and scalar != head_dim:
        fields["query_scale"] = float(scalar) ** -0.5
    return fields


def _global_every(reader: ConfigReader) -> Any:
    """The period of the global layers, from `layer_types` or else `sliding_window_pattern`."""
    types = reader.get("layer_types")
    if types is None:
        return reader.get("sliding_window_pattern")
    expected = ["full_attention", "sliding_attention"]
    if not isinstance(types, list) or not types or any(t not in expected for t in types):
        reader.problem("layer_types", f"expected a list of {' and '.join(expected)}")
        return 6
    layers = reader.get("num_hidden_layers")
    if len(types) != layers:
        reader.problem("layer_types", f"has {len(types)} entries for {shown(layers)} layers")
    every = types.index(expected[0]) + 1 if expected[0] in types else len(types) + 1
    regular = [expected[bool((i + 1) % every)] for i in range(len(types))]
    if types != regular:
        reader.problem("layer_types", "only one global layer at a fixed distance is supported")
    return every


def _rope(reader: ConfigReader) -> dict[str, Any]:
    """Base frequencies and scaling of the rotary positions."""
    key = "rope_scaling" if reader.config.get("rope_scaling") else "rope_parameters"
    table = reader.config.get(key) or {}
    gemma = reader.family == "gemma3"
    reader.keys |= {"rope_theta": "rope_theta", "rope_local_theta": "rope_local_base_freq"}
    if not isinstance(table, dict):
        reader.problem(key, f"expected a table, got {shown(table)}")
        table = {}
    nested = {k: v for k, v in table.items() if k in ("full_attention", "sliding_attention")}
    if gemma and key == "rope_parameters" and table and not nested:
        reader.problem(key, "Gemma 3 needs full_attention and sliding_attention in it")
    full_key = f"{key}.full_attention" if nested else key
    reader.keys["rope_scaling"] = full_key
    full = (nested.get("full_attention") or {}) if nested else table
    theta, scaling = _rope_of(reader, full_key, full)
    fields = {"rope_scaling": scaling, "rope_theta": _or(theta, reader.get("rope_theta"))}
    if gemma:
        local = nested.get("sliding_attention") or {}
        theta, scaling = _rope_of(reader, f"{key}.sliding_attention", local)
        if scaling is not None:
            reader.problem(f"{key}.sliding_attention", "scaling of local layers is not supported")
        fields["rope_local_theta"] = _or(theta, reader.get("rope_local_base_freq"))
    return fields


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _rope_of(reader: ConfigReader, path: str, table: Any) -> tuple[Any, dict[str, Any] | None]:
    """(theta or None, scaling) of one rope table."""
    if not isinstance(table, dict):
        reader.problem(path, f"expected a table, got {shown(table)}")
        return None, None
    if table.get("partial_rotary_factor") not in (None, 1):
        reader.problem(f"{path}.partial_rotary_factor", "only full rotary heads are supported")
    kind = table.get("rope_type") or table.get("type") or "default"
    theta = table.get("rope_theta")
    if kind == "default":
        return theta, None
    wanted = {"linear": {"factor": "factor"}, "llama3": _LLAMA3_KEYS}
    if not isinstance(kind, str) or kind not in wanted:
        names = "default, linear and llama3"
        reader.problem(f"{path}.rope_type", f"supported are {names}, got {shown(kind)}")
        return theta, None
    fields = {"kind": kind} | {spec: table.get(key) for spec, key in wanted[kind].items()}
    missing = [key for spec, key in wanted[kind].items() if fields[spec] is None]
    for key in missing:
        reader.problem(f"{path}.{key}", "required, but missing")
    return theta, None if missing else fields


_LLAMA3_KEYS = {
    "factor": "factor", "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}  # fmt: skip
