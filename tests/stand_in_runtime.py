"""A runtime that computes nothing and takes its time: each token is a pause of a fixed length.

A child finds it by its import path when PYTHONPATH holds this folder. It leaves the processor to
the parent, whose meters are played at many times their speed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fake_session import FakeSession

PROMPT_TOKEN_S = 0.0002
STEP_S = 0.001


class StandInRuntime:
    """Opens any GGUF file without looking at it."""

    name = "stand-in"
    formats = ("gguf",)
    side_by_side = False

    def version(self) -> str:
        return "1"

    def prepare(self) -> None:
        """There is no library."""

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> StandInSession:
        return StandInSession()


class StandInSession(FakeSession):
    """Says token 7, whatever it is told."""

    def reset(self) -> None:
        """Nothing is remembered."""

    def prefill(self, tokens: Sequence[int]) -> None:
        time.sleep(len(tokens) * PROMPT_TOKEN_S)

    def step(self, token: int) -> None:
        time.sleep(STEP_S)

    def argmax(self) -> int:
        return 7

    def rewind(self, tokens: int) -> bool:
        return True
