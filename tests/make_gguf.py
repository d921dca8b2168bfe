"""Writes tiny Llama-shaped GGUF files with random weights, without any converter of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

END = 2
"""The end-of-sequence token of these files."""


def write_gguf(path: Path, *, quantised: bool = False, vocab: int = 300, layers: int = 2) -> Path:
    """A Llama of width 64 with a byte-level SentencePiece vocabulary; f32, or q4_0 matrices."""
    import gguf
    import numpy as np

    hidden, heads, kv_heads, ffn = 64, 4, 2, 128
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocab)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    tokens += [f"word{i}" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * vocab)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (vocab - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)

    def matrix(name: str, rows: int, cols: int) -> None:
        data: Any = random.standard_normal((rows, cols)).astype(np.float32) * 0.1
        if quantised:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(hidden, np.float32))

    matrix("token_embd.weight", vocab, hidden)
    kv = hidden // heads * kv_heads
    for layer in range(layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        matrix(block + "attn_q.weight", hidden, hidden)
        matrix(block + "attn_k.weight", kv, hidden)
        matrix(block + "attn_v.weight", kv, hidden)
        matrix(block + "attn_output.weight", hidden, hidden)
        ones(block + "ffn_norm.weight")
        matrix(block + "ffn_gate.weight", ffn, hidden)
        matrix(block + "ffn_up.weight", ffn, hidden)
        matrix(block + "ffn_down.weight", hidden, ffn)
    ones("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
