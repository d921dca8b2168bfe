"""LiteRT on the CPU: language models as TFLite files, through its CompiledModel.

A file is a language model if it has the signatures of LiteRT's own: `decode`, and any number of
`prefill_<tokens>`, with `tokens`, `input_pos`, `mask` and `kv_cache_*` as inputs. So files made by
litert-torch run here too. The cache lies in buffers that are input and output at once: a step
writes one position of it and copies nothing.

The length of the cache is fixed in the file. Positions that are not in use yet are hidden by the
mask, whatever they hold, so that forgetting costs nothing. A prompt is read in pieces of the
lengths there are, the last of them padded, and its last token by `decode`, which gives the logits.

Hidden positions take as much time as seen ones. So our files have signatures for the beginning of
the cache (`within_<span>_...`, see edgegauge_converters/tflite_graph.py), whose mask is shorter;
the shortest that holds all tokens is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgegauge.document import read_json_object
from edgegauge.errors import InputError, MeasurementError, MissingDependency
from edgegauge.measure.runtimes.tokenizer_json import TokenizerFile

HIDDEN = -1e9
"""Added to the scores of positions that are not seen."""

IN_MEMORY = ":memory"
"""Where XNNPACK keeps the weights in its own order (`weight_cache.h`): once for all signatures.
Without a place, each signature has a copy of its own."""

STEPS_PER_PIECE = 8
"""A piece takes about as long as so many steps; fewer tokens than that are read in steps."""


class LiteRtRuntime:
    """Opens TFLite language models."""

    name = "LiteRT"
    formats = ("tflite",)

    def version(self) -> str:
        """`2.3.0`; MissingDependency where it is not installed."""
        try:
            return version("ai-edge-litert")
        except PackageNotFoundError:
            raise MissingDependency("running TFLite files", "tflite") from None

    def prepare(self) -> None:
        """Load the library; MissingDependency where it is absent."""
        _library()

    def open(
        self,
        path: Path,
        *,
        threads: int,
        context: int,
        sequences: int = 1,
        all_logits: bool = False,
    ) -> LiteRtSession:
        """Load a file; `context` tokens in all, divided equally between `sequences`.

        Sequences go on one after the other, in one cache. MeasurementError where the file's is too
        short.
        """
        del all_logits
        context //= sequences
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        session = LiteRtSession(_library(), path, threads)
        if context > session.context:
            session.close()
            raise MeasurementError(
                f"{path.name} holds {session.context} tokens of context, {context} are needed",
                hint="use a shorter prompt, or convert it again with a longer context",
            )
        return session


def _library() -> Any:
    try:
        from ai_edge_litert import compiled_model
    except ImportError:
        raise MissingDependency("running TFLite files", "tflite") from None
    return compiled_model


class LiteRtSession:
    """A loaded model with one cache. Not for use by several threads."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        self._threads = threads
        self._model = _load(library, path, threads)
        signatures = self._model.get_signature_list()
        if "decode" not in signatures:
            raise InputError(f"{path} is no language model: its signatures are {[*signatures]}")
        names = [n for n in signatures["decode"]["inputs"] if n.startswith("kv_cache_")]
        details = self._model.get_input_tensor_details("decode")
        cache = {n: self._model.create_input_buffer_by_name("decode", n) for n in names}
        for name, buffer in cache.items():
            buffer.write(_zeros(details[name]))  # hidden positions are multiplied by 0
        calls = [_Call(self._model, name, cache) for name in signatures]
        calls.sort(key=lambda call: (call.span, call.length))
        self._decodes = [call for call in calls if "logits" in call.outputs]
        self._prefills = [call for call in calls if "logits" not in call.outputs]
        self._last = self._decodes[-1]
        """The call whose logits are asked for."""
        self.context: int = self._last.span
        logits = self._model.get_output_tensor_details("decode")["logits"]
        self.vocab: int = int(logits["shape"][-1])
        self._cache_bytes = sum(_zeros(details[n]).nbytes for n in names)
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
        call = next(call for call in self._decodes if used < call.span)
        call.tokens[0, 0] = token
        call.positions[0] = used
        call.mask[..., : used + 1] = 0
        call.mask[..., used + 1 :] = HIDDEN
        call.run()
        self._last = call
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
            "source": f"LiteRT {version('ai-edge-litert')}",
            "threads": self._threads,
            "context_tokens": self.context,
            "batch_tokens": max((call.length for call in self._prefills), default=1),
            "buffers_bytes": {"KV/CPU": self._cache_bytes},
        }

    def close(self) -> None:
        """Release the model; may be called twice."""
        if self._model is not None:
            for call in (*self._decodes, *self._prefills):
                call.close()
            self._model.close()
            self._model = None

    def _row(self) -> Any:
        """The logits after the last step, a copy."""
        import numpy as np

        return self._last.outputs["logits"].read(self.vocab, np.float32)

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

    def _piece(self, tokens: int) -> _Call | None:
        """How to read the next of so many tokens: the longest full piece, or a padded one.

        None where steps are faster, or where no piece fits into the rest of the cache.
        """
        fitting = [call for call in self._prefills if self._used + call.length <= call.span]
        full = [call.length for call in fitting if call.length <= tokens]
        padded = [c.length for c in fitting if tokens < c.length and tokens >= STEPS_PER_PIECE]
        length = max(full, default=None) or min(padded, default=None)
        return next((call for call in fitting if call.length == length), None)

    def _append(self, call: _Call, tokens: Sequence[int]) -> None:
        """Read a piece; what pads it is written behind it, where the mask hides it."""
        import numpy as np

        self._check_tokens(min(tokens), max(tokens))
        call.tokens[0, : len(tokens)] = tokens
        call.tokens[0, len(tokens) :] = 0
        call.positions[:] = np.arange(self._used, self._used + call.length)
        call.mask[:] = np.where(np.arange(call.span) <= call.positions[:, None], 0, HIDDEN)
        call.run()
        self._used += len(tokens)

    def _check_tokens(self, lowest: int, highest: int) -> None:
        if lowest < 0 or highest >= self.vocab:
            raise MeasurementError(f"tokens are from 0 to {self.vocab - 1}")

    def _check_room(self, tokens: int) -> None:
        if tokens > self.context:
            raise MeasurementError(
                f"{tokens} tokens of context are needed, but the file has {self.context}",
                hint="use a shorter prompt, or convert it again with a longer context",
            )


class _Call:
    """One signature with everything it reads and writes bound.

    `tokens`, `positions` and `mask` are handed over by `run`.
    """

    def __init__(self, model: Any, key: str, cache: dict[str, Any]) -> None:
        names = model.get_signature_list()[key]
        self._own = {
            name: model.create_input_buffer_by_name(key, name)
            for name in names["inputs"] if name not in cache
        }  # fmt: skip
        self.outputs = {
            name: model.create_output_buffer_by_name(key, name)
            for name in names["outputs"] if name not in cache
        }  # fmt: skip
        details = model.get_input_tensor_details(key)
        self.tokens = _zeros(details["tokens"])
        self.positions = _zeros(details["input_pos"])
        self.mask = _zeros(details["mask"])
        self.length: int = self.tokens.shape[1]
        self.span: int = self.mask.shape[-1]
        self._inputs = [(cache | self._own)[name] for name in names["inputs"]]
        self._outputs = [(cache | self.outputs)[name] for name in names["outputs"]]
        self._model, self._index = model, model.get_signature_index(key)

    def run(self) -> None:
        """One inference; MeasurementError with LiteRT's words."""
        try:
            self._own["tokens"].write(self.tokens)
            self._own["input_pos"].write(self.positions)
            self._own["mask"].write(self.mask)
            self._model.run_by_index(self._index, self._inputs, self._outputs)
        except (ValueError, RuntimeError) as error:
            raise MeasurementError(f"LiteRT cannot run it: {error}") from None

    def close(self) -> None:
        """Release the buffers."""
        self._inputs, self._outputs, self._own, self.outputs = [], [], {}, {}
        self._model = None


def _generation_config(folder: Path) -> dict[str, Any]:
    """What the model's files say of special tokens; nothing where there are no such files."""
    path = folder / "generation_config.json"
    return read_json_object(path) if path.is_file() else {}


def _load(library: Any, path: Path, threads: int) -> Any:
    cpu = library.CpuOptions(num_threads=threads, xnnpack_weight_cache_path=IN_MEMORY)
    options = library.Options(cpu_options=cpu)
    try:
        return library.CompiledModel.from_file(str(path), options=options)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load {path}: {error}") from None


def _zeros(details: dict[str, Any]) -> Any:
    import numpy as np

    return np.zeros(details["shape"], details["dtype"])
