"""The llama.cpp runtime: GGUF files through the low-level C API of llama-cpp-python.

One timed step is `llama_decode` on a batch allocated once, and `llama_synchronize`; choosing the
next token is NumPy's argmax on a view of llama.cpp's own logits. Everything else (batch sizes,
flash attention, type of the key/value cache, memory-mapping) is what `llama-bench` does by default,
so that figures compare.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError, MissingDependency
from edgegauge.measure.runtimes import amx, llama_log
from edgegauge.measure.runtimes.llama_batch import Batch, Entry
from edgegauge.measure.runtimes.llama_text import Vocabulary
from edgegauge.measure.runtimes.llama_watch import Watch
from edgegauge.units import MIB

BATCH = 2048
"""Tokens handed over at once; llama-bench's default."""
UBATCH = 512
"""Tokens computed at once; llama-bench's default."""
MAX_LOGITS_BYTES = 64 * MIB
"""Logits of a whole text are computed in pieces whose rows take no more than this."""
ROOM_HINT = "use a smaller artifact, or free memory"


class LlamaCppRuntime:
    """Opens GGUF files with llama.cpp."""

    name = "llama.cpp"
    formats = ("gguf",)
    side_by_side = True

    def __init__(self, watch: Watch | None = None) -> None:
        self._watch = watch

    def version(self) -> str:
        """`0.3.36`: the version of llama-cpp-python, which brings llama.cpp; MissingDependency."""
        try:
            return version("llama-cpp-python")
        except PackageNotFoundError:
            raise MissingDependency("running GGUF files", "gguf") from None

    def prepare(self) -> None:
        """Load llama.cpp's shared libraries; MeasurementError where they do not load."""
        load_library()

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> LlamaCppSession:
        """Load a GGUF file; `context` tokens in all, divided equally between `sequences`.

        `all_logits` needs no preparation here. Raises InputError for a file that llama.cpp
        refuses and MeasurementError where memory runs out, both with its own words.
        """
        del all_logits
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        library = load_library()
        model = load_model(library, path)
        try:
            return LlamaCppSession(library, model, threads, context, sequences, self._watch)
        except BaseException:
            library.llama_model_free(model)
            raise


def load_library() -> Any:
    """The imported module llama_cpp, which loads the shared libraries; MissingDependency."""
    try:
        import llama_cpp
    except ImportError:
        raise MissingDependency("running GGUF files", "gguf") from None
    except (OSError, RuntimeError) as error:
        raise MeasurementError(
            f"llama-cpp-python is installed, but its library does not load: {error}",
            hint="pip install --force-reinstall llama-cpp-python",
        ) from None
    llama_cpp.llama_backend_init()
    amx.settle(llama_cpp.llama_cpp._lib)
    return llama_cpp


def load_model(library: Any, path: Path) -> Any:
    """A handle of the model in a file; InputError, or MeasurementError where memory runs out."""
    llama_log.capture(library)
    params = library.llama_model_default_params()
    model = library.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        said = llama_log.complaint() or "it gave no reason"
        if llama_log.is_about_memory(said):
            raise MeasurementError(
                f"out of memory: llama.cpp cannot load {path}: {said}", hint=ROOM_HINT
            )
        raise InputError(f"llama.cpp cannot load {path}: {said}")
    return model


class LlamaCppSession:
    """A loaded model with one context. Not for use by several threads."""

    def __init__(
        self, library: Any, model: Any, threads: int, context: int, sequences: int,
        watch: Watch | None,
    ) -> None:  # fmt: skip
        import numpy as np

        self._library = library
        self._model: Any = model
        self._text = Vocabulary(library, model)
        self.vocab: int = self._text.size
        self._threads = threads
        self._watch = watch
        self._context = self._make_context(threads, context, sequences)
        self._memory = library.llama_get_memory(self._context)
        self._sequences = sequences
        self._room: int = library.llama_n_ctx(self._context) // sequences
        """Tokens that one sequence may hold."""
        self._batch_size: int = library.llama_n_batch(self._context)
        self._many = Batch(library, self._batch_size)
        self._single = Batch(library, 1)
        self._single.c.n_tokens = 1
        self._single.wanted[0] = 1
        self._side_by_side = Batch(library, sequences)
        self._side_by_side.fill_side_by_side(np.zeros((1, sequences), np.int32), 0, want_last=True)
        self._first_wanted = 0
        """Entry of the last batch that holds sequence 0's last token, for `argmax_many`."""
        self._used = 0
        """Tokens in the context: of sequence 0, or of each one where all go on side by side."""
        self._address = 0
        self._row_type: Any = ctypes.c_float * self.vocab
        self._row: Any = None
        self._said = llama_log.lines()

    def _make_context(self, threads: int, context: int, sequences: int) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = max(BATCH, sequences)
        params.n_ubatch = UBATCH
        params.n_seq_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads
        # As llama-bench: sliding-window layers keep only their window.
        params.swa_full = False
        if self._watch:
            self._watch.attach(self._library, params)
        made = self._library.llama_init_from_model(self._model, params)
        if not made:
            said = llama_log.complaint() or "it gave no reason"
            kind = "out of memory: " if llama_log.is_about_memory(said) else ""
            raise MeasurementError(
                f"{kind}llama.cpp cannot make a context of {context} tokens: {said}",
                hint="use a shorter prompt, fewer generated tokens or a smaller depth",
            )
        return made

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds BOS where the model wants it and reads markers like `<s>`."""
        return self._text.tokenize(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out; broken UTF-8 becomes U+FFFD."""
        return self._text.detokenize(tokens)

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation, as llama.cpp reads them from the file."""
        return self._text.end_tokens()

    def reset(self) -> None:
        """Forget all context; the cells stay allocated."""
        self._library.llama_memory_clear(self._memory, False)
        self._used = 0

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append tokens in batches of `BATCH`; returns when the last one's logits are ready."""
        import numpy as np

        ids = np.asarray(tokens, dtype=np.int32)
        self._check_room(0, self._used + len(ids))
        for start in range(0, len(ids), self._batch_size):
            piece = ids[start : start + self._batch_size]
            last = start + len(piece) == len(ids)
            self._many.fill_run(piece, self._used, want_last=last)
            self._decode(self._many)
            self._used += len(piece)
        self._library.llama_synchronize(self._context)

    def step(self, token: int) -> None:
        """Append one token; returns when its logits are ready."""
        single = self._single
        single.token[0] = token
        single.position[0] = self._used
        status = self._library.llama_decode(self._context, single.c)
        if status:
            raise self._failure(status)
        self._library.llama_synchronize(self._context)
        self._used += 1

    def prefill_many(self, prompts: Sequence[Sequence[int]]) -> None:
        """Append prompt i, all of one length, to sequence i; returns when their logits are ready.

        Batches hold the same positions of all sequences, so the last one ends them all.
        """
        import numpy as np

        columns = np.asarray(prompts, dtype=np.int32).T
        self._check_room(0, self._used + len(columns))
        size = max(1, self._batch_size // self._sequences)
        for start in range(0, len(columns), size):
            piece = columns[start : start + size]
            last = start + len(piece) == len(columns)
            self._many.fill_side_by_side(piece, self._used, want_last=last)
            self._decode(self._many)
            self._used += len(piece)
            self._first_wanted = (len(piece) - 1) * self._sequences
        self._library.llama_synchronize(self._context)

    def step_many(self, tokens: Sequence[int]) -> None:
        """Append token i to sequence i in one `llama_decode`; returns when logits are ready."""
        batch = self._side_by_side
        batch.token[:] = tokens
        batch.position[:] = self._used
        self._decode(batch)
        self._library.llama_synchronize(self._context)
        self._first_wanted = 0
        self._used += 1

    def argmax_many(self) -> list[int]:
        """The most likely next token of each sequence."""
        first = self._first_wanted
        return [int(self._logits_of(first + i).argmax()) for i in range(self._sequences)]

    def rewind(self, tokens: int) -> bool:
        """Keep only the first `tokens` of each sequence; False, with nothing done, where it cannot.

        Layers with a sliding window keep that window's keys alone, and recurrent ones one state.
        """
        library, memory = self._library, self._memory
        window = library.llama_model_n_swa(self._model)
        oldest = max(library.llama_memory_seq_pos_min(memory, i) for i in range(self._sequences))
        if window and oldest > max(0, tokens - window):
            return False
        if not all(
            library.llama_memory_seq_rm(memory, i, tokens, -1) for i in range(self._sequences)
        ):
            return False
        self._used = min(self._used, tokens)
        return True

    def argmax(self) -> int:
        """The most likely next token after the last `prefill` or `step`."""
        return int(self._logits_of(-1).argmax())

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """From an empty context: a float32 array (vocab,) per token, each a copy."""
        self.reset()
        self._check_room(0, len(tokens))
        size = max(1, min(self._batch_size, MAX_LOGITS_BYTES // (4 * self.vocab)))
        for start in range(0, len(tokens), size):
            piece = tokens[start : start + size]
            self._many.fill([(token, start + i, 0, True) for i, token in enumerate(piece)])
            self._decode(self._many)
            self._used += len(piece)
            for index in range(len(piece)):
                yield self._logits_of(index).copy()

    def generate(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """Greedy continuations, `sequences` at a time; a finished one makes room for the next."""
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise MeasurementError(f"prompt {index} is empty: there is nothing to continue")
            self._check_room(index, len(prompt) + max_tokens)
        self.reset()
        answers: list[list[int]] = [[] for _ in prompts]
        waiting: deque[int] = deque(range(len(prompts)) if max_tokens > 0 else ())
        running: dict[int, int] = {}
        while waiting or running:
            entries = self._next_entries(prompts, answers, running, waiting)
            for sequence, token in self._choose(entries).items():
                answer = answers[running[sequence]]
                if token not in stop:
                    answer.append(token)
                if token in stop or len(answer) == max_tokens:
                    del running[sequence]
                    self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self.reset()
        return answers

    def _next_entries(
        self,
        prompts: Sequence[Sequence[int]],
        answers: list[list[int]],
        running: dict[int, int],
        waiting: deque[int],
    ) -> list[Entry]:
        """(token, position, sequence, wanted): a step of all that run, and newly admitted prompts.

        Prompts are admitted while one batch holds them, so that most rounds are one call.
        """
        entries = [
            (answers[i][-1], len(prompts[i]) + len(answers[i]) - 1, sequence, True)
            for sequence, i in running.items()
        ]
        for sequence in range(self._sequences):
            if not waiting or (entries and len(entries) >= self._batch_size):
                break
            if sequence not in running:
                running[sequence] = i = waiting.popleft()
                last = len(prompts[i]) - 1
                entries += [(t, p, sequence, p == last) for p, t in enumerate(prompts[i])]
        return entries

    def _choose(self, entries: list[Entry]) -> dict[int, int]:
        """Decode these entries; the most likely next token of each sequence that wanted one."""
        chosen: dict[int, int] = {}
        for start in range(0, len(entries), self._batch_size):
            piece = entries[start : start + self._batch_size]
            self._many.fill(piece)
            self._decode(self._many)
            for index, (_, _, sequence, wanted) in enumerate(piece):
                if wanted:
                    chosen[sequence] = int(self._logits_of(index).argmax())
        return chosen

    def _decode(self, batch: Batch) -> None:
        status = self._library.llama_decode(self._context, batch.c)
        if status:
            raise self._failure(status)

    def _failure(self, status: int) -> MeasurementError:
        said = "the context is full" if status == 1 else llama_log.complaint()
        kind = "out of memory: " if llama_log.is_about_memory(said) else ""
        return MeasurementError(
            f"{kind}llama_decode failed with status {status}: {said or 'no reason'}"
        )

    def _check_room(self, index: int, tokens: int) -> None:
        if tokens > self._room:
            raise MeasurementError(
                f"sequence {index} needs {tokens} tokens of context, but has {self._room}",
                hint="open the session with a larger context",
            )

    def _logits_of(self, index: int) -> Any:
        """llama.cpp's own row of logits for this entry of the last batch; valid until the next."""
        pointer = self._library.llama_get_logits_ith(self._context, index)
        if not pointer:
            raise MeasurementError(f"llama.cpp has no logits for entry {index} of the last batch")
        address = ctypes.addressof(pointer.contents)
        if address != self._address:
            import numpy as np

            self._address = address
            self._row = np.frombuffer(self._row_type.from_address(address), np.float32)
        return self._row

    def facts(self) -> dict[str, Any]:
        """Sizes, buffer bytes and instruction sets, as llama.cpp reports them."""
        facts = llama_log.about_session(
            self._library, self._model, self._context, self._said, self._threads
        )
        return {**facts, "batch_tokens": self._batch_size}

    def close(self) -> None:
        """Release the context and the model; may be called twice."""
        if self._context:
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self._context = self._model = None
            self._row = None
