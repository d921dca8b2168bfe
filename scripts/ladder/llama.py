"""The models of the ladder: shapes, and a Llama with Hugging Face's parameter names."""

from __future__ import annotations

from typing import NamedTuple

import tokenizer as tokens
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

CONTEXT, ROPE_THETA, NORM_EPS = 512, 10_000.0, 1e-5


class Rung(NamedTuple):
    """The shape and the training of one model; widths in elements, batches in tokens."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    steps: int
    batch_tokens: int
    learning_rate: float


RUNGS = {
    "ladder-0.2m": Rung(64, 4, 4, 2, 192, 1400, 4096, 4e-3),
    "ladder-1m": Rung(128, 5, 4, 2, 384, 1400, 4096, 2.5e-3),
    "ladder-4m": Rung(256, 5, 8, 4, 768, 1400, 4096, 1.5e-3),
}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position: element i is paired with element i + half (Hugging Face's convention)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention with grouped key and value heads."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.heads, self.kv_heads = rung.heads, rung.kv_heads
        self.width = rung.hidden // rung.heads
        self.q_proj = nn.Linear(rung.hidden, rung.hidden, bias=False)
        self.k_proj = nn.Linear(rung.hidden, rung.kv_heads * self.width, bias=False)
        self.v_proj = nn.Linear(rung.hidden, rung.kv_heads * self.width, bias=False)
        self.o_proj = nn.Linear(rung.hidden, rung.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(batch, length, hidden) -> the same shape."""
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.width).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.width).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.width).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        # Written out: the fused kernel's bf16 backward pass is several times slower on x86.
        scores = (q @ k.transpose(-2, -1)).float() * self.width**-0.5
        unseen = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(unseen, -torch.inf).softmax(-1).to(v.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    """The gated feed-forward part (SwiGLU)."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(rung.hidden, rung.intermediate, bias=False)
        self.up_proj = nn.Linear(rung.hidden, rung.intermediate, bias=False)
        self.down_proj = nn.Linear(rung.intermediate, rung.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden) -> the same shape."""
        return self.down_proj(nnf.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(rung.hidden, eps=NORM_EPS)
        self.self_attn = Attention(rung)
        self.post_attention_layernorm = nn.RMSNorm(rung.hidden, eps=NORM_EPS)
        self.mlp = FeedForward(rung)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(batch, length, hidden) -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything but the head, which is the embedding itself."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(tokens.VOCAB_SIZE, rung.hidden)
        self.layers = nn.ModuleList(Layer(rung) for _ in range(rung.layers))
        self.norm = nn.RMSNorm(rung.hidden, eps=NORM_EPS)
        width = rung.hidden // rung.heads
        speed = ROPE_THETA ** -(torch.arange(0, width, 2) / width)
        angle = torch.outer(torch.arange(CONTEXT).float(), torch.cat((speed, speed)))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length) token ids -> (batch, length, hidden)."""
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]].to(x.dtype), self.sin[: ids.shape[1]].to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Llama(nn.Module):
    """The language model; `model.` is part of every published tensor name."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.model = Decoder(rung)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                spread = weight.shape[1] ** -0.5 / ((2 * rung.layers) ** 0.5 if last else 1)
                nn.init.normal_(weight, std=0.02 if "embed" in name else spread)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length) token ids -> (batch, length, vocabulary) logits."""
        return nnf.linear(self.model(ids), self.model.embed_tokens.weight)
