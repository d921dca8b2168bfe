"""Runtimes: what executes an artifact, behind one small protocol.

A runtime is an entry point of the group `edgegauge.runtimes` that names a class without arguments.
The class must be cheap to import: the library behind it is imported by `open`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edgegauge.errors import InputError

GROUP = "edgegauge.runtimes"


class Session(Protocol):
    """A loaded model with one context; token ids are ints, time is the caller's business."""

    vocab: int

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds BOS where the model wants it."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out."""

    def reset(self) -> None:
        """Forget all context."""

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append tokens to the context; returns when the logits of the last one are ready."""

    def step(self, token: int) -> None:
        """Append one token; returns when its logits are ready."""

    def argmax(self) -> int:
        """The most likely next token after the last `prefill` or `step`."""

    def rewind(self, tokens: int) -> bool:
        """Forget all but the first `tokens` of the context; `step` or `prefill` goes on from there.

        False, with nothing done, where the runtime cannot: a sliding window or a recurrent state
        has already forgotten what came before.
        """

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """From an empty context: a float32 array (vocab,) per token, in order, one at a time."""

    def generate(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """Greedy continuations of several prompts, decoded together; the stop token is left out."""

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation."""

    def facts(self) -> dict[str, Any]:
        """What the runtime says of itself: buffer bytes by kind, instruction sets in use."""

    def close(self) -> None:
        """Release the model."""


@runtime_checkable
class ParallelSession(Session, Protocol):
    """A session whose sequences go on side by side, one token of each per step.

    All have the same number of tokens at any time; `reset` and `rewind` apply to each.
    """

    def prefill_many(self, prompts: Sequence[Sequence[int]]) -> None:
        """Append prompt i to sequence i, all of one length; returns when their logits are ready."""

    def step_many(self, tokens: Sequence[int]) -> None:
        """Append token i to sequence i; returns when all logits are ready."""

    def argmax_many(self) -> list[int]:
        """The most likely next token of each sequence after `prefill_many` or `step_many`."""


class Runtime(Protocol):
    """Opens artifacts of some formats."""

    name: str
    formats: tuple[str, ...]
    side_by_side: bool
    """Whether its sessions are `ParallelSession`."""

    def version(self) -> str:
        """Version of the library, without loading it; MissingDependency if absent."""

    def prepare(self) -> None:
        """Load the library, so that `open` takes the time and memory of the artifact alone."""

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> Session:
        """Load the artifact; `context` tokens in all, `sequences` decoded side by side."""


def registered() -> Iterator[tuple[str, Runtime]]:
    """The name of each entry point, in order, and its runtime."""
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        yield point.name, point.load()()


def runtime_for(file_format: str) -> Runtime:
    """The first registered runtime that executes this format; InputError if none."""
    for _, runtime in registered():
        if file_format in runtime.formats:
            return runtime
    raise InputError(f"no runtime executes {file_format} files")
