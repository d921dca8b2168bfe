"""`genai_config.json`: the shape of a decoder's ONNX graph, as onnxruntime-genai describes it.

    config = read_genai_config(folder)
    config.model.decoder.head_size

Our own folders and those of that library's model builder have one. Keys that do not matter here
are left unread.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field

from edgegauge.document import Document, read_json
from edgegauge.errors import InputError
from edgegauge.model import Count, Width

NAME = "genai_config.json"


class _Decoder(Document):
    model_config = ConfigDict(extra="ignore")

    head_size: Width
    num_key_value_heads: Width
    num_hidden_layers: Width


class _Model(Document):
    model_config = ConfigDict(extra="ignore")

    vocab_size: Count
    context_length: Count
    bos_token_id: int | None = None
    eos_token_id: int | list[int] = Field(default_factory=list)
    decoder: _Decoder


class GenaiConfig(Document):
    """What the file says of the model."""

    model_config = ConfigDict(extra="ignore")

    model: _Model

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation."""
        ends = self.model.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [ends])


def read_genai_config(folder: Path) -> GenaiConfig:
    """The configuration of this folder; InputError where it is missing or malformed."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(
            f"no {NAME} in {folder}",
            hint="edgegauge convert --format onnx writes it; `edgegauge measure-graph` runs "
            "graphs that are no language models",
        )
    return read_json(path, GenaiConfig)
