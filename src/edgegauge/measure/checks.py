"""What `edgegauge doctor` finds out: what can be measured here, and how well.

    for check in checks(Machine()):
        check.name, check.state, check.found, check.mend

`ok` is usable, `absent` is not there, `unsure` is there but may disturb a measurement or cannot be
seen. `mend` is the one command or action that closes the gap, None where nothing does.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

import psutil

from edgegauge.errors import MissingDependency
from edgegauge.host.tree import Tree, fields, integer
from edgegauge.measure import cpu_use, frequencies, heat, supply
from edgegauge.measure.disturbance import MOST_HOG, MOST_LOAD
from edgegauge.measure.host import usable_cores
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, find_meters
from edgegauge.measure.runtimes import GROUP, Runtime
from edgegauge.measure.throttling import COOL, SUPPLY
from edgegauge.units import KIB, MIB

State = Literal["ok", "absent", "unsure"]

EXTRAS = {
    "gguf": ("convert, measure and evaluate GGUF files", ("numpy", "gguf", "llama_cpp")),
    "onnx": ("measure ONNX files", ("numpy", "onnxruntime", "tokenizers")),
    "tflite": ("measure TFLite files", ("numpy", "ai_edge_litert", "tokenizers")),
    "report": ("the HTML report", ("altair", "jinja2", "vl_convert")),
    "hub": ("models by hf:owner/name", ("huggingface_hub",)),
}
"""Extra: what it is for, and the modules it brings."""
WARM_C = 70.0
"""Warmer than this at rest, a machine has little room before it throttles."""
MOST_SWAP_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `mend` is the command that closes the gap, if there is one."""

    name: str
    state: State
    found: str
    mend: str | None = None


def checks(machine: Machine) -> Iterator[Check]:
    """Every check, in the order a user needs them."""
    yield from _extras()
    yield from _runtimes()
    yield from _meters(machine)
    yield _memory_phases(machine.tree)
    yield _power(machine.tree)
    yield _governor(machine.tree)
    yield _turbo(machine.tree)
    yield _temperature(machine.tree)
    yield _throttling(machine.tree)
    yield _swap(machine.tree)
    yield _load(machine.tree)


def _extras() -> Iterator[Check]:
    for extra, (purpose, modules) in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        found = f"missing: {', '.join(missing)}" if missing else purpose
        mend = f'pip install "edgegauge[{extra}]"' if missing else None
        yield Check(f"extra {extra}", "absent" if missing else "ok", found, mend)


def _runtimes() -> Iterator[Check]:
    """Every registered runtime, by the name and version that it gives itself."""
    for point in entry_points(group=GROUP):
        runtime: Runtime = point.load()()
        name = f"runtime {runtime.name}"
        try:
            yield Check(name, "ok", f"version {runtime.version()}")
        except MissingDependency as missing:
            yield Check(name, "absent", "it is not installed", missing.hint)


def _meters(machine: Machine) -> Iterator[Check]:
    """One check for each source that can be read, and for each kind of meter without one."""
    found = find_meters(machine)
    for meter in found.meters:
        yield Check(f"meter {meter.facts.meter}", "ok", _source(meter))
        meter.close()
    for refusal in found.refused:
        yield Check(f"meter {refusal.meter}", "absent", refusal.reason, refusal.mend)


def _source(meter: Meter) -> str:
    facts = meter.facts
    missing = f"; not in it: {', '.join(facts.excludes)}" if facts.excludes else ""
    return f"{facts.id}, grade {facts.grade}: covers {', '.join(facts.covers)}{missing}"


def _memory_phases(tree: Tree) -> Check:
    own = tree.root / "proc/self"
    if os.access(own / "clear_refs", os.W_OK) and os.access(own / "smaps_rollup", os.R_OK):
        found = "VmHWM can be reset, smaps_rollup is readable"
        return Check("peak memory by phase", "ok", found)
    found = "no resettable VmHWM here: peaks are of the whole process"
    return Check("peak memory by phase", "unsure", found)


def _power(tree: Tree) -> Check:
    source = supply.power_source_by_command(tree)
    if source is None:
        return Check("power source", "unsure", "not visible (no battery, or it is hidden)")
    if source == "battery":
        found = "battery: many machines lower their clocks; energy can be read from it"
        return Check("power source", "unsure", found, "connect the charger, to measure speed")
    if supply.battery_saver(tree):
        found = f"{source}, with the power-saving profile"
        return Check("power source", "unsure", found, "powerprofilesctl set balanced")
    return Check("power source", "ok", source)


def _governor(tree: Tree) -> Check:
    governor = frequencies.governor(tree)
    if governor is None:
        found = "not visible (virtual machine or not Linux)"
        return Check("cpu governor", "unsure", found)
    if governor == "performance":
        return Check("cpu governor", "ok", governor)
    found = f"{governor}: short runs may be timed at low clocks"
    mend = "sudo cpupower frequency-set --governor performance"
    return Check("cpu governor", "unsure", found, mend)


def _turbo(tree: Tree) -> Check:
    on = frequencies.turbo(tree)
    if on is None:
        return Check("cpu turbo", "unsure", "not visible (virtual machine, or a CPU without)")
    if not on:
        return Check("cpu turbo", "ok", "off")
    found = "on: the first seconds run at clocks that do not last"
    return Check("cpu turbo", "unsure", found, frequencies.turbo_off(tree))


def _temperature(tree: Tree) -> Check:
    degrees = heat.temperature(tree)
    if degrees is None:
        return Check("temperature", "unsure", "not visible")
    if degrees < WARM_C:
        return Check("temperature", "ok", f"{degrees:.0f} °C")
    return Check("temperature", "unsure", f"{degrees:.0f} °C: little room to throttling", COOL)


def _throttling(tree: Tree) -> Check:
    bits, times, cooling = heat.pi_throttled(tree), heat.throttle_count(tree), heat.cooling(tree)
    if bits:
        when = "now" if bits & heat.PI_NOW else "since boot"
        mend = SUPPLY if bits & heat.PI_UNDER_VOLTAGE else COOL
        found = f"{heat.pi_words(bits)} {when} (get_throttled {bits:#x})"
        return Check("throttling", "unsure", found, mend)
    if cooling:
        found = f"the kernel holds the clock down now (cooling step {cooling})"
        return Check("throttling", "unsure", found, COOL)
    if bits is None and times is None and cooling is None:
        return Check("throttling", "unsure", "not visible")
    return Check("throttling", "ok", f"{times} times since boot" if times else "none")


def _swap(tree: Tree) -> Check:
    used = _swap_used_bytes(tree)
    if used < MOST_SWAP_BYTES:
        return Check("swap", "ok", "not in use")
    mend = "close other programs, then: sudo swapoff -a && sudo swapon -a"
    return Check("swap", "unsure", f"{used // MIB} MiB in use: a run may page", mend)


def _swap_used_bytes(tree: Tree) -> int:
    meminfo = fields(tree.text("proc/meminfo"))
    total, free = (
        integer(meminfo.get(k, "").removesuffix(" kB")) for k in ("SwapTotal", "SwapFree")
    )
    if total is None or free is None:
        return int(psutil.swap_memory().used)
    return (total - free) * KIB


def _load(tree: Tree) -> Check:
    average, hog = cpu_use.average(tree), cpu_use.busiest(tree)
    if average is None:
        return Check("other load", "unsure", "not visible")
    seen = f"load average {average:.2f}"
    if hog:
        seen += f", {hog['name']} uses {100 * hog['share']:.0f} % of a CPU"
    if average < MOST_LOAD * usable_cores(tree) and not (hog and hog["share"] > MOST_HOG):
        return Check("other load", "ok", seen)
    mend = f"stop {hog['name'] if hog else 'other programs'}, or wait until it is done"
    return Check("other load", "unsure", f"{seen}: timings will be noisy", mend)
