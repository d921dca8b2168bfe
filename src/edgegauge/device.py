"""Device profiles: what a device can do, every figure with its source.

A profile is one TOML file in `device_profiles/` (or anywhere, given by path). Names carry the unit
people quote (`_gb` is 10^9 bytes, so RAM sold as "8 GB" is 8.59); the properties below give SI. A
blank is a fact nobody has sourced, and nothing is guessed in its place.

    profile = load("raspberry-pi-5-8gb")
    profile.app_memory_bytes        # 7.95e9: what one application may use
"""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError
from edgegauge.units import GB

DeviceKind = Literal[
    "sbc", "module", "phone", "tablet", "handheld", "laptop", "desktop", "mini-pc", "server"
]

CoreClass = Literal[
    "arm-in-order",  # A53, A55, A510: two-wide, often no dot product
    "arm-a72",  # A57, A72, A73: out of order, no dot product: int8 decode is compute-bound
    "arm-a76",  # A76, A78 on single-board computers and modules
    "arm-big-little",  # phones: X or A7xx cores beside small ones
    "apple",  # Apple silicon, iPhone and Mac
    "x86-avx2",  # laptops and mini PCs without AVX-512
    "x86-avx512",  # with AVX-512, and int8 dot products in all but the first of them
]
"""How the fastest cores behave, which decides the prior of an uncalibrated prediction."""

CpuFeature = Literal[
    "neon", "fp16", "bf16", "dotprod", "i8mm", "sve", "sve2", "sme",
    "avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16",
]  # fmt: skip
"""Instruction sets that change how fast a quantised model runs; Apple's private AMX is not one."""

DeviceId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=80)]
Source = Annotated[str, Field(min_length=3, max_length=600)]


class ProfilePart(Document):
    """A table of the profile. Strict: text is no number and `true` is not 1."""

    model_config = ConfigDict(strict=True)


class Sourced(ProfilePart):
    """A positive number and where it comes from, in words that a reader can follow."""

    value: float = Field(gt=0, lt=1e15)
    """In the unit that the key's name ends with."""
    source: Source
    """The document, or how it was measured or derived; says so where it is background knowledge."""


class Bandwidth(Sourced):
    """A bandwidth in GB/s, with the arithmetic it comes from where both parts are known."""

    mt_per_s: float | None = Field(default=None, gt=0, lt=1e6)
    """Million transfers per second."""
    bus_bits: int | None = Field(default=None, gt=0, le=8192)
    """Bits moved by one transfer: the width of all memory channels together."""

    @model_validator(mode="after")
    def _multiplies(self) -> Bandwidth:
        if (self.mt_per_s is None) != (self.bus_bits is None):
            raise ValueError("mt_per_s and bus_bits are given together or not at all")
        if self.mt_per_s and self.bus_bits:
            product = self.mt_per_s * self.bus_bits / 8000
            if abs(self.value / product - 1) > 0.01:
                raise ValueError(f"value must be mt_per_s x bus_bits / 8000 = {product:.4g}")
        return self


class Cluster(ProfilePart):
    """A group of equal cores."""

    core: str = Field(min_length=1, max_length=60)
    """The core's name, for example `Cortex-A76`."""
    count: int = Field(gt=0, le=512)
    """Physical cores; two hyper-threads are one core."""
    ghz: float | None = Field(default=None, gt=0, lt=10)
    """Highest clock in GHz."""


class Cpu(ProfilePart):
    """The processor: its core clusters, fastest first, and the instructions that matter here."""

    soc: str = Field(min_length=1, max_length=120)
    """The chip's name."""
    core_class: CoreClass
    """How the fastest cores behave; decides the prior of an uncalibrated prediction."""
    clusters: list[Cluster] = Field(min_length=1, max_length=16)
    """Fastest first."""
    small_cluster: bool = True
    """Whether the last of several clusters has small cores, which only hold decoding up. False
    where they are large cores at a lower clock: Snapdragon 8 Elite, Zen 5c."""
    features: list[CpuFeature] = Field(default=[], max_length=64)
    """Instruction sets that change how fast a quantised model runs."""
    l2_cache_mb: float | None = Field(default=None, gt=0, lt=1000)
    """All L2 caches together, in MiB as makers print it."""
    l3_cache_mb: float | None = Field(default=None, gt=0, lt=4000)
    """All L3 caches together, in MiB."""
    source: Source
    """Where the facts of this table come from."""

    @property
    def fast_cores(self) -> int:
        """Cores worth giving a decode thread: all but the small ones of a mixed processor."""
        fast = self.clusters[:-1] if self.small_cluster else self.clusters
        return sum(c.count for c in fast or self.clusters)


ThreadCount = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}$")]
PositiveRate = Annotated[float, Field(gt=0, lt=1e6)]


class Memory(ProfilePart):
    """Memory size, what of it one application may use, and how fast it can be read."""

    ram_gb: Sourced
    """Memory fitted, or what the kernel sees of it where a machine describes itself."""
    app_gb: Sourced
    """What one application may use without being killed or swapping."""
    bandwidth_gb_per_s: Bandwidth | None = None
    """Theoretical: transfers per second x bus width. A machine cannot tell this of itself."""
    read_1_thread_gb_per_s: Sourced | None = None
    """Measured with one of the fastest cores reading."""
    read_gb_per_s: Sourced | None = None
    """Measured with all cores reading."""
    read_gb_per_s_by_threads: dict[ThreadCount, PositiveRate] | None = None
    """Thread count to GB/s, from the same measurement as `read_gb_per_s`."""
    llm_decode_gb_per_s: Sourced | None = None
    """Rate at which a language-model runtime streamed weights on the CPU of this device."""

    @model_validator(mode="after")
    def _agrees(self) -> Memory:
        if self.app_gb.value > self.ram_gb.value:
            raise ValueError(
                f"app_gb must not exceed ram_gb, got {self.app_gb.value} > {self.ram_gb.value}"
            )
        if self.read_gb_per_s_by_threads and self.read_gb_per_s is None:
            raise ValueError("read_gb_per_s_by_threads needs read_gb_per_s, which has its source")
        return self


class Battery(ProfilePart):
    """The battery as sold; `health` is the remaining share of that capacity."""

    capacity_wh: Sourced
    """Rated capacity in Wh."""
    health: float = Field(default=1.0, gt=0, le=1.2)
    """Capacity now / capacity when new."""
    usable: float = Field(default=0.93, gt=0, le=1)
    """Share left after cut-off and reserve. The default is background knowledge: 0.90 to 0.95."""


class InferencePower(ProfilePart):
    """What running a language model draws, in parts that `edgegauge.consumption` adds up: the power
    of idling and of each thread for as long as it takes, and the energy of each byte."""

    covers: str = Field(min_length=3, max_length=300)
    """What the figures are the power of."""
    whole_device: bool = True
    """False where that is a part of the device only, so that it says nothing of its battery."""
    idle_w: float = Field(gt=0, lt=1e5)
    """On, with nothing asked of it, in W."""
    decode_w_per_thread: float = Field(ge=0, lt=1e4)
    """What each thread adds while it decodes, beside the bytes, in W."""
    prefill_w_per_thread: float | None = Field(default=None, ge=0, lt=1e4)
    """The same while it reads a prompt, in W; as while it decodes where it is not known."""
    decode_nj_per_byte: float | None = Field(default=None, gt=0, lt=1e3)
    """Energy of a byte of weights, keys or values that comes from memory, in nJ; where it is not
    known, it is part of the threads' power."""
    error: float = Field(ge=0, lt=10)
    """80 % of actual energies, where the time is known, are within 1 + error of these figures."""
    source: Source
    """What was measured, with what, and how good it is."""


class Power(ProfilePart):
    """Power draw in watts; `covers` says of what, since wall and rail figures do not compare."""

    idle_w: Sourced | None = None
    """On, doing nothing."""
    inference_w: Sourced | None = None
    """Mean while a language model decodes on the processor; a peak is none."""
    load_w: Sourced | None = None
    """All cores busy."""
    sustained_w: Sourced | None = None
    """What the device settles at under lasting load: a thermal or configured limit."""
    covers: str = Field(min_length=3, max_length=300)
    """What the watts are the power of: the wall socket, the module input, the CPU rails."""
    inference: InferencePower | None = None
    """Decoding and reading prompts in parts, which comes before the watts above."""


def _known_work(name: str) -> str:
    if re.fullmatch(KINDS_OF_WORK, name) is None:
        raise ValueError(
            "no kind of work that this version knows: remove the calibration, then make it again"
        )
    return name


KINDS_OF_WORK = (
    "layer|token|attention|keys|keys past|keys cut|activations|pass|call"
    "|(Q|IQ|INT|BF|F)[0-9][A-Z0-9_/]{0,12}( past)?"
)
"""What a calibration has costs of; `edgegauge.calibration` says what each is."""

KindOfWork = Annotated[str, AfterValidator(_known_work)]

Correlation = Annotated[float, Field(ge=-1, le=1)]


class Coefficient(ProfilePart):
    """What one unit of some work takes, as it was fitted."""

    value: float = Field(ge=0, lt=1e6)
    """Seconds."""
    error: float = Field(ge=0, lt=1e6)
    """Standard error in seconds."""


class Calibration(ProfilePart):
    """What each kind of work takes one runtime here, fitted to runs of synthetic models."""

    runtime_version: str = Field(min_length=1, max_length=60)
    """Version of the runtime's package."""
    threads: int = Field(gt=0, le=1024)
    """Of all the runs; with other numbers of threads the calibration does not count."""
    cache_bytes: float = Field(gt=0, lt=1e12)
    """Weights that fit in here are read from the last-level cache, not from memory."""
    decode: dict[KindOfWork, Coefficient]
    """Work of a generated token (`edgegauge.calibration` lists it): its coefficient."""
    prefill: dict[KindOfWork, Coefficient]
    """Work of a prompt: its coefficient."""
    decode_residual: float = Field(ge=0, lt=10)
    """Standard deviation of measured / fitted time of a token."""
    prefill_residual: float = Field(ge=0, lt=10)
    """The same of a prompt."""
    decode_correlations: list[list[Correlation]] = Field(default=[], max_length=100)
    """Of the errors in `decode`: of each, by the alphabet, with those before it. Empty: none."""
    prefill_correlations: list[list[Correlation]] = Field(default=[], max_length=100)
    """The same of `prefill`."""
    trustworthy: bool = True
    """False where the machine was disturbed while the models ran."""
    power: InferencePower | None = None
    """What this runtime draws here, where a meter was read (`devices calibrate --energy`)."""
    source: Source
    """When and by what it was measured, on how many runs of which models."""

    @model_validator(mode="after")
    def _one_row_each(self) -> Calibration:
        for costs, rows in (
            (self.decode, self.decode_correlations), (self.prefill, self.prefill_correlations)
        ):  # fmt: skip
            if rows and [len(row) for row in rows] != list(range(len(costs))):
                raise ValueError(
                    f"correlations of {len(costs)} kinds of work are rows of 0, 1, ... "
                    f"{len(costs) - 1} numbers"
                )
        return self


class MeasuredRow(ProfilePart):
    """What one model reached on the device, as llama-bench or another tool measured it."""

    runtime: Literal["llama.cpp", "onnxruntime", "litert"] = "llama.cpp"
    """What executed the model, on the processor alone."""
    model: str = Field(min_length=1, max_length=400)
    """A model of the catalog, or the path of a folder or GGUF file."""
    recipe: str = Field(min_length=1, max_length=40)
    """How its weights were stored, for example `q4_k_m`."""
    threads: int = Field(gt=0, le=1024)
    """That it was run with."""
    prompt_tokens: int = Field(default=512, gt=0, le=10_000_000)
    """Tokens of the prompt behind the prefill rate: 512 in llama-bench."""
    prefill_tok_per_s: float | None = Field(default=None, gt=0, lt=1e9)
    """Prompt tokens per second."""
    depth: int = Field(default=64, ge=0, le=10_000_000)
    """Tokens in the cache while it generated, in the mean: half of llama-bench's 128."""
    decode_tok_per_s: float | None = Field(default=None, gt=0, lt=1e6)
    """Generated tokens per second."""
    source: Source
    """Who measured it, when and with what."""

    @model_validator(mode="after")
    def _has_a_speed(self) -> MeasuredRow:
        if self.decode_tok_per_s is None and self.prefill_tok_per_s is None:
            raise ValueError("give decode_tok_per_s, prefill_tok_per_s or both")
        return self


class DeviceProfile(ProfilePart):
    """One device."""

    format: Literal[1] = 1
    """Version of this schema."""
    id: DeviceId
    """`<maker>-<model>[-<ram>gb]`; a shipped profile's file name without `.toml`."""
    name: str = Field(min_length=1, max_length=120)
    """The name people use."""
    kind: DeviceKind
    """What sort of device it is."""
    year: int | None = Field(default=None, ge=1990, le=2100)
    """When it was first sold."""
    os: Literal["linux", "android", "ios", "macos", "windows"]
    """The operating system that the memory figures are for."""
    cpu: Cpu
    memory: Memory
    battery: Battery | None = None
    power: Power | None = None
    storage_read_mb_per_s: Sourced | None = None
    """Sequential reading from the storage that models live on, 10^6 bytes per second."""
    measured: list[MeasuredRow] | None = Field(default=None, max_length=256)
    """Speeds that models reached on this device. One row moves the predictions of all models."""
    calibration: dict[str, Calibration] | None = None
    """By runtime (`llama.cpp`, `onnxruntime`, `litert`); what `devices calibrate` writes."""
    notes: str | None = Field(default=None, max_length=4000)
    """What a reader should know before trusting the figures."""

    @property
    def app_memory_bytes(self) -> float:
        """Bytes one application may use."""
        return self.memory.app_gb.value * GB

    @property
    def cores(self) -> int:
        """All cores of all clusters."""
        return sum(c.count for c in self.cpu.clusters)


def as_document(profile: DeviceProfile) -> dict[str, Any]:
    """The profile as plain values in schema order, blanks left out: what TOML and JSON hold."""
    return profile.model_dump(mode="json", exclude_none=True)


def profiles_folder() -> Path:
    """Where the profiles are: beside the code in a wheel, at the top of a checkout."""
    packaged = Path(str(resources.files("edgegauge"))) / "device_profiles"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "device_profiles"


def known_ids() -> list[str]:
    """Ids of all shipped profiles, sorted."""
    return sorted(p.stem for p in profiles_folder().glob("*.toml"))


def load(device: str) -> DeviceProfile:
    """The profile with this id, or in the TOML file at this path; raises InputError."""
    if device.endswith(".toml"):
        return read_toml(Path(device), DeviceProfile)
    known = known_ids()
    if device not in known:
        near = difflib.get_close_matches(device, known, n=3)
        raise InputError(
            f"no device profile {device!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else ""),
            hint="edgegauge devices list shows all ids; a path to a .toml file works too",
        )
    return read_toml(profiles_folder() / f"{device}.toml", DeviceProfile)
