"""A session without a model: tokens are bytes, and the test says what follows what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

BEGIN, END = 256, 257
VOCAB = 258


class FakeSession:
    """`says` maps a prompt to what is said after it, `row` gives the logits after some tokens."""

    vocab = VOCAB

    def __init__(
        self,
        says: dict[str, str] | None = None,
        row: Callable[[Sequence[int]], Any] | None = None,
        *,
        begins: bool = True,
    ) -> None:
        self._says = says or {}
        self._row = row
        self._begins = begins
        self.batches: list[int] = []
        self.fed: list[list[int]] = []

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return ([BEGIN] if special and self._begins else []) + list(text.encode())

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(t for t in tokens if t < 256).decode("utf-8", "replace")

    def generate(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        assert stop == {END}
        self.batches.append(len(prompts))
        return [list(self._says[self.detokenize(p)].encode())[:max_tokens] for p in prompts]

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        assert self._row is not None
        self.fed.append(list(tokens))
        for position in range(len(tokens)):
            yield self._row(tokens[: position + 1])

    def end_tokens(self) -> frozenset[int]:
        return frozenset({END})

    def reset(self) -> None:
        raise NotImplementedError

    def prefill(self, tokens: Sequence[int]) -> None:
        raise NotImplementedError

    def step(self, token: int) -> None:
        raise NotImplementedError

    def argmax(self) -> int:
        raise NotImplementedError

    def rewind(self, tokens: int) -> bool:
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing to release."""
