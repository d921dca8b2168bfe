"""Device profiles: what a device can do, every figure with its source.

A profile is one TOML file in `device_profiles/` (or anywhere, given by path). Names carry the unit
people quote (`_gb` is 10^9 bytes); the properties below give SI. A blank is a fact nobody has
sourced, and nothing is guessed in its place.

    profile = load("raspberry-pi-5-8gb")
    profile.app_memory_bytes        # 7.4e9: what one application may use
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError
from edgegauge.units import GB

DeviceKind = Literal["sbc", "module", "phone", "tablet", "laptop", "desktop", "mini-pc", "server"]

CoreClass = Literal[
    "arm-in-order",  # A53, A55, A510: two-wide, often no dot product
    "arm-a72",  # A57, A72, A73: out of order, no dot product: int8 decode is compute-bound
    "arm-a76",  # A76, A78 on single-board computers and modules
    "arm-big-little",  # phones: X or A7xx cores beside small ones
    "apple",  # Apple silicon, iPhone and Mac
    "x86-avx2",
    "x86-avx512",
]
"""How the fastest cores behave, which decides the prior of an uncalibrated prediction."""

DeviceId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=80)]
Source = Annotated[str, Field(min_length=3, max_length=600)]


class Sourced(Document):
    """A positive number and the document it was read in."""

    value: float = Field(gt=0, lt=1e15)
    source: Source


class Cluster(Document):
    """A group of equal cores."""

    core: str = Field(min_length=1, max_length=60)
    count: int = Field(gt=0, le=512)
    ghz: float | None = Field(default=None, gt=0, lt=10)


class Cpu(Document):
    """The processor: its core clusters, fastest first, and the instructions that matter here."""

    soc: str = Field(min_length=1, max_length=120)
    core_class: CoreClass
    clusters: list[Cluster] = Field(min_length=1, max_length=8)
    features: list[str] = Field(default=[], max_length=64)
    l2_cache_mb: float | None = Field(default=None, gt=0, lt=1000)
    l3_cache_mb: float | None = Field(default=None, gt=0, lt=4000)
    source: Source

    @property
    def fast_cores(self) -> int:
        """Cores worth giving a decode thread: all but the slow clusters of a mixed processor."""
        return (
            self.clusters[0].count
            if len(self.clusters) == 1
            else sum(c.count for c in self.clusters[:-1])
        )


class Memory(Document):
    """Memory size, what of it one application may use, and how fast it can be read."""

    ram_gb: Sourced
    app_gb: Sourced
    bandwidth_gb_per_s: Sourced
    """Theoretical: transfers per second x bus width."""
    read_1_thread_gb_per_s: Sourced | None = None
    read_gb_per_s: Sourced | None = None
    """Measured with all cores reading."""
    read_gb_per_s_by_threads: dict[str, float] | None = None
    """Measured by `devices detect`: thread count (as TOML key) to GB/s."""
    llm_decode_gb_per_s: Sourced | None = None
    """Rate at which a language-model runtime streamed weights on the CPU of this device."""


class Battery(Document):
    """The battery as sold; `health` is the remaining share of that capacity."""

    capacity_wh: Sourced
    health: float = Field(default=1.0, gt=0, le=1.2)
    usable: float = Field(default=0.93, gt=0, le=1)
    """Share left after cut-off and reserve."""


class Power(Document):
    """Power draw in watts; `covers` says of what, since wall and rail figures do not compare."""

    idle_w: Sourced | None = None
    load_w: Sourced | None = None
    """All cores busy."""
    covers: str = Field(min_length=3, max_length=300)


class DeviceProfile(Document):
    """One device. See docs/reference/device-profile.md for every key."""

    format: Literal[1] = 1
    id: DeviceId
    name: str = Field(min_length=1, max_length=120)
    kind: DeviceKind
    year: int | None = Field(default=None, ge=1990, le=2100)
    os: Literal["linux", "android", "ios", "macos", "windows"]
    cpu: Cpu
    memory: Memory
    battery: Battery | None = None
    power: Power | None = None
    storage_read_mb_per_s: Sourced | None = None
    notes: str | None = Field(default=None, max_length=2000)

    @model_validator(mode="after")
    def _sizes_agree(self) -> DeviceProfile:
        if self.memory.app_gb.value > self.memory.ram_gb.value:
            raise ValueError(
                f"memory.app_gb {self.memory.app_gb.value} exceeds memory.ram_gb "
                f"{self.memory.ram_gb.value}"
            )
        return self

    @property
    def app_memory_bytes(self) -> float:
        """Bytes one application may use."""
        return self.memory.app_gb.value * GB

    @property
    def cores(self) -> int:
        """All cores of all clusters."""
        return sum(c.count for c in self.cpu.clusters)


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
    if device not in known_ids():
        raise InputError(
            f"no device profile {device!r}",
            hint="edgegauge devices list shows all ids; a path to a .toml file works too",
        )
    return read_toml(profiles_folder() / f"{device}.toml", DeviceProfile)
