"""Predicting: a candidate's speed, memory and energy on a device that is not here.

    prediction = predict(load("raspberry-pi-5-8gb"), spec, "q4_0")
    prediction.decode_tok_per_s         # Figure(..., kind="predicted", low=..., high=...)
    prediction.outcome                  # "fits", "thrashes" or "out of memory"

    predictor = Predictor(device)       # many candidates on one device
    predictor.predict(spec, "int4", "onnx")

Memory is computed (`footprint.py`). Speed and its interval come from what is known of the device
and of the runtime that executes the format (`speed_model.py`). Energy is what the device draws
for that time (`consumption.py`). Where the profile lacks what is needed the figure is None.
docs/explanation/prediction.md states what the errors are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from edgegauge import usage as usages
from edgegauge.battery import Costs, battery_figures
from edgegauge.consumption import Consumption, consumption
from edgegauge.device import DeviceProfile
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.footprint import (
    UBATCH,
    Footprint,
    InstructionSet,
    Outcome,
    isa_of,
    memory_of,
)
from edgegauge.measured_row import RowSpeed
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe, resolve, tensor_bytes
from edgegauge.speed import ClassSpeed, Estimate, SpeedModel
from edgegauge.speed_model import speed_model
from edgegauge.units import MB
from edgegauge.usage import Usage
from edgegauge.work import Work, work_of

RUNTIMES: dict[str, str] = {
    "gguf": "llama.cpp", "onnx": "onnxruntime", "tflite": "litert"
}  # fmt: skip
"""Format: the runtime that executes it, as `speed_model` names it."""

RUNTIME_NAMES: dict[str, str] = {
    "gguf": "llama.cpp", "onnx": "ONNX Runtime", "tflite": "LiteRT"
}  # fmt: skip
"""Format: its runtime, as people call it."""

DEFAULT_PROMPT_TOKENS = 128
DEFAULT_CONTEXT = 2048

MEMORY_ERROR = 0.08
"""Largest error of the predicted memory in the measured cases, which only models below 100M
parameters come near; above that it is 3.2 % (docs/explanation/memory.md)."""


@dataclass(kw_only=True)  # frozen, so many fields take three times as long to fill
class Prediction:
    """What is expected of one candidate on one device. Speeds are None where it cannot run."""

    device: str
    model: str
    recipe: str
    file_format: str
    parameters: int
    file_bytes: int
    """Tensor data; header and tokenizer come on top."""
    threads: int
    prompt_tokens: int
    context: int
    footprint: Footprint
    outcome: Outcome
    peak_memory_bytes: Figure
    """Resident memory where nothing presses on it."""
    needed_memory_bytes: Figure
    """The part of it without which the candidate does not run at this speed."""
    decode_tok_per_s: Figure | None
    """With the prompt in the cache."""
    ttft_s: Figure | None
    """Time to the first token after a prompt of `prompt_tokens`, from an empty cache."""
    decode_time: Estimate | None
    """Of a token, with what reading weights from storage again adds; None where it does not run at
    a known speed."""
    prefill_time: Estimate | None
    """The same of the prompt."""
    work: Work = field(repr=False)
    """Of a token."""
    predictor: Predictor = field(repr=False, compare=False)

    # The figures below are made when they are asked for: of a thousand candidates few are shown.

    @cached_property
    def prefill_tok_per_s(self) -> Figure | None:
        """Of such a prompt."""
        ttft = self.ttft_s
        if ttft is None:
            return None
        return _rate(self.prompt_tokens, ttft.value, ttft.least, ttft.most, ttft.source)

    @cached_property
    def energy_j_per_token(self) -> Figure | None:
        """Of a generated token; None without power."""
        draws, time = self.predictor.consumption(self.file_format), self.decode_time
        if draws is None or time is None:
            return None
        return draws.decode(self.work, self.prompt_tokens, time)

    @property
    def effective_bits(self) -> float:
        """Bits per parameter."""
        return 8 * self.file_bytes / self.parameters

    @cached_property
    def battery(self) -> dict[str, Figure] | None:
        """For the stated usage (`battery.py`); None without a battery, power or speed."""
        return self.predictor.battery(self)


class Predictor:
    """Predicts candidates on one device under the same conditions.

    `context` is the room for prompt and answer in tokens (default: 2048, or all that a model has);
    `threads` defaults to the device's fast cores, `usage` to the shipped `chat`; `ubatch` prompt
    tokens are computed at once. `memory_speed` asks what a memory so many times as fast would do,
    which a calibration cannot answer. What depends on the device alone is looked up once.
    """

    def __init__(
        self,
        device: DeviceProfile,
        *,
        prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
        context: int | None = None,
        threads: int | None = None,
        ubatch: int = UBATCH,
        usage: Usage | None = None,
        memory_speed: float = 1.0,
    ) -> None:
        self.device = device
        self.prompt_tokens = prompt_tokens
        self.context = context
        self.threads = threads
        self.ubatch = ubatch
        self.memory_speed = memory_speed
        self.usage = usage or default_usage()
        self._memory_bytes = device.app_memory_bytes
        self._isa = {each: isa_of(device.cpu.features, each) for each in RUNTIMES}
        self._speed_models: dict[str, SpeedModel] = {}
        self._consumptions: dict[str, Consumption | None] = {}

    def predict(self, spec: ModelSpec, recipe: Recipe, file_format: str) -> Prediction:
        """Predict a recipe under the name that `recipe.resolve` gives it.

        Raises InputError for a context or prompt that the model has no room for.
        """
        asks = _demand(
            spec, recipe, file_format, self._isa[file_format],
            self.context, self.prompt_tokens, self.ubatch,
        )  # fmt: skip
        outcome = asks.footprint.outcome(self._memory_bytes)
        speeds = self._speed_model(file_format)
        waiting_s = self._waiting_s(asks.footprint, outcome)
        decode = ttft = None
        if waiting_s is not None:
            decode = _after(waiting_s, speeds.decode(asks.work, asks.prompt_tokens))
            ttft = _after(waiting_s, speeds.prefill(asks.work, asks.prompt_tokens))
        return Prediction(
            device=self.device.id, model=spec.id, recipe=str(recipe), file_format=file_format,
            parameters=asks.parameters, file_bytes=asks.file_bytes,
            threads=speeds.threads, prompt_tokens=asks.prompt_tokens, context=asks.context,
            footprint=asks.footprint, outcome=outcome,
            peak_memory_bytes=asks.peak_bytes, needed_memory_bytes=asks.needed_bytes,
            decode_tok_per_s=_rate(1, *decode) if decode else None,
            ttft_s=_time(*ttft) if ttft else None,
            decode_time=decode, prefill_time=ttft, work=asks.work, predictor=self,
        )  # fmt: skip

    def consumption(self, file_format: str) -> Consumption | None:
        """What the runtime of this format draws here; None where nothing is known."""
        if file_format not in self._consumptions:
            runtime, threads = RUNTIMES[file_format], self._speed_model(file_format).threads
            self._consumptions[file_format] = consumption(self.device, runtime, threads)
        return self._consumptions[file_format]

    def battery(self, found: Prediction) -> dict[str, Figure] | None:
        """Battery figures of one of its predictions. Where the known power is that of a part of the
        device there are none: a battery feeds all of it."""
        draws, battery = self.consumption(found.file_format), self.device.battery
        rate, energy, time = found.decode_tok_per_s, found.energy_j_per_token, found.decode_time
        if draws is None or not draws.whole_device or battery is None:
            return None
        if rate is None or energy is None or time is None:
            return None
        tokens, work, prompt = found.prompt_tokens, found.work, found.prefill_time
        costs = Costs(
            decode_j=energy, decode_w=draws.while_decoding(energy, time.seconds),
            decode_tok_per_s=rate, prefill_tok_per_s=found.prefill_tok_per_s,
            prefill_j=draws.prefill(work, tokens, prompt) if prompt else None,
            net_decode_j=draws.decode(work, tokens, time, net=True),
            net_prefill_j=draws.prefill(work, tokens, prompt, net=True) if prompt else None,
            waiting_w=draws.idle_w,
        )  # fmt: skip
        return battery_figures(battery, costs, self.usage)

    def _speed_model(self, file_format: str) -> SpeedModel:
        found = self._speed_models.get(file_format)
        if found is None:
            found = speed_model(self.device, RUNTIMES[file_format], self.threads)
            if isinstance(found, ClassSpeed | RowSpeed):
                found = found.with_memory(self.memory_speed)
            self._speed_models[file_format] = found
        return found

    def _waiting_s(self, needs: Footprint, outcome: Outcome) -> float | None:
        """Seconds per pass spent on reading weights from storage again; None where it does not
        run, or at a speed that is not known."""
        if outcome == "fits":
            return 0.0
        storage = self.device.storage_read_mb_per_s
        if outcome == "out of memory" or storage is None:
            return None
        return needs.weights_in_use_bytes / (storage.value * MB)


def predict(
    device: DeviceProfile,
    spec: ModelSpec,
    recipe: str,
    *,
    file_format: str = "gguf",
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
    context: int | None = None,
    threads: int | None = None,
    ubatch: int = UBATCH,
    usage: Usage | None = None,
) -> Prediction:
    """Predict one candidate on one device, under the conditions of `Predictor`.

    Raises InputError for a recipe that the format has not got, and for a context or prompt that
    the model has no room for.
    """
    predictor = Predictor(
        device, prompt_tokens=prompt_tokens, context=context, threads=threads, ubatch=ubatch,
        usage=usage,
    )  # fmt: skip
    return predictor.predict(spec, resolve(recipe, file_format), file_format)


@lru_cache(maxsize=1024)
def _parameters(spec: ModelSpec) -> int:
    """Counting walks over the tensors of a block."""
    return spec.parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What a candidate asks of every processor with the same instruction set."""

    parameters: int
    file_bytes: int
    prompt_tokens: int
    context: int
    work: Work
    footprint: Footprint
    peak_bytes: Figure
    needed_bytes: Figure


@lru_cache(maxsize=16384)
def _demand(
    spec: ModelSpec,
    recipe: Recipe,
    file_format: str,
    isa: InstructionSet,
    context: int | None,
    prompt_tokens: int,
    ubatch: int,
) -> _Demand:
    """Cached, since any number of devices have four instruction sets between them."""
    room, prompt = _tokens(spec, context, prompt_tokens)
    needs = memory_of(spec, recipe, file_format, isa).footprint(room, prompt, ubatch)
    memory = f"memory of {RUNTIME_NAMES[file_format]} at {room} tokens"
    return _Demand(
        parameters=_parameters(spec),
        file_bytes=tensor_bytes(spec, recipe, file_format),
        prompt_tokens=prompt,
        context=room,
        work=work_of(spec, recipe, file_format),
        footprint=needs,
        peak_bytes=_memory(needs.peak_bytes, memory),
        needed_bytes=_memory(needs.needed_bytes, f"{memory}, droppable pages left out"),
    )


def _tokens(spec: ModelSpec, context: int | None, prompt_tokens: int) -> tuple[int, int]:
    """Room and prompt for this model."""
    if context is None:
        room = min(DEFAULT_CONTEXT, spec.context)
        return room, min(prompt_tokens, room)
    if context > spec.context:
        raise InputError(
            f"{spec.id} was made for {spec.context} tokens of context, {context} were asked for"
        )
    if prompt_tokens > context:
        raise InputError(
            f"a prompt of {prompt_tokens} tokens does not fit in a context of {context}"
        )
    return context, prompt_tokens


def _after(waiting_s: float, time: Estimate) -> Estimate:
    """The time with a wait before it."""
    if not waiting_s:
        return time
    seconds, low, high, source = time
    source += "; weights read from storage every time"
    return Estimate(seconds + waiting_s, low + waiting_s, high + waiting_s, source)


def _time(seconds: float, low: float, high: float, source: str) -> Figure:
    return Figure(seconds, "s", "predicted", source, low, high)


def _rate(tokens: int, seconds: float, low: float, high: float, source: str) -> Figure:
    """Tokens per second where so many take this time."""
    return Figure(tokens / seconds, "tok/s", "predicted", source, tokens / high, tokens / low)


def _memory(value: int, source: str) -> Figure:
    low, high = value * (1 - MEMORY_ERROR), value * (1 + MEMORY_ERROR)
    return Figure(float(value), "bytes", "predicted", source, low, high)


@lru_cache(maxsize=1)
def default_usage() -> Usage:
    """The shipped usage model that counts where none is named."""
    return usages.load()
