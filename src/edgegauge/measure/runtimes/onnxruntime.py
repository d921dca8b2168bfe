"""The ONNX Runtime runtime: decoder graphs on the CPU, with everything bound in place.

Keys and values live in arrays that the graph reads and writes (`past_key_values.N` and `present.N`
are bound to the same memory), so no token copies the cache. One timed step sets the token, binds a
longer attention mask (a view of ones), and runs; the logits land in an array that NumPy's argmax
reads. Threads are ONNX Runtime's own, which spin between operations, as its defaults have it.

A graph may give the logits of every token or of the last one only: `all_logits` opens the first
kind, which lies beside the second in our own folders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.runtimes.genai_folder import GenaiConfig, read_genai_config
from edgegauge.measure.runtimes.onnx_library import OnnxLibrary, first_line, library
from edgegauge.measure.runtimes.tokenizer_json import TokenizerFile
from edgegauge.units import MIB

ALL_LOGITS = "all_logits.onnx"
CHUNK = 512
"""Prompt tokens computed at once, as in llama.cpp; the memory of activations grows with it."""
MAX_LOGITS_BYTES = 64 * MIB
"""Logits of a whole text are computed in pieces whose rows take no more than this."""
MEMORY_WORDS = ("bad_alloc", "bad allocation", "allocate memory", "out of memory")


class OnnxRuntime(OnnxLibrary):
    """Opens ONNX graphs of decoders."""

    side_by_side = True

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> OnnxSession:
        """Load a graph and its weights; `context` tokens, divided equally between `sequences`.

        With `all_logits`, the graph of that name beside it, where there is one. Raises InputError
        for a file that ONNX Runtime refuses, or a folder without `genai_config.json`, and
        MeasurementError where memory runs out.
        """
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        config = read_genai_config(path.parent)
        every = path.with_name(ALL_LOGITS)
        graph = every if all_logits and every.is_file() else path
        loaded = library()
        return OnnxSession(loaded, _load(loaded, graph, threads), path, config, threads,
                           context // sequences, sequences)  # fmt: skip


def _load(library: Any, path: Path, threads: int) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Plans of memory are made for each shape of the inputs. Every step has a new one, as the mask
    # grows, and a repeated prompt would have its activations in memory twice.
    options.enable_mem_pattern = False
    try:
        return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # pybind's own exception types share no base
        said = first_line(error)
        if _is_about_memory(said):
            raise MeasurementError(
                f"out of memory: ONNX Runtime cannot load {path}: {said}",
                hint="use a smaller artifact, or free memory",
            ) from None
        raise InputError(f"ONNX Runtime cannot load {path}: {said}") from None


class OnnxSession:
    """A loaded decoder with room for `sequences` texts of `room` tokens each."""

    def __init__(
        self, library: Any, session: Any, path: Path, config: GenaiConfig, threads: int,
        room: int, sequences: int,
    ) -> None:  # fmt: skip
        import numpy as np

        self._np = np
        self._library, self._session, self._config = library, session, config
        self._text = TokenizerFile(path.parent, config.model.bos_token_id)
        self.vocab: int = config.model.vocab_size
        self._threads, self._sequences = threads, sequences
        self._room = min(room, config.model.context_length)
        """Tokens that one sequence may hold."""
        self._used = 0
        """Tokens in the context: of sequence 0, or of each one where all go on side by side."""
        self._last_only: bool = _logits_shape(session, path)[1] == 1
        self._caches = self._make_caches()
        self._bindings: dict[tuple[int, int], Any] = {}
        self._ones = np.ones(sequences * max(self._room, 1), np.int64)
        self._tokens = np.zeros((sequences, 1), np.int64)
        self._logits = np.zeros((sequences, self.vocab), np.float32)
        """The last row of each sequence."""
        self._step_binding = self._step_of_all()

    def _make_caches(self) -> dict[str, Any]:
        """Keys and values by the name of the graph's input: (sequences, heads, room, head_dim)."""
        decoder = self._config.model.decoder
        shape = (self._sequences, decoder.num_key_value_heads, self._room, decoder.head_size)
        names = [i.name for i in self._session.get_inputs() if i.name.startswith("past_")]
        try:
            # Zeros, and written to: what is only reserved would be paid for by the first prompt.
            return {name: self._np.full(shape, 0, self._np.float32) for name in names}
        except (MemoryError, ValueError):
            raise MeasurementError(
                f"out of memory: no room for the keys and values of {self._room} tokens",
                hint="use a shorter prompt, fewer generated tokens or a smaller depth",
            ) from None

    def _binding(self, first: int, count: int) -> Any:
        """A binding whose cache is that of `count` sequences from `first`; kept."""
        if (first, count) not in self._bindings:
            binding = self._session.io_binding()
            for name, cache in self._caches.items():
                rows = cache[first : first + count]
                present = name.replace("past_key_values", "present")
                _bind(binding.bind_input, name, rows)
                _bind(binding.bind_output, present, rows)
            self._bindings[first, count] = binding
        return self._bindings[first, count]

    def _step_of_all(self) -> Any:
        """A binding of its own for one token of every sequence: only the mask changes per step."""
        binding = self._binding(0, self._sequences)
        self._bindings.clear()
        _bind(binding.bind_input, "input_ids", self._tokens)
        _bind(binding.bind_output, "logits", self._logits[:, None])
        return binding

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds BOS where the model wants it and reads markers like `<s>`."""
        return self._text.tokenize(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out."""
        return self._text.detokenize(tokens)

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation."""
        return self._config.end_tokens

    def reset(self) -> None:
        """Forget all context; the cache stays allocated."""
        self._used = 0

    def rewind(self, tokens: int) -> bool:
        """Keep only the first `tokens`; always possible, since windows keep everything here."""
        self._used = min(self._used, tokens)
        return True

    def prefill(self, tokens: Sequence[int]) -> None:
        """Append tokens in pieces of `CHUNK`; returns when the last one's logits are ready."""
        self._check_room(0, self._used + len(tokens))
        self._append(0, tokens, self._used)
        self._used += len(tokens)

    def step(self, token: int) -> None:
        """Append one token; returns when its logits are ready."""
        self._tokens[0, 0] = token
        self._used = length = self._longer()
        self._step(self._ones[:length][None])

    def argmax(self) -> int:
        """The most likely next token after the last `prefill` or `step`."""
        return int(self._logits[0].argmax())

    def prefill_many(self, prompts: Sequence[Sequence[int]]) -> None:
        """Append prompt i, all of one length, to sequence i; returns when logits are ready."""
        self._check_room(0, self._used + len(prompts[0]))
        for sequence, prompt in enumerate(prompts):
            self._append(sequence, prompt, self._used)
        self._used += len(prompts[0])

    def step_many(self, tokens: Sequence[int]) -> None:
        """Append token i to sequence i in one run; returns when logits are ready."""
        self._tokens[:, 0] = tokens
        self._used = length = self._longer()
        self._step(self._ones[: self._sequences * length].reshape(self._sequences, length))

    def argmax_many(self) -> list[int]:
        """The most likely next token of each sequence."""
        return [int(row.argmax()) for row in self._logits]

    def logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """From an empty context: a float32 array (vocab,) per token, each a copy.

        One token at a time where the graph gives only the last one's.
        """
        self.reset()
        self._check_room(0, len(tokens))
        size = 1 if self._last_only else max(1, min(CHUNK, MAX_LOGITS_BYTES // (4 * self.vocab)))
        for start in range(0, len(tokens), size):
            rows = self._feed(0, tokens[start : start + size], start)
            self._used = start + len(rows)
            for row in rows:
                yield row.copy()

    def generate(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """Greedy continuations, `sequences` at a time; a finished one makes room for the next."""
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise MeasurementError(f"prompt {index} is empty: there is nothing to continue")
            self._check_room(index, len(prompt) + max_tokens)
        answers: list[list[int]] = [[] for _ in prompts]
        waiting: deque[int] = deque(range(len(prompts)) if max_tokens > 0 else ())
        running: dict[int, int] = {}
        while waiting or running:
            for sequence in range(self._sequences):
                if waiting and sequence not in running:
                    running[sequence] = waiting.popleft()
                    self._append(sequence, prompts[running[sequence]], 0)
            chosen = self.argmax_many()
            for sequence, i in list(running.items()):
                ends = chosen[sequence] in stop
                if not ends:
                    answers[i].append(chosen[sequence])
                if ends or len(answers[i]) == max_tokens:
                    del running[sequence]
            self._step_running({s: (prompts[i], answers[i]) for s, i in running.items()})
        self.reset()
        return answers

    def _step_running(self, texts: dict[int, tuple[Sequence[int], list[int]]]) -> None:
        """One token of every running sequence; idle ones get a token that nobody will see."""
        if not texts:
            return
        lengths = [1] * self._sequences
        for sequence, (prompt, answer) in texts.items():
            lengths[sequence] = len(prompt) + len(answer)
            self._tokens[sequence, 0] = answer[-1]
        positions = self._np.arange(max(lengths))
        mask = positions < self._np.array(lengths)[:, None]
        self._step(mask.astype(self._np.int64))

    def _append(self, sequence: int, tokens: Sequence[int], used: int) -> None:
        """Put tokens after the `used` ones of a sequence; its last logits are kept."""
        for start in range(0, len(tokens), CHUNK):
            piece = tokens[start : start + CHUNK]
            self._logits[sequence] = self._feed(sequence, piece, used + start)[-1]

    def _feed(self, sequence: int, tokens: Sequence[int], used: int) -> Any:
        """Run some tokens of one sequence; the rows of logits that the graph gives for them."""
        np = self._np
        ids = np.array([tokens], np.int64)
        if ids.min() < 0 or ids.max() >= self.vocab:
            raise MeasurementError(f"tokens are from 0 to {self.vocab - 1}")
        rows = 1 if self._last_only else len(tokens)
        logits = np.empty((1, rows, self.vocab), np.float32)
        binding = self._binding(sequence, 1)
        _bind(binding.bind_input, "input_ids", ids)
        _bind(binding.bind_input, "attention_mask", self._ones[: used + len(tokens)][None])
        _bind(binding.bind_output, "logits", logits)
        self._run(binding)
        return logits[0]

    def _longer(self) -> int:
        """Tokens in the context after one more; MeasurementError where there is no room for it."""
        if self._used >= self._room:
            raise MeasurementError("the context is full", hint="open a session with a larger one")
        return self._used + 1

    def _step(self, mask: Any) -> None:
        _bind(self._step_binding.bind_input, "attention_mask", mask)
        self._run(self._step_binding)

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            said = first_line(error)
            kind = "out of memory: " if _is_about_memory(said) else ""
            raise MeasurementError(f"{kind}ONNX Runtime cannot run it: {said}") from None

    def _check_room(self, index: int, tokens: int) -> None:
        if tokens > self._room:
            raise MeasurementError(
                f"sequence {index} needs {tokens} tokens of context, but has {self._room}",
                hint="open the session with a larger context",
            )

    def facts(self) -> dict[str, Any]:
        """Threads, providers and the bytes of the cache."""
        return {
            "source": f"ONNX Runtime {self._library.__version__}",
            "buffers_bytes": {"KV/CPU": sum(c.nbytes for c in self._caches.values())},
            "context_tokens": self._room * self._sequences,
            "batch_tokens": CHUNK,
            "threads": self._threads,
            "providers": self._session.get_providers(),
        }

    def close(self) -> None:
        """Release the model; may be called twice."""
        self._bindings.clear()
        self._caches = {}
        self._session = self._step_binding = None


def _bind(bind: Any, name: str, array: Any) -> None:
    """Bind an array's own memory, which the caller keeps; nothing is copied."""
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _logits_shape(session: Any, path: Path) -> Any:
    """The declared shape (batch, tokens, vocab) of the logits; InputError if there are none."""
    for output in session.get_outputs():
        if output.name == "logits" and len(output.shape) == 3:
            return output.shape
    raise InputError(f"{path} has no output `logits` of three dimensions: it is no decoder")


def _is_about_memory(said: str) -> bool:
    return any(words in said for words in MEMORY_WORDS)
