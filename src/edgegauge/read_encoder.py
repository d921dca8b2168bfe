"""A Hugging Face folder as an `EncoderSpec`: exactly, or not at all.

    if is_encoder(folder):
        spec = encoder_from_folder(folder)

`config.json` gives the architecture, of model type `bert` or `distilbert`; keys that are absent
mean what transformers 5.23 takes them to mean. What becomes of the tokens' vectors is said by the
files of the sentence-transformers library: `modules.json`, and `config.json` of the module Pooling.
Without those, the mean, not normalised, as that library does with a plain model.

Whatever changes the arithmetic and has no field in the spec is refused: InputError lists every
finding as `key.path: what was expected, what was found @ file`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegauge.config_reader import ConfigReader, shown
from edgegauge.document import read_json_object, read_rows
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.read_config import id_of

_BERT: dict[str, str] = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "intermediate": "intermediate_size",
    "heads": "num_attention_heads", "vocab": "vocab_size", "positions": "max_position_embeddings",
    "token_types": "type_vocab_size", "norm_eps": "layer_norm_eps", "activation": "hidden_act",
}  # fmt: skip
_DISTILBERT: dict[str, str] = {
    "layers": "n_layers", "hidden": "dim", "intermediate": "hidden_dim", "heads": "n_heads",
    "vocab": "vocab_size", "positions": "max_position_embeddings", "activation": "activation",
}  # fmt: skip
KEYS = {"bert": _BERT, "distilbert": _DISTILBERT}
"""Model type: the key of each field."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {"layer_norm_eps": 1e-12, "hidden_act": "gelu", "type_vocab_size": 2},
    "distilbert": {"activation": "gelu"},
}

ARCHITECTURES = {
    "bert": ("BertModel", "BertForMaskedLM", "BertForPreTraining"),
    "distilbert": ("DistilBertModel", "DistilBertForMaskedLM"),
}
"""Model type: names of models that are an encoder, bare or with a pre-training head."""

ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_accurate": "gelu_tanh",
}  # fmt: skip
"""transformers' names of the two forms (`activations.py`)."""

DISTILBERT_EPS = 1e-12
"""`modeling_distilbert.py` has it as a constant."""

MODULES = "modules.json"
MODULE_FOLDER = re.compile(r"[\w-][\w.-]*", re.ASCII)
POOLING_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def is_encoder(path: Path) -> bool:
    """Whether this folder, or this config.json, says that it is of an encoder's model type."""
    config = path / "config.json" if path.is_dir() else path
    if config.suffix != ".json" or not config.is_file():
        return False
    kind = read_json_object(config).get("model_type")
    return isinstance(kind, str) and kind in KEYS


def encoder_from_folder(path: Path, id: str | None = None) -> EncoderSpec:
    """The spec of a folder or of a `config.json`; `id` defaults to the folder's name.

    Raises InputError with all problems.
    """
    config = path / "config.json" if path.is_dir() else path
    content = read_json_object(config)
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in KEYS:
        raise InputError(
            f"model_type: {shown(kind)} is no encoder that is known here @ {config}",
            hint=f"known are {' and '.join(KEYS)}",
        )
    reader = ConfigReader(content, kind, DEFAULTS[kind], str(config), "")
    _refuse_variants(reader)
    keys = KEYS[kind]
    reader.keys |= keys
    fields = {field: reader.get(key) for field, key in keys.items()}
    fields["activation"] = _activation(reader, keys["activation"])
    if kind == "distilbert":
        fields |= {"token_types": 0, "norm_eps": DISTILBERT_EPS}
    elif fields["token_types"] == 0:
        reader.problem("type_vocab_size", "a bert has at least one token type, got 0")
    pooling, normalise = _output(config.parent)
    return reader.build(
        EncoderSpec,
        {"id": id or id_of(config), "family": kind, "pooling": pooling, "normalise": normalise}
        | fields,
    )


def _refuse_variants(reader: ConfigReader) -> None:
    """Everything that changes the arithmetic and that a spec cannot say."""
    known = ARCHITECTURES[reader.family]
    names = reader.get("architectures")
    if names and not (isinstance(names, list) and all(n in known for n in names)):
        reader.problem(
            "architectures",
            f"only {', '.join(known)} are sentence encoders; another head would be lost, "
            f"got {shown(names)}",
        )
    absolute = ("position_embedding_type", (None, "absolute"), "only absolute positions")
    plain = ("is_decoder", (None, False), "only encoders")
    crossed = ("add_cross_attention", (None, False), "no cross-attention")
    raw = ("quantization_config", (None,), "only weights that are not quantised yet")
    for key, allowed, what in (absolute, plain, crossed, raw):
        reader.refuse(key, unless=allowed, why=f"{what} can be converted")
    if reader.get("pruned_heads"):
        reader.problem("pruned_heads", "pruned heads are not supported")


def _activation(reader: ConfigReader, key: str) -> str:
    value = reader.get(key)
    if isinstance(value, str) and value in ACTIVATIONS:
        return ACTIVATIONS[value]
    reader.problem(key, f"only {', '.join(ACTIVATIONS)} are supported, got {shown(value)}")
    return "gelu"


def _output(folder: Path) -> tuple[str, bool]:
    """(pooling, normalise) as sentence-transformers' files say; InputError with all problems."""
    path = folder / MODULES
    if not path.exists():
        return "mean", False
    problems: list[str] = []
    pooling, normalise = "mean", False
    for index, row in enumerate(read_rows(path)):
        kind, place = _module(row)
        if kind == "Pooling":
            if place is None:
                problems.append(f"[{index}].path: expected the name of a folder @ {path}")
            else:
                pooling = _pooling(folder / place / "config.json", problems)
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            problems.append(f"[{index}].type: the module {shown(kind)} is not supported @ {path}")
    if problems:
        raise InputError(f"cannot tell what {folder} does with the tokens' vectors", problems)
    return pooling, normalise


def _module(row: Any) -> tuple[str | None, str | None]:
    """Class name and folder of one entry; None for a folder that is not beside the file."""
    if not isinstance(row, Mapping):
        return None, None
    kind, place = row.get("type"), row.get("path")
    named = isinstance(place, str) and MODULE_FOLDER.fullmatch(place)
    return (kind.rsplit(".", 1)[-1] if isinstance(kind, str) else None), place if named else None


def _pooling(path: Path, problems: list[str]) -> str:
    config = read_json_object(path)
    chosen = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    if not chosen and isinstance(config.get("pooling_mode"), str):
        chosen = [str(config["pooling_mode"])]
    modes = POOLING_MODES | {mode: mode for mode in POOLING_MODES.values()}
    if len(chosen) == 1 and chosen[0] in modes:
        return modes[chosen[0]]
    problems.append(
        f"pooling_mode: exactly one of {', '.join(POOLING_MODES.values())} is supported, "
        f"got {shown(chosen)} @ {path}"
    )
    return "mean"
