"""Small random models in Hugging Face's own form, for tests.

    spec = make_folder(tmp_path / "m", "qwen3", layers=3, dtype="f16", shards=2)

writes `config.json`, safetensors and the tokenizer files, and returns the matching `ModelSpec`,
derived here and not by the readers under test. Weights are scaled so that attention is neither
flat nor one-hot and logits spread with a standard deviation near 2: a mistake anywhere shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from make_tokenizers import write_tokenizer

from edgegauge.model import ModelSpec, RopeScaling, Tensor

FAMILIES = ("llama", "llama3", "mobilellm", "qwen2", "qwen3", "gemma3")
"""Every block structure that is supported; llama3 has scaled rotary positions, mobilellm shares."""

SMALL: dict[str, Any] = {
    "layers": 3, "hidden": 64, "intermediate": 160, "heads": 4, "kv_heads": 2, "head_dim": 16,
    "vocab": 512, "tied": True, "context": 1024, "norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip

OF_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama"},
    "llama3": {
        "family": "llama",
        "rope_theta": 500000.0,
        "rope_scaling": RopeScaling(
            kind="llama3", factor=8, low_freq_factor=1, high_freq_factor=4, original_context=64
        ),
        "tied": False,
    },
    "mobilellm": {"family": "llama", "layers": 2, "layer_repeats": 2},
    "qwen2": {"family": "qwen2", "attention_bias": True, "rope_theta": 1e6, "norm_eps": 1e-6},
    "qwen3": {
        "family": "qwen3", "qk_norm": True, "rope_theta": 1e6, "norm_eps": 1e-6, "head_dim": 32,
    },
    "gemma3": {
        "family": "gemma3", "qk_norm": True, "rope_theta": 1e6, "rope_local_theta": 1e4,
        "norm_eps": 1e-6, "head_dim": 32, "kv_heads": 1, "layers": 6, "sliding_window": 24,
        "global_every": 6,
    },
}  # fmt: skip

TOKENIZERS = {
    "llama": "smollm", "llama3": "llama3", "mobilellm": "llama2", "qwen2": "qwen2",
    "qwen3": "qwen2", "gemma3": "gemma",
}  # fmt: skip

HUGGING_FACE = {
    "token_embd": "model.embed_tokens.weight",
    "output": "lm_head.weight",
    "output_norm": "model.norm.weight",
    "attn_norm": "input_layernorm.weight",
    "attn_q": "self_attn.q_proj.weight",
    "attn_k": "self_attn.k_proj.weight",
    "attn_v": "self_attn.v_proj.weight",
    "attn_q_bias": "self_attn.q_proj.bias",
    "attn_k_bias": "self_attn.k_proj.bias",
    "attn_v_bias": "self_attn.v_proj.bias",
    "attn_q_norm": "self_attn.q_norm.weight",
    "attn_k_norm": "self_attn.k_norm.weight",
    "attn_output": "self_attn.o_proj.weight",
    "attn_post_norm": "post_attention_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "ffn_gate": "mlp.gate_proj.weight",
    "ffn_up": "mlp.up_proj.weight",
    "ffn_down": "mlp.down_proj.weight",
    "ffn_post_norm": "post_feedforward_layernorm.weight",
}


def make_spec(family: str, **overrides: Any) -> ModelSpec:
    """The spec of a small model of this family, with these fields replaced."""
    return ModelSpec(**{"id": f"tiny-{family}", **SMALL, **OF_FAMILY[family], **overrides})


def make_folder(
    path: Path,
    family: str,
    *,
    seed: int = 0,
    dtype: str = "bf16",
    shards: int = 1,
    tokenizer: str | None = None,
    tokenizer_vocab: int | None = None,
    **overrides: Any,
) -> ModelSpec:
    """Write a random model of one of FAMILIES to `path`; returns its spec.

    `dtype` is bf16, f16 or f32. `tokenizer` is a style of `make_tokenizers` (by default the
    family's own), `tokenizer_vocab` its size where it differs from the embedding's.
    """
    spec = make_spec(family, **overrides)
    path.mkdir(parents=True, exist_ok=True)
    style = tokenizer or TOKENIZERS[family]
    special = write_tokenizer(path, style, tokenizer_vocab or spec.vocab)
    _write_json(path / "config.json", config_of(spec, dtype) | special)
    weights = {
        tensor_name(spec, t): (_shape(t), _encode(w, dtype)) for t, w in random_weights(spec, seed)
    }
    write_safetensors(path, weights, dtype, shards)
    return spec


def config_of(spec: ModelSpec, dtype: str = "bf16") -> dict[str, Any]:
    """The `config.json` that Hugging Face's library would have written for this spec."""
    kind = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3"}[spec.family]
    config: dict[str, Any] = {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": kind[spec.family],
        "num_hidden_layers": spec.layers,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "vocab_size": spec.vocab,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "rope_scaling": _rope_scaling(spec),
        "tie_word_embeddings": spec.tied,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype],
        "hidden_act": "silu",
    }
    if spec.head_dim * spec.heads != spec.hidden or spec.family in ("qwen3", "gemma3"):
        config["head_dim"] = spec.head_dim
    if spec.layer_repeats > 1:
        # MobileLLM ties through share_embedding, whatever tie_word_embeddings says.
        config |= {"architectures": ["MobileLLMForCausalLM"], "model_type": "mobilellm"}
        config |= {"layer_sharing": True, "share_embedding": spec.tied}
        config["tie_word_embeddings"] = False
    if spec.family == "qwen3":
        config["attention_bias"] = False
    if spec.family == "gemma3":
        del config["hidden_act"]
        config |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": round((spec.query_scale or spec.head_dim**-0.5) ** -2),
            "rope_local_base_freq": spec.rope_local_theta,
            "sliding_window": spec.sliding_window,
            "sliding_window_pattern": spec.global_every,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": False,
        }
    return config


def _rope_scaling(spec: ModelSpec) -> dict[str, Any] | None:
    scaling = spec.rope_scaling
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def random_weights(spec: ModelSpec, seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Every tensor of the spec with float32 weights as a checkpoint stores them."""
    generator = np.random.RandomState(seed)  # its numbers are promised never to change
    for tensor in spec.tensors():
        drawn = generator.standard_normal(_shape(tensor)).astype(np.float32)
        yield tensor, _scaled(spec, tensor, drawn)


def _scaled(spec: ModelSpec, tensor: Tensor, drawn: np.ndarray) -> np.ndarray:
    """`drawn` with the spread its role needs for lively but bounded activations."""
    if tensor.role.endswith("_bias"):
        return 0.3 * drawn
    if tensor.is_vector:
        # A tied head sees small embeddings, so the last norm makes up for it.
        centre = 2.0 if tensor.role == "output_norm" else 1.0
        stored_offset = 1.0 if spec.family == "gemma3" else 0.0
        return centre * (1 + 0.2 * drawn) - stored_offset
    if tensor.role == "token_embd":
        return drawn / math.sqrt(spec.hidden)
    gain = {"attn_q": 1.3, "attn_k": 1.3, "attn_output": 2.0, "ffn_down": 2.0}.get(tensor.role, 1.0)
    return gain * drawn / math.sqrt(tensor.cols)


def plain_weights(spec: ModelSpec, seed: int) -> Callable[[Tensor], np.ndarray]:
    """The same weights as `Reference` takes them: norms as factors."""
    made = dict(random_weights(spec, seed))
    offset = 1.0 if spec.family == "gemma3" else 0.0
    return lambda t: made[t] + offset if t.role.endswith("_norm") else made[t]


def tensor_name(spec: ModelSpec, tensor: Tensor) -> str:
    """Hugging Face's name of this tensor."""
    name = HUGGING_FACE[tensor.role]
    if tensor.role == "ffn_norm" and spec.family == "gemma3":
        name = "pre_feedforward_layernorm.weight"
    return name if tensor.layer is None else f"model.layers.{tensor.layer}.{name}"


def write_safetensors(
    path: Path, weights: dict[str, tuple[list[int], bytes]], dtype: str, shards: int
) -> None:
    """`model.safetensors`, or shards with their index; the layout is documented by safetensors."""
    if shards == 1:
        _write_shard(path / "model.safetensors", weights, dtype)
        return
    index: dict[str, str] = {}
    for number in range(shards):
        part = dict(list(weights.items())[number::shards])
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        _write_shard(path / file, part, dtype)
        index |= dict.fromkeys(part, file)
    total = sum(len(data) for _, data in weights.values())
    document = {"metadata": {"total_size": total}, "weight_map": index}
    _write_json(path / "model.safetensors.index.json", document)


def _write_shard(path: Path, weights: dict[str, tuple[list[int], bytes]], dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, data) in weights.items():
        span = [offset, offset + len(data)]
        header[name] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": span}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.writelines(data for _, data in weights.values())


def _shape(tensor: Tensor) -> list[int]:
    return [tensor.cols] if tensor.is_vector else [tensor.rows, tensor.cols]


def _encode(values: np.ndarray, dtype: str) -> bytes:
    if dtype != "bf16":
        return values.astype({"f16": "<f2", "f32": "<f4"}[dtype]).tobytes()
    bits = values.astype("<f4").view("<u4")
    # Round to the nearest even of the 16 bits that stay.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
