"""A `tokenizer.json` beside a model: text to tokens and back, as Hugging Face's library does it.

    text = TokenizerFile(folder)
    text.tokenize("two words")

An explicit `add_bos_token` in `tokenizer_config.json` wins over what `tokenizer.json` says, as in
our GGUF files: it is the newer of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegauge.document import MAX_DOCUMENT_BYTES, read_json_object
from edgegauge.errors import InputError, MissingDependency

NAME = "tokenizer.json"


class TokenizerFile:
    """The tokenizer of a folder, read when it is first asked for."""

    def __init__(self, folder: Path, bos: int | None) -> None:
        self._path = folder / NAME
        self._bos = bos
        self._loaded: Any = None

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds BOS where the model wants it and reads markers like `<s>`."""
        tokenizer = self._tokenizer()
        tokenizer.encode_special_tokens = not special
        clean = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no bytes
        ids: list[int] = tokenizer.encode(clean, add_special_tokens=special).ids
        wanted = self._adds_bos() if special else None
        starts = ids[:1] == [self._bos]
        if wanted is None or wanted == starts or self._bos is None:
            return ids
        return [self._bos, *ids] if wanted else ids[1:]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out."""
        text: str = self._tokenizer().decode(list(tokens), skip_special_tokens=True)
        return text

    def _adds_bos(self) -> bool | None:
        config = self._path.with_name("tokenizer_config.json")
        value = read_json_object(config).get("add_bos_token") if config.exists() else None
        return value if isinstance(value, bool) else None

    def _tokenizer(self) -> Any:
        if self._loaded is not None:
            return self._loaded
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingDependency("reading text", "onnx") from None
        try:
            size = self._path.stat().st_size
        except OSError:
            raise InputError(
                f"no {NAME} in {self._path.parent}",
                hint="synthetic artifacts have no tokenizer; they run random tokens",
            ) from None
        if size > MAX_DOCUMENT_BYTES:
            raise InputError(f"larger than {MAX_DOCUMENT_BYTES} bytes, so not read @ {self._path}")
        try:
            self._loaded = Tokenizer.from_file(str(self._path))
        except Exception as error:  # the library raises Exception itself
            raise InputError(f"cannot read {self._path}: {str(error)[:300]}") from None
        return self._loaded
