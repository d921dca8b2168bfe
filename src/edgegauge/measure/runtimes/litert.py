"""LiteRT on the CPU, through its CompiledModel; its predecessor where only that is installed.

Files made by litert-torch run here too. The cache lies in buffers that are input and output at
once: a step writes one position of it and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.runtimes import tflite_runtime
from edgegauge.measure.runtimes.litert_library import library, litert_version
from edgegauge.measure.runtimes.tflite_session import CACHE, Call, TfliteRuntime, check_signatures

IN_MEMORY = ":memory"
"""Where XNNPACK keeps the weights in its own order (`weight_cache.h`): once for all signatures.
Without a place, each signature has a copy of its own."""


def installed() -> TfliteRuntime:
    """LiteRT, or tflite-runtime on a machine that has only that."""
    if find_spec("ai_edge_litert") is None and find_spec("tflite_runtime") is not None:
        return tflite_runtime.OldRuntime()
    return LiteRtRuntime()


class LiteRtRuntime(TfliteRuntime):
    """Opens TFLite language models in LiteRT."""

    name = "LiteRT"

    def version(self) -> str:
        """See TfliteRuntime."""
        return litert_version()

    def prepare(self) -> None:
        """See TfliteRuntime."""
        library("compiled_model")

    def load(self, path: Path, threads: int) -> CompiledFile:
        """See TfliteRuntime."""
        return CompiledFile(library("compiled_model"), path, threads)


class CompiledFile:
    """A CompiledModel, a `LoadedModel`."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        self.source = f"LiteRT {litert_version()}"
        self._model = _compiled(library, path, threads)
        signatures = self._model.get_signature_list()
        check_signatures(path, signatures)
        names = [n for n in signatures["decode"]["inputs"] if n.startswith(CACHE)]
        details = self._model.get_input_tensor_details("decode")
        cache = {n: self._model.create_input_buffer_by_name("decode", n) for n in names}
        for name, buffer in cache.items():
            buffer.write(_zeros(details[name]))
        logits = self._model.get_output_tensor_details("decode")["logits"]
        self.vocab = int(logits["shape"][-1])
        self.cache_bytes = sum(_zeros(details[n]).nbytes for n in names)
        self._calls = [_Call(self._model, name, cache, self.vocab) for name in signatures]

    @property
    def calls(self) -> Sequence[Call]:
        """See LoadedModel."""
        return self._calls

    def close(self) -> None:
        """See LoadedModel."""
        for call in self._calls:
            call.close()
        self._model.close()


class _Call(Call):
    """A signature; what it reads is handed over by `run`."""

    def __init__(self, model: Any, key: str, cache: dict[str, Any], vocab: int) -> None:
        names = model.get_signature_list()[key]
        self._own = {
            name: model.create_input_buffer_by_name(key, name)
            for name in names["inputs"] if name not in cache
        }  # fmt: skip
        outputs = {
            name: model.create_output_buffer_by_name(key, name)
            for name in names["outputs"] if name not in cache
        }  # fmt: skip
        details = model.get_input_tensor_details(key)
        read = {name: _zeros(details[name]) for name in self._own}
        super().__init__(read, gives_logits="logits" in outputs)
        self._logits, self._vocab = outputs.get("logits"), vocab
        self._inputs = [(cache | self._own)[name] for name in names["inputs"]]
        self._outputs = [(cache | outputs)[name] for name in names["outputs"]]
        self._model, self._index = model, model.get_signature_index(key)

    def run(self) -> None:
        """See Call."""
        try:
            self._own["tokens"].write(self.tokens)
            self._own["input_pos"].write(self.positions)
            self._own["mask"].write(self.mask)
            self._model.run_by_index(self._index, self._inputs, self._outputs)
        except (ValueError, RuntimeError) as error:
            raise MeasurementError(f"LiteRT cannot run it: {error}") from None

    def logits(self) -> Any:
        """See Call."""
        import numpy as np

        assert self._logits is not None
        return self._logits.read(self._vocab, np.float32)

    def close(self) -> None:
        """Release the buffers, which must go before the model."""
        self._inputs, self._outputs, self._own, self._logits = [], [], {}, None
        self._model = None


def _compiled(library: Any, path: Path, threads: int) -> Any:
    cpu = library.CpuOptions(num_threads=threads, xnnpack_weight_cache_path=IN_MEMORY)
    options = library.Options(cpu_options=cpu)
    try:
        return library.CompiledModel.from_file(str(path), options=options)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load {path}: {error}") from None


def _zeros(details: dict[str, Any]) -> Any:
    import numpy as np

    return np.zeros(details["shape"], details["dtype"])
