"""Small random sentence encoders in Hugging Face's own form, for tests.

    spec = make_encoder(tmp_path / "m", "minilm")

writes `config.json`, safetensors, the tokenizer and sentence-transformers' files, and returns the
matching `EncoderSpec`, derived here and not by the readers under test.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from make_models import write_safetensors
from make_tokenizers import CORPUS
from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

from edgegauge.encoder import EncoderSpec
from edgegauge.model import Tensor

KINDS = ("bert", "minilm", "distilbert")
"""bert: under a pre-training head, old norm names, first token; minilm: bare, mean, length 1."""

SMALL: dict[str, Any] = {
    "family": "bert", "layers": 3, "hidden": 64, "intermediate": 160, "heads": 4, "vocab": 512,
    "positions": 96, "token_types": 2, "norm_eps": 1e-12, "activation": "gelu",
    "pooling": "mean", "normalise": True,
}  # fmt: skip

OF_KIND: dict[str, dict[str, Any]] = {
    "bert": {"pooling": "cls", "normalise": False, "activation": "gelu_tanh", "norm_eps": 1e-5},
    "minilm": {},
    "distilbert": {"family": "distilbert", "token_types": 0, "normalise": False},
}

EMBEDDINGS = {
    "token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm",
}  # fmt: skip
BERT = {
    "attn_q": "attention.self.query", "attn_k": "attention.self.key",
    "attn_v": "attention.self.value", "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm", "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
}  # fmt: skip
DISTILBERT = {
    "attn_q": "attention.q_lin", "attn_k": "attention.k_lin", "attn_v": "attention.v_lin",
    "attn_output": "attention.out_lin", "attn_output_norm": "sa_layer_norm", "ffn_up": "ffn.lin1",
    "ffn_down": "ffn.lin2", "layer_output_norm": "output_layer_norm",
}  # fmt: skip


def make_encoder_spec(kind: str, **overrides: Any) -> EncoderSpec:
    """The spec of a small encoder of this kind, with these fields replaced."""
    return EncoderSpec(**{"id": f"tiny-{kind}", **SMALL, **OF_KIND[kind], **overrides})


def make_encoder(
    path: Path, kind: str, *, seed: int = 0, tokenizer_vocab: int | None = None, **overrides: Any
) -> EncoderSpec:
    """Write a random model of one of KINDS to `path`; returns its spec."""
    spec = make_encoder_spec(kind, **overrides)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", encoder_config(spec, kind))
    write_modules(path, spec)
    (path / "tokenizer.json").write_text(wordpiece(tokenizer_vocab or spec.vocab), "utf-8")
    weights = {
        name_of(spec, kind, tensor): (list(values.shape), values.astype("<f4").tobytes())
        for tensor, values in encoder_weights(spec, seed)
    }
    for name, shape in unused_tensors(spec, kind).items():
        weights[name] = (shape, np.ones(shape, "<f4").tobytes())
    write_safetensors(path, weights, "f32", 1)
    return spec


def encoder_config(spec: EncoderSpec, kind: str) -> dict[str, Any]:
    """The `config.json` that Hugging Face's library would have written for this spec."""
    activation = {"gelu": "gelu", "gelu_tanh": "gelu_new"}[spec.activation]
    if spec.family == "distilbert":
        return {
            "architectures": ["DistilBertModel"], "model_type": "distilbert", "dim": spec.hidden,
            "n_layers": spec.layers, "n_heads": spec.heads, "hidden_dim": spec.intermediate,
            "vocab_size": spec.vocab, "max_position_embeddings": spec.positions,
            "activation": activation, "sinusoidal_pos_embds": False, "dropout": 0.1,
        }  # fmt: skip
    return {
        "architectures": ["BertForMaskedLM" if kind == "bert" else "BertModel"],
        "model_type": "bert", "hidden_size": spec.hidden, "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads, "intermediate_size": spec.intermediate,
        "vocab_size": spec.vocab, "max_position_embeddings": spec.positions,
        "type_vocab_size": spec.token_types, "layer_norm_eps": spec.norm_eps,
        "hidden_act": activation, "position_embedding_type": "absolute", "use_cache": True,
    }  # fmt: skip


def write_modules(path: Path, spec: EncoderSpec) -> None:
    """The files that say what becomes of the tokens' vectors, as sentence-transformers has them."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    kinds += [("Normalize", "2_Normalize")] if spec.normalise else []
    modules = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(kinds)
    ]
    write_json(path / "modules.json", modules)
    (path / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": spec.hidden,
        "pooling_mode_cls_token": spec.pooling == "cls",
        "pooling_mode_mean_tokens": spec.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(path / "1_Pooling" / "config.json", pooling)


def name_of(spec: EncoderSpec, kind: str, tensor: Tensor) -> str:
    """Hugging Face's name of this tensor; `bert` writes norms as TensorFlow's checkpoints do."""
    owner = tensor.role.removesuffix("_bias")
    names = EMBEDDINGS | (DISTILBERT if spec.family == "distilbert" else BERT)
    blocks = "transformer.layer" if spec.family == "distilbert" else "encoder.layer"
    layer = "" if tensor.layer is None else f"{blocks}.{tensor.layer}."
    ending = "weight" if owner == tensor.role else "bias"
    if kind == "bert" and owner.endswith("_norm"):
        ending = {"weight": "gamma", "bias": "beta"}[ending]
    prefix = "bert." if kind == "bert" else ""
    return f"{prefix}{layer}{names[owner]}.{ending}"


def unused_tensors(spec: EncoderSpec, kind: str) -> dict[str, list[int]]:
    """What such checkpoints hold beside the encoder, by name."""
    if kind == "minilm":
        return {"embeddings.position_ids": [1, spec.positions], "pooler.dense.bias": [spec.hidden]}
    return {"cls.predictions.bias": [spec.vocab]} if kind == "bert" else {}


def encoder_weights(spec: EncoderSpec, seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Every tensor of the spec with float32 weights."""
    generator = np.random.RandomState(seed)  # its numbers are promised never to change
    for tensor in spec.tensors():
        shape = (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)
        drawn = generator.standard_normal(shape).astype(np.float32)
        yield tensor, _scaled(tensor, drawn)


def _scaled(tensor: Tensor, drawn: np.ndarray) -> np.ndarray:
    if tensor.role.endswith("_bias"):
        return 0.3 * drawn
    if tensor.is_vector:
        return 1 + 0.2 * drawn
    if tensor.layer is None:
        return 0.5 * drawn
    gain = {"attn_q": 1.3, "attn_k": 1.3, "attn_output": 2.0, "ffn_down": 2.0}.get(tensor.role, 1.0)
    return gain * drawn / math.sqrt(tensor.cols)


def plain_encoder_weights(spec: EncoderSpec, seed: int) -> Callable[[Tensor], np.ndarray]:
    """The same weights as `EncoderReference` takes them."""
    return dict(encoder_weights(spec, seed)).__getitem__


@functools.cache
def wordpiece(size: int, lowercase: bool = True) -> str:
    """The text of a WordPiece `tokenizer.json` with exactly `size` ids."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=1, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    for number in range(len(vocab), size):
        vocab[f"[unused{number}]"] = number
    assert len(vocab) == size, len(vocab)
    return json.dumps(document, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
