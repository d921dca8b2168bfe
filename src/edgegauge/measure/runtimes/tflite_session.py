"""A language model in a TFLite file: its context, its text, and how prompts are cut into pieces.

Two libraries execute such files, each a `TfliteRuntime`: LiteRT (litert.py) and its predecessor
(tflite_runtime.py). Either loads a file as one `Call` for each signature, all on one cache.

A file is a language model if it has the signatures of LiteRT's own: `decode`, and any number of
`prefill_<tokens>`, with `tokens`, `input_pos`, `mask` and `kv_cache_*` as inputs.

The length of the cache is fixed in the file. Positions that are not in use yet are hidden by the
mask, whatever they hold, so that forgetting costs nothing. A prompt is read in pieces of the
lengths there are, the last of them padded, and its last token by `decode`, which gives the logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgegauge.document import read_json_object
from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.runtimes.tokenizer_json import TokenizerFile

HIDDEN = -1e9
"""Added to the scores of positions that are not seen."""

CACHE = "kv_cache_"
"""What the names of a signature's keys and values begin with."""

STEPS_PER_PIECE = 8
"""A piece takes about as long as so many steps; fewer tokens than that are read in steps."""


class Call(ABC):
    """One signature with everything it reads and writes bound.

    Fill in `tokens` (1, T), `positions` (T,) and `mask` (1, 1, T, context), then `run`.
    """

    def __init__(self, inputs: Mapping[str, Any], *, gives_logits: bool) -> None:
        self.tokens, self.positions = inputs["tokens"], inputs["input_pos"]
        self.mask = inputs["mask"]
        self.gives_logits = gives_logits
        self.length: int = self.tokens.shape[1]

    @abstractmethod
    def run(self) -> None:
        """One inference, which puts its keys and values into the cache; MeasurementError."""

    @abstractmethod
    def logits(self) -> Any:
        """Those of the last token: float32 (vocab,), a copy."""


class LoadedModel(Protocol):
    """A file in memory. Its cache holds zeros at first, as hidden positions are multiplied by 0."""

    source: str
    """`LiteRT 2.3.0`"""
    cache_bytes: int
    vocab: int

    @property
    def calls(self) -> Sequence[Call]:
        """One for each signature in use."""

    def close(self) -> None:
        """Release it."""


class TfliteRuntime(ABC):
    """Opens TFLite language models in one library."""

    name: str
    formats = ("tflite",)
    side_by_side = False

    @abstractmethod
    def version(self) -> str:
        """`2.3.0`; MissingDependency where the library is not installed."""

    @abstractmethod
    def prepare(self) -> None:
        """Load the library; MissingDependency where it is absent."""

    @abstractmethod
    def load(self, path: Path, threads: int) -> LoadedModel:
        """The file in the library; InputError for what it cannot run."""

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> TfliteSession:
        """Load a file; `context` tokens in all, divided equally between `sequences`.

        Sequences go on one after the other, in one cache. MeasurementError where the file's is too
        short.
        """
        del all_logits
        context //= sequences
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        session = TfliteSession(path, self.load(path, threads), threads)
        if context > session.context:
            session.close()
            raise MeasurementError(
                f"{path.name} holds {session.context} tokens of context, {context} are needed",
                hint="use a shorter prompt, or convert it again with a longer --context",
            )
        return session


def check_signatures(path: Path, keys: Iterable[str]) -> None:
    """InputError for a file that is no language model."""
    if "decode" not in keys:
        raise InputError(f"{path} is no language model: its signatures are {[*keys]}")


class TfliteSession:
    """A loaded model with one cache. Not for use by several threads."""

    def __init__(self, path: Path, model: LoadedModel, threads: int) -> None:
        self._threads = threads
        self._model: LoadedModel | None = model
        self._source, self._cache_bytes = model.source, model.cache_bytes
        self._decode = next(call for call in model.calls if call.gives_logits)
        self._prefills = [call for call in model.calls if not call.gives_logits]
        self.context: int = self._decode.mask.shape[-1]
        self.vocab: int = model.vocab
        self._config = _generation_config(path.parent)
        self._text = TokenizerFile(path.parent, self._config.get("bos_token_id"))
        self._used = 0

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds BOS where the model wants it."""
        return self._text.tokenize(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out."""
        return self._text.detokenize(tokens)

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation."""
        ends = self._config.get("eos_token_id", [])
        return frozenset(ends if isinstance(ends, list) else [ends])

    def reset(self) -> None:
        """Forget all context."""
        self._used = 0

    def rewind(self, tokens: int) -> bool:
        """Forget all but the first `tokens`; always possible, as every layer keeps everything."""
        self._used = min(self._used, tokens)
        return True

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append tokens; returns when the logits of the last one are ready."""
        self._check_room(self._used + len(tokens))
        last = len(tokens) - 1
        done = 0
        while done < last:
            call = self._piece(last - done)
            if call is None:
                self.step(tokens[done])
                done += 1
            else:
                piece = tokens[done : min(done + call.length, last)]
                self._append(call, piece)
                done += len(piece)
        self.step(tokens[last])

    def step(self, token: int) -> None:
        """Append one token; returns when its logits are ready."""
        used = self._used
        if used >= self.context:
            self._check_room(used + 1)
        self._check_tokens(token, token)
        call = self._decode
        call.tokens[0, 0] = token
        call.positions[0] = used
        call.mask[..., : used + 1] = 0
        call.mask[..., used + 1 :] = HIDDEN
        call.run()
        self._used = used + 1

    def argmax(self) -> int:
        """The most likely next token after the last `prefill` or `step`."""
        return int(self._row().argmax())

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """From an empty context: a float32 array (vocab,) per token, each a copy."""
        self.reset()
        for token in tokens:
            self.step(token)
            yield self._row()

    def generate(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """Greedy continuations, one after the other."""
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise MeasurementError(f"prompt {index} is empty: there is nothing to continue")
            self._check_room(len(prompt) + max_tokens)
        return [self._continue(prompt, max_tokens, stop) for prompt in prompts]

    def facts(self) -> dict[str, Any]:
        """Version, threads, the cache and the lengths that prompts are read in."""
        return {
            "source": self._source,
            "threads": self._threads,
            "context_tokens": self.context,
            "batch_tokens": max((call.length for call in self._prefills), default=1),
            "buffers_bytes": {"KV/CPU": self._cache_bytes},
        }

    def close(self) -> None:
        """Release the model; may be called twice."""
        if self._model is not None:
            del self._decode, self._prefills
            self._model.close()
            self._model = None

    def _row(self) -> Any:
        """The logits after the last step, a copy."""
        return self._decode.logits()

    def _continue(self, prompt: Sequence[int], max_tokens: int, stop: frozenset[int]) -> list[int]:
        self.reset()
        self.prefill(prompt)
        answer: list[int] = []
        while len(answer) < max_tokens:
            token = self.argmax()
            if token in stop:
                break
            answer.append(token)
            if len(answer) < max_tokens:
                self.step(token)
        return answer

    def _piece(self, tokens: int) -> Call | None:
        """How to read the next of so many tokens: the longest full piece, or a padded one.

        None where steps are faster, or where no piece fits into the rest of the cache.
        """
        fitting = [call for call in self._prefills if self._used + call.length <= self.context]
        full = [call.length for call in fitting if call.length <= tokens]
        padded = [c.length for c in fitting if tokens < c.length and tokens >= STEPS_PER_PIECE]
        length = max(full, default=None) or min(padded, default=None)
        return next((call for call in fitting if call.length == length), None)

    def _append(self, call: Call, tokens: Sequence[int]) -> None:
        """Read a piece; what pads it is written behind it, where the mask hides it."""
        import numpy as np

        self._check_tokens(min(tokens), max(tokens))
        call.tokens[0, : len(tokens)] = tokens
        call.tokens[0, len(tokens) :] = 0
        call.positions[:] = np.arange(self._used, self._used + call.length)
        call.mask[:] = np.where(np.arange(self.context) <= call.positions[:, None], 0, HIDDEN)
        call.run()
        self._used += len(tokens)

    def _check_tokens(self, lowest: int, highest: int) -> None:
        if lowest < 0 or highest >= self.vocab:
            raise MeasurementError(f"tokens are from 0 to {self.vocab - 1}")

    def _check_room(self, tokens: int) -> None:
        if tokens > self.context:
            raise MeasurementError(
                f"{tokens} tokens of context are needed, but the file has {self.context}",
                hint="use a shorter prompt, or convert it again with a longer --context",
            )


def _generation_config(folder: Path) -> dict[str, Any]:
    """What the model's files say of special tokens; nothing where there are no such files."""
    path = folder / "generation_config.json"
    return read_json_object(path) if path.is_file() else {}
