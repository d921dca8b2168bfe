"""`genai_config.json`: what onnxruntime-genai, and our own session, must know beside the graph.

Keys are those of onnxruntime-genai 0.18 (`src/config.cpp`), which reads every older form too.
"""

from __future__ import annotations

from typing import Any

from edgegauge.model import ModelSpec

GENAI_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
"""Our families by that library's name of the same decoder."""


def genai_config(
    spec: ModelSpec, graph: str, ids: dict[str, int], end_tokens: list[int]
) -> dict[str, Any]:
    """The document; `ids` are special tokens by role, `end_tokens` those that end a generation."""
    ends = end_tokens or [0]
    return {
        "model": {
            "type": GENAI_TYPES[spec.family],
            "bos_token_id": ids.get("bos", ends[0]),
            "eos_token_id": ends[0] if len(ends) == 1 else ends,
            "pad_token_id": ids.get("pad", ends[0]),
            "context_length": spec.context,
            "vocab_size": spec.vocab,
            "decoder": {
                "filename": graph,
                "hidden_size": spec.hidden,
                "head_size": spec.head_dim,
                "num_attention_heads": spec.heads,
                "num_key_value_heads": spec.kv_heads,
                "num_hidden_layers": spec.executed_layers,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": spec.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
        },
    }
