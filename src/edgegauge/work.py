"""Work: what a candidate asks of a machine for each token, whatever the machine is.

    work = work_of(spec, "q4_0")
    work.weight_bytes                    # read for every generated token
    work.weights                         # {"Q4_0": 134217728, "Q6_K": 28311552}: multiply-adds
    work.kv_bytes(512)                   # keys and values read with 512 tokens in the cache

Embeddings that are only looked up in are not read; a tied head is. Vectors count as bytes and as
weights of type F32, which is next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from edgegauge.memory import KV_ELEMENT_BYTES
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe, StoredTensor, inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one token asks for."""

    weight_bytes: int
    """Read per generated token."""
    weights: dict[str, int]
    """Type -> weights multiplied per generated token."""
    body: dict[str, int]
    """The same without the output head, which a prompt needs once."""
    body_bytes: int
    """Of the weights in `body`."""
    layers: int
    """Blocks executed."""
    window: int
    """Tokens that a local layer sees; 0 where all layers see all."""
    kv_bytes_per_token: float
    """Read per generated token for each token in the cache, by layers that see all of them."""
    local_kv_bytes_per_token: float
    """The same by layers that see a window."""
    attention_per_token: float
    """Multiply-adds per token for each token it sees, in layers that see all."""
    local_attention_per_token: float
    """The same in layers that see a window."""

    def kv_bytes(self, depth: float) -> float:
        """Bytes of keys and values read by a token with `depth` tokens in the cache."""
        near = depth if depth < self.window else self.window
        return depth * self.kv_bytes_per_token + near * self.local_kv_bytes_per_token

    def attention(self, depth: float) -> float:
        """Multiply-adds of attention of a token with `depth` tokens in the cache."""
        near = depth if depth < self.window else self.window
        return depth * self.attention_per_token + near * self.local_attention_per_token


@lru_cache(maxsize=4096)
def work_of(spec: ModelSpec, recipe: Recipe, file_format: str = "gguf") -> Work:
    """What a token of this candidate asks for; InputError for a recipe the format has not."""
    repeats = 1 if file_format == "gguf" else spec.layer_repeats
    return work_from(spec, inventory(spec, recipe, file_format), file_format, repeats)


def work_from(
    spec: ModelSpec,
    tensors: Iterable[tuple[StoredTensor, int]],
    file_format: str = "gguf",
    repeats: int = 1,
) -> Work:
    """The work of a file with these tensors, each so often, each block executed `repeats` times."""
    weight_bytes = body_bytes = 0
    weights: dict[str, int] = {}
    body: dict[str, int] = {}
    for stored, count in tensors:
        role = stored.tensor.role
        if role == "token_embd" and not spec.tied:
            continue
        times = count if stored.tensor.layer is None else count * repeats
        elements = times * stored.tensor.elements
        weight_bytes += times * stored.bytes
        weights[stored.type] = weights.get(stored.type, 0) + elements
        if role not in ("token_embd", "output"):
            body[stored.type] = body.get(stored.type, 0) + elements
            body_bytes += times * stored.bytes
    everywhere = sum(spec.is_global(layer) for layer in range(spec.executed_layers))
    nearby = spec.executed_layers - everywhere
    per_layer = 2 * spec.kv_heads * spec.head_dim * KV_ELEMENT_BYTES[file_format]
    attention = 2 * spec.heads * spec.head_dim
    return Work(
        weight_bytes=weight_bytes, weights=weights, body=body, body_bytes=body_bytes,
        layers=spec.executed_layers, window=spec.sliding_window or 0,
        kv_bytes_per_token=everywhere * per_layer, local_kv_bytes_per_token=nearby * per_layer,
        attention_per_token=everywhere * attention, local_attention_per_token=nearby * attention,
    )  # fmt: skip
