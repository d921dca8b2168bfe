"""An artifact in its own runtime: a prompt, its greedy continuation, the logits of both.

    with ArtifactRun(job, positions) as run:
        run.tokens                 # the prompt and what the artifact said after it
        for row in run.rows(): ...

The continuation is made the way a user's is (prompt at once, then token by token), the logits by
the runtime's way of scoring text, which may be another graph: so one is a check of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgegauge.errors import ConversionError, EdgeGaugeError
from edgegauge.evaluate.builtin_text import PASSAGE, SAMPLES
from edgegauge.measure.runtimes import Session, runtime_for
from edgegauge.verification import TokenizerCheck
from edgegauge.verify import VerificationJob

Tried = Literal["built-in text", "given text", "random tokens"]

GREEDY_SHARE = 8
"""One of so many positions is the artifact's own continuation."""


class ArtifactRun:
    """Runs the artifact once; `rows` runs it again."""

    def __init__(self, job: VerificationJob, positions: int) -> None:
        self._job, self._runtime = job, runtime_for(job.file_format)
        self.version = self._runtime.version()
        self.name = self._runtime.name
        self.not_checked: list[str] = []
        self.tokenizer: TokenizerCheck | None = None
        continued = max(1, positions // GREEDY_SHARE)
        with closing(self._open(positions)) as session:
            if session.vocab != job.spec.vocab:
                raise ConversionError(
                    f"{job.path.name} has {session.vocab} tokens, the model {job.spec.vocab}"
                )
            self.prompt = self._prompt(session, positions - continued)
            self.continuation = session.generate([self.prompt], continued, frozenset())[0]
            if job.folder is not None:
                self.tokenizer = self._tokenizer_check(session, job.folder)
        self.tokens = [*self.prompt, *self.continuation]

    def rows(self) -> Iterator[Any]:
        """A float32 array (vocab,) per token of `tokens`."""
        with closing(self._open(len(self.tokens), all_logits=True)) as session:
            yield from session.logits(self.tokens)

    def _open(self, positions: int, *, all_logits: bool = False) -> Session:
        return self._runtime.open(
            self._job.path, threads=self._job.threads, context=positions, all_logits=all_logits
        )

    def _prompt(self, session: Session, length: int) -> list[int]:
        """The beginning of the text, repeated if need be, or random tokens."""
        self.on: Tried = "random tokens"
        if self._job.folder is not None:
            try:
                ids = session.tokenize(self._job.text or PASSAGE)
            except EdgeGaugeError as error:
                self.not_checked.append(f"the tokenizer: {error}")
            else:
                self.on = "given text" if self._job.text else "built-in text"
                return (ids * (length // max(1, len(ids)) + 1))[:length]
        random = np.random.RandomState(0).randint(0, self._job.spec.vocab, length)
        return [int(token) for token in random]

    def _tokenizer_check(self, session: Session, folder: Path) -> TokenizerCheck | None:
        """SAMPLES through both tokenizers; None, with the reason noted, where there is no other."""
        if self.on == "random tokens":
            return None
        try:
            from tokenizers import Tokenizer

            original = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises Exception itself
            self.not_checked.append(f"the tokenizer against tokenizer.json: {error}")
            return None
        tokens, text = [], []
        for sample in SAMPLES:
            ids = original.encode(sample, add_special_tokens=False).ids
            if session.tokenize(sample, special=False) != ids:
                tokens.append(sample)
            if session.detokenize(ids).strip() != original.decode(ids).strip():
                text.append(sample)
        return TokenizerCheck(texts=len(SAMPLES), other_tokens=tokens, other_text=text)
