"""RAPL: the energy counters of Intel and AMD processors, through the kernel's powercap zones.

Two sources, each one level of a hierarchy that must never be added up: `rapl:package` is all
packages (or dies) and the memory zones beside them; `rapl:psys` is what the maker of the board
wired to the platform counter, of which packages are a part.

    package-0 (cores, graphics, memory controller)    dram    psys
    intel-rapl:0                          intel-rapl:0:2      intel-rapl:1, on most laptops

Zones are found by the name in them, never by their number. The same package shown a second time by
the memory-mapped interface (`intel-rapl-mmio:0`) is ignored, and dies that mirror one counter
(codecarbon#788) count once. A counter is 32 bits wide and starts anew several times an hour; each
reading undoes that, and a gap between readings in which it could have happened twice ends the
meter. A counter that cannot be read is an error, never 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations

from edgegauge.energy import MeterFacts
from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterLost, MeterUnusable, Reading

POWERCAP = "sys/class/powercap"
INTERFACES = ("intel-rapl", "intel-rapl-mmio")
"""Control types, best first; processors of AMD are under the first as well. Only one is used."""
PACKAGE = re.compile(r"package-[0-9]+(-die-[0-9]+)?")
MICRO = 1e-6
COUNTS = 2**32 - 1
"""The hardware counter has 32 bits (RAPL_CNTR_WIDTH of arch/x86/events/rapl.c), so the range that
the kernel tells, divided by this, is the counter's unit: 61 µJ, 15.3 µJ, or 1 J of the psys of
Sapphire Rapids (kernel commit 2d798d9f5967)."""
UPDATE_S = 1e-3
"""Background knowledge: about a millisecond, with jitter."""
MOST_W = {"package": 500.0, "psys": 3000.0}
"""No zone draws more: the largest server packages are rated 500 W."""
JITTER_S = 0.1
MIRROR_S = 0.05

READ_BY_GROUP = (
    'echo "z /sys/class/powercap/intel-rapl*/*energy*_uj 0440 root $(id -gn) -" '
    "| sudo tee /etc/tmpfiles.d/edgegauge.conf && sudo systemd-tmpfiles --create edgegauge.conf"
)
"""Lasts over a restart. For a group and not for everybody: whoever can read the counters can spy on
other programs (CVE-2020-8694), which is why the kernel keeps them for root."""

CALIBRATION = {
    "Intel": (
        0.05,
        "not calibrated: no tolerance is published; Khan et al. 2018 (RAPL in Action) find it "
        "highly correlated with power at the plug, and 5 % is allowed for",
    ),
    "AMD": (
        0.10,
        "not calibrated: AMD does not document what each domain holds (LIKWID, zen4), and its "
        "counters are taken for a model; 10 % is allowed for",
    ),
    "psys": (
        0.20,
        "not calibrated: against two laptops' batteries CodeCarbon (docs, rapl) found +31, +11 "
        "and -9 %, which is 20 % root mean square",
    ),
}
OUTSIDE = ["screen", "storage", "fans", "other chips on the board", "losses of the power supply"]


@dataclass(frozen=True, slots=True)
class _Zone:
    """One powercap zone; `number` is its place in the tree, `0` or `0:2`."""

    at: str
    number: str
    name: str

    @property
    def parent(self) -> str:
        return self.number.partition(":")[0]

    @property
    def counter(self) -> str:
        return f"{self.at}/energy_uj"

    def microjoules(self, tree: Tree) -> int | None:
        return tree.integer(self.counter)

    def range_uj(self, tree: Tree) -> int | None:
        return tree.integer(f"{self.at}/max_energy_range_uj")


class RaplKind:
    """Finds `rapl:package` and `rapl:psys`; an address picks one of them."""

    name = "rapl"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The readable ones. Raises MeterUnusable where there is none."""
        if address not in (None, "package", "psys"):
            raise MeterUnusable(
                f"there is no source {address!r}", hint="--meter rapl:package or --meter rapl:psys"
            )
        zones = _zones(machine.tree)
        if not zones:
            raise MeterUnusable(
                "no powercap zones here: not an Intel or AMD processor, or a virtual machine or "
                "container that hides them"
            )
        package, flags = _package(machine, zones)
        psys = [z for z in zones if z.name == "psys" and ":" not in z.number][:1]
        found: list[Meter] = []
        why: list[str] = []
        for level, members in (("package", package), ("psys", psys)):
            if not members or address not in (None, level):
                continue
            try:
                noted = flags if level == "package" else []
                found.append(_meter(machine, level, members, noted))
            except MeterUnusable as error:
                why.append(str(error))
        if not found:
            text = "; ".join(why) or f"no zone named {address or 'package'} in /{POWERCAP}"
            raise MeterUnusable(text, hint=READ_BY_GROUP if "not readable" in text else None)
        return found


def _zones(tree: Tree) -> list[_Zone]:
    """Zones of the first interface that shows a package, in the order of their numbers."""
    names = tree.names(POWERCAP)
    for interface in INTERFACES:
        numbers = [m[1] for n in names if (m := re.fullmatch(rf"{interface}:(\d+(?::\d+)?)", n))]
        zones = [
            _Zone(at := f"{POWERCAP}/{interface}:{n}", n, tree.text(f"{at}/name") or "")
            for n in sorted(numbers, key=lambda n: [int(part) for part in n.split(":")])
        ]
        if any(PACKAGE.fullmatch(z.name) for z in zones):
            return zones
    return []


def _package(machine: Machine, zones: list[_Zone]) -> tuple[list[_Zone], list[Flag]]:
    """Every package once, with the memory beside it, and what was left out."""
    packages: dict[str, _Zone] = {}
    for zone in zones:
        if PACKAGE.fullmatch(zone.name) and ":" not in zone.number:
            packages.setdefault(zone.name, zone)
    mirrors = _mirrors(machine, list(packages.values()))
    flags = [Flag(f"{a} shows the counter of {b}: counted once") for a, b in mirrors.items()]
    counted = [z for name, z in packages.items() if name not in mirrors]
    parents = {z.number for z in counted}
    for zone in zones:
        if zone.name != "dram" or zone.parent not in parents:
            continue
        if zone.microjoules(machine.tree) is None:
            flags.append(Flag("the memory's counter is not readable: memory is not included"))
        else:
            counted.append(zone)
    return counted, flags


def _mirrors(machine: Machine, packages: list[_Zone]) -> dict[str, str]:
    """Packages whose counter is that of an earlier one: it lies between two readings of it, twice.

    Counters of their own would have to agree to some millijoules, twice, to be taken for mirrors.
    """
    suspects = list(combinations(packages, 2))
    for _ in range(2):
        suspects = [pair for pair in suspects if _agree(machine.tree, *pair)]
        if suspects:
            machine.clock.wait(MIRROR_S)
    return {b.name: a.name for a, b in reversed(suspects)}


def _agree(tree: Tree, a: _Zone, b: _Zone) -> bool:
    first, other, last = a.microjoules(tree), b.microjoules(tree), a.microjoules(tree)
    return None not in (first, other, last) and (first or 0) <= (other or 0) <= (last or 0)


def _meter(machine: Machine, level: str, zones: list[_Zone], flags: list[Flag]) -> RaplMeter:
    """The meter of these zones. Raises MeterUnusable where one of them does not tell its energy."""
    tree = machine.tree
    for zone in zones:
        if tree.refused(zone.counter):
            raise MeterUnusable(
                f"RAPL is present but not readable: /{zone.counter} is for root only "
                "(CVE-2020-8694; open it to a group, not to everybody)"
            )
        if zone.microjoules(tree) is None:
            raise MeterUnusable(f"/{zone.counter} does not hold a whole number")
        if (zone.range_uj(tree) or 0) <= 0:
            raise MeterUnusable(f"{zone.name} does not tell the range in which its counter wraps")
    return RaplMeter(machine, level, zones, flags)


class RaplMeter:
    """The sum of some counters that do not overlap."""

    def __init__(self, machine: Machine, level: str, zones: list[_Zone], flags: list[Flag]) -> None:
        self._machine, self._level = machine, level
        self._counters = [_Counter(z, z.range_uj(machine.tree) or 0, MOST_W[level]) for z in zones]
        self._flags = flags
        self.poll_s = min(1.0, max(0.1, min(c.wraps_s for c in self._counters) / 4))
        self.facts = _facts(machine.tree, level, zones)

    def read(self) -> Reading:
        """Joules of all zones since the first reading. Raises MeterLost."""
        clock = self._machine.clock
        before = clock.now_s()
        microjoules = sum(c.read(self._machine.tree, clock.now_s()) for c in self._counters)
        after = clock.now_s()
        return Reading((before + after) / 2, microjoules * MICRO, took_s=after - before)

    def flags(self) -> list[Flag]:
        """Counters that were left out."""
        return list(self._flags)

    def close(self) -> None:
        """Nothing is kept open."""


class _Counter:
    """One zone's counter, unwrapped: whole microjoules since the first reading."""

    def __init__(self, zone: _Zone, range_uj: int, most_w: float) -> None:
        self.zone, self._range_uj, self._most_w = zone, range_uj, most_w
        self.wraps_s = range_uj * MICRO / most_w
        """No faster than this can it wrap."""
        self._last: tuple[float, int] | None = None
        self._sum = 0

    def read(self, tree: Tree, now_s: float) -> int:
        told = self.zone.microjoules(tree)
        if told is None or not 0 <= told <= self._range_uj:
            shown = repr((tree.text(self.zone.counter) or "")[:40])
            raise MeterLost(f"/{self.zone.counter} no longer tells an energy: {shown}")
        if self._last is not None:
            self._sum += self._step(told, *self._last, now_s)
        self._last = now_s, told
        return self._sum

    def _step(self, told: int, last_s: float, last: int, now_s: float) -> int:
        gap_s = now_s - last_s
        if gap_s > self.wraps_s:
            raise MeterLost(
                f"{self.zone.name} was not read for {gap_s:.1f} s, in which its counter may have "
                f"wrapped unseen (every {self.wraps_s:.1f} s at {self._most_w:.0f} W)"
            )
        step = told - last if told >= last else told - last + self._range_uj
        if step * MICRO > 2 * self._most_w * (gap_s + JITTER_S):
            raise MeterLost(
                f"the counter of {self.zone.name} jumped by {step * MICRO:.0f} J in {gap_s:.2f} s: "
                "it was reset (after a suspension, for instance)"
            )
        return step


def _facts(tree: Tree, level: str, zones: list[_Zone]) -> MeterFacts:
    maker = "AMD" if "AuthenticAMD" in (tree.text("proc/cpuinfo") or "") else "Intel"
    share, calibration = CALIBRATION["psys" if level == "psys" else maker]
    names = [z.name for z in zones]
    if level == "psys":
        covers = ["the platform, as the board's maker wired it (makers differ)"]
        excludes = ["what the maker left out, which nobody states"]
    else:
        covers = [f"{n} (cores, graphics, memory controller)" for n in names if n != "dram"]
        covers += ["memory"] if "dram" in names else []
        excludes = OUTSIDE if "dram" in names else ["memory", *OUTSIDE]
    return MeterFacts(
        meter="rapl",
        id=f"rapl:{level}",
        read_from=", ".join(f"/{z.counter}" for z in zones),
        unit="µJ",
        counter=True,
        update_period_s=UPDATE_S,
        quantum=max((z.range_uj(tree) or 0) * MICRO / COUNTS for z in zones),
        calibration_share=share,
        calibration=calibration,
        grade="C" if level == "psys" else "B",
        whole_device=False,
        covers=covers,
        excludes=excludes,
    )
