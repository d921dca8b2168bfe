"""Describing this machine as a device profile, from what its system tells and one measurement.

    detection = detect()                    # a few seconds: measures read bandwidth
    detection.profile.app_memory_bytes
    write_profile(Path("my-device.toml"), detection.profile)

Theoretical bandwidth, power and what a runtime reaches are not to be had this way and stay blank.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from edgegauge import __version__
from edgegauge.device import Battery, Cluster, Cpu, DeviceProfile, Memory, Sourced, as_document
from edgegauge.document import atomic_write
from edgegauge.errors import EdgeGaugeError, MeasurementError
from edgegauge.host import bandwidth
from edgegauge.host.bandwidth import Readings
from edgegauge.host.cpu import CpuFacts, linux_cpu
from edgegauge.host.identity import Identity, identity, mac_identity
from edgegauge.host.mac import mac_cpu, sysctl
from edgegauge.host.memory import MemoryFacts, linux_memory, mac_memory
from edgegauge.host.power import BatteryFacts, battery
from edgegauge.host.tree import LIVE, Tree, integer
from edgegauge.measure.turn import turn
from edgegauge.toml import dumps
from edgegauge.units import GB, GIB, MB, MIB

RAM_SIZES_GB = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)
"""Sizes in which memory is sold; a machine's id names the next one above what its kernel sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine's description before any measurement."""

    identity: Identity
    cpu: CpuFacts
    memory: MemoryFacts
    battery: BatteryFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The profile of this machine and the facts that a profile has no key for."""

    profile: DeviceProfile
    machine: Machine
    readings: Readings | None
    notes: list[str]

    def facts(self) -> dict[str, Any]:
        """What a profile has no key for, as plain values."""
        measured = self.readings
        return {
            "kernel": self.machine.identity.kernel,
            "virtual_machine": self.machine.identity.virtual,
            "container": self.machine.identity.container,
            "app_memory_limit": self.machine.memory.app_limit,
            "cpu_order": self.machine.cpu.order,
            "read_buffer_bytes": measured.buffer_bytes if measured else None,
            "read_in_cache_gb_per_s": round(measured.cached_gb_per_s, 1) if measured else None,
            "edgegauge": __version__,
            "python": platform.python_version(),
        }


class MeasureRead(Protocol):
    """The signature of `bandwidth.measure_read`."""

    def __call__(
        self,
        counts: Sequence[int],
        *,
        cache_bytes: int,
        free_bytes: int,
        order: Sequence[int],
        progress: Callable[[int, int], None],
    ) -> Readings:
        """Read bandwidth for each thread count."""


def detect(
    *,
    measure: MeasureRead | None = bandwidth.measure_read,
    progress: Callable[[int, int], None] = lambda done, threads: None,
) -> Detection:
    """This machine, its read bandwidth measured unless `measure` is None; raises EdgeGaugeError."""
    machine = describe(Tree(LIVE))
    readings, notes = None, []
    if measure is not None:
        caches = (machine.cpu.l2_bytes or 0) + (machine.cpu.l3_bytes or 0)
        try:
            with turn():
                readings = measure(
                    measured_counts(machine.cpu.clusters),
                    cache_bytes=caches,
                    free_bytes=machine.memory.app_bytes,
                    order=machine.cpu.order,
                    progress=progress,
                )
        except MeasurementError as error:
            notes.append(f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return as_detection(machine, readings, date.today(), notes)


def measured_counts(clusters: list[Cluster]) -> list[int]:
    """The numbers of threads at which read bandwidth is measured."""
    cores = sum(c.count for c in clusters)
    fast = cores if len(clusters) == 1 else cores - clusters[-1].count
    return bandwidth.thread_counts(cores, fast)


@contextmanager
def _sane_values() -> Iterator[None]:
    """Turns values that fit no profile (a 100 GB cache, 10^5 cores) into an error for users."""
    try:
        yield
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}" for e in error.errors()]
        raise EdgeGaugeError(
            f"this system says what cannot be: {', '.join(found)[:500]}",
            hint="write a profile by hand: see docs/how-to/add-a-device.md",
        ) from None


def describe(tree: Tree) -> Machine:
    """The machine behind a tree; EdgeGaugeError where its system tells too little."""
    with _sane_values():
        machine = _linux(tree) or _mac(tree)
    if machine is None:
        raise EdgeGaugeError(
            f"this system ({platform.system() or 'unknown'}) does not tell what edgegauge needs: "
            "neither /proc/meminfo and /proc/cpuinfo nor sysctl and vm_stat can be read",
            hint="write a profile by hand: see docs/how-to/add-a-device.md",
        )
    return machine


def _linux(tree: Tree) -> Machine | None:
    memory = linux_memory(tree)
    if memory is None:
        return None
    who = identity(tree)
    cpu = linux_cpu(tree, android=who.os == "android")
    if cpu is None:
        return None
    return Machine(identity=who, cpu=cpu, memory=memory, battery=battery(tree))


def _mac(tree: Tree) -> Machine | None:
    values = sysctl(tree)
    cpu = mac_cpu(values)
    memory = mac_memory(tree, integer(values.get("hw.memsize")) or 0)
    if cpu is None or memory is None:
        return None
    return Machine(identity=mac_identity(tree, values), cpu=cpu, memory=memory, battery=None)


def as_detection(
    machine: Machine, readings: Readings | None, today: date, notes: Sequence[str] = ()
) -> Detection:
    """The profile of a described machine, every figure with its source."""
    remarks = [*_remarks(machine), *machine.memory.notes, *machine.cpu.notes, *notes]
    remarks += readings.notes if readings else []
    by = f"on this machine on {today.isoformat()} by edgegauge {__version__}"
    who = machine.identity
    name = who.name or f"{'Virtual machine' if who.virtual else 'Machine'} with {machine.cpu.soc}"
    with _sane_values():
        profile = DeviceProfile(
            id=_id(name, machine.memory.total_bytes),
            name=name[:120],
            kind=who.kind,
            os=who.os,
            cpu=_cpu(machine.cpu, by),
            memory=_memory(machine.memory, readings, by),
            battery=_battery(machine.battery, by),
            notes=" ".join(remarks)[:4000] or None,
        )
    return Detection(profile=profile, machine=machine, readings=readings, notes=remarks)


def _cpu(facts: CpuFacts, by: str) -> Cpu:
    return Cpu(
        soc=facts.soc,
        core_class=facts.core_class,
        clusters=facts.clusters,
        features=facts.features,
        l2_cache_mb=round(facts.l2_bytes / MIB, 3) if facts.l2_bytes else None,
        l3_cache_mb=round(facts.l3_bytes / MIB, 3) if facts.l3_bytes else None,
        source=f"read {by}",
    )


def _memory(facts: MemoryFacts, readings: Readings | None, by: str) -> Memory:
    if facts.app_bytes < MB:
        raise EdgeGaugeError(
            f"no memory is left for an application: {facts.app_limit} is used up",
            hint="close programs or raise the limit, then detect again",
        )
    ram = Sourced(value=_gb(facts.total_bytes), source=f"all that the kernel sees, read {by}")
    app = Sourced(value=_gb(facts.app_bytes), source=f"{facts.app_limit}, read {by}")
    if readings is None:
        return Memory(ram_gb=ram, app_gb=app)
    rates = {n: round(rate, 2) for n, rate in readings.gb_per_s.items()}
    source = f"measured {by}: memchr over {readings.buffer_bytes // MIB} MiB, best window"
    return Memory(
        ram_gb=ram,
        app_gb=app,
        read_1_thread_gb_per_s=Sourced(value=rates[1], source=source) if 1 in rates else None,
        read_gb_per_s=Sourced(value=rates[max(rates)], source=source),
        read_gb_per_s_by_threads={str(n): rate for n, rate in rates.items()},
    )


def _battery(facts: BatteryFacts | None, by: str) -> Battery | None:
    if facts is None:
        return None
    capacity = Sourced(value=round(facts.capacity_wh, 1), source=f"{facts.source}, read {by}")
    if facts.health is None:
        return Battery(capacity_wh=capacity)
    return Battery(capacity_wh=capacity, health=round(facts.health, 3))


def _remarks(machine: Machine) -> list[str]:
    """What limits the meaning of the figures."""
    who = machine.identity
    remarks = []
    if who.virtual:
        remarks.append("A virtual machine: its neighbours share memory bandwidth and caches.")
    if who.container:
        remarks.append("Seen from inside a container.")
    if who.os == "android":
        remarks.append("Android may kill an application before it has used what is available.")
    return remarks


def _gb(count: int) -> float:
    """Bytes as GB with three decimals, never more than there are."""
    return int(count / GB * 1000) / 1000


def _id(name: str, total_bytes: int) -> str:
    """`raspberry-pi-5-model-b-rev-1.0-8gb`."""
    gib = total_bytes / GIB
    fitted = next((s for s in RAM_SIZES_GB if gib <= s), round(gib))
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60].strip("-.")
    return f"{slug or 'machine'}-{fitted:g}gb"


def write_profile(path: Path, profile: DeviceProfile) -> None:
    """The profile as a TOML file, written whole or not at all; EdgeGaugeError if it cannot be."""
    try:
        with atomic_write(path, "w") as stream:
            stream.write(dumps(as_document(profile)))
    except OSError as error:
        raise EdgeGaugeError(f"cannot write {path}: {error.strerror}") from None
