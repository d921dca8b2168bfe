"""A GGUF file whose every probability is known in closed form, without any converter of ours.

Embeddings are one-hot and every block writes nothing, so the next token depends on the last one
alone: the logits after token t are column t of `output` times NORM. Tokens are single bytes.

    write_bigram(path, {"1": "o", "o": "n", "n": "e", "e": None})     # "1" -> "one" and its end
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = 1, 2
VOCAB, WIDTH = 260, 320
EPSILON = 1e-6
NORM = (1 / WIDTH + EPSILON) ** -0.5
"""What RMS normalisation makes of a one-hot vector of this width."""


def token_of(character: str) -> int:
    """The id of an ASCII character; a space is a token of its own."""
    return 259 if character == " " else ord(character) + 3


def follows(table: dict[str, str | None]) -> Any:
    """The `output` matrix of a model that continues each character as the table says."""
    import numpy as np

    output = np.zeros((VOCAB, WIDTH), np.float32)
    output[END, :] = 1.0  # what the table does not know is followed by the end
    for last, following in table.items():
        output[END if following is None else token_of(following), token_of(last)] = 2.0
    return output


def write_bigram(path: Path, output: Any, context: int = 256) -> Path:
    """Write the model with this (VOCAB, WIDTH) matrix, or with `follows` of this table."""
    import gguf
    import numpy as np

    matrix = follows(output) if isinstance(output, dict) else output
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581"])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_tensor("token_embd.weight", np.eye(VOCAB, WIDTH, dtype=np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float32))
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(WIDTH, np.float32))
    for name, rows, cols in (("gate", 32, WIDTH), ("up", 32, WIDTH), ("down", WIDTH, 32)):
        writer.add_tensor(f"blk.0.ffn_{name}.weight", np.zeros((rows, cols), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", matrix.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
