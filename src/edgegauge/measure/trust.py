"""What could have spoiled a measurement: findings from the host's state and from the runs.

A finding that `spoils` makes the result not trustworthy: the machine throttled, swapped, re-read
the model from storage, or the rounds scatter too much. Others are worth knowing and no more. Each
names the one command or action that mends it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgegauge.measure.statistics import Centre
from edgegauge.result import Run

PI_NOW = 0xF
MOST_SPREAD = 0.10
"""Widest interval of a rate's median, as a share of it, that still counts as one figure."""
MOST_OTHERS = 0.10
"""Share of the machine's CPU time that other programs may use before it is worth saying."""
MOST_STOLEN = 0.02
MOST_LOAD = 0.5
"""Load average per core at the start."""
MOST_SWAPPED_PAGES = 256
"""Pages the whole system may swap in during the runs, about 1 MB, before it counts."""
MOST_MAJOR_FAULTS = 10
"""Pages per run read from storage after an untimed round that touched them all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, whether it spoils the figures, and what mends it."""

    text: str
    spoils: bool = False
    mend: str | None = None

    def __str__(self) -> str:
        return f"{self.text}; {self.mend}" if self.mend else self.text


def of_host(
    before: dict[str, Any], after: dict[str, Any], *, cores: int, own_cpu_s: float
) -> Iterator[Finding]:
    """Findings from two states of `host.state`; `own_cpu_s` is the CPU time of the children."""
    yield from _heat(before, after)
    yield from _others(before, after, cores=cores, own_cpu_s=own_cpu_s)
    if (swapped := _difference(before, after, "swapped_in_pages")) > MOST_SWAPPED_PAGES:
        mend = "close other programs, or turn swap off: sudo swapoff -a"
        yield Finding(f"the system swapped in {swapped} pages during the runs", True, mend)
    governor = before["governor"]
    if governor and governor != "performance":
        mend = "sudo cpupower frequency-set --governor performance"
        yield Finding(f"the CPU frequency governor is {governor}, not performance", mend=mend)
    if "battery" in (before["power_source"], after["power_source"]):
        text = "running on battery, where many machines lower their clocks"
        yield Finding(text, mend="connect the charger")


def of_runs(runs: list[Run], rates: dict[str, Centre]) -> Iterator[Finding]:
    """Findings from the runs themselves; `rates` are the medians over rounds, by their name."""
    swap = max((p.swap_bytes or 0 for r in runs for p in r.phases.values()), default=0)
    if swap:
        mend = "use a smaller artifact, or free memory"
        yield Finding(f"{swap} bytes of the model's process were swapped out", True, mend)
    faults = max((r.major_faults or 0 for r in runs), default=0)
    if faults > MOST_MAJOR_FAULTS:
        text = f"{faults} pages were re-read from storage in the timed rounds of one run"
        yield Finding(text, True, "the model does not stay in memory: free some")
    for name, rate in rates.items():
        if rate.spread > MOST_SPREAD:
            text = f"{name} scatters by {100 * rate.spread:.0f} % over {rate.samples} rounds"
            mend = "stop other programs, or measure longer with --repetitions"
            yield Finding(text, True, mend)
    rounds = sum(len(run.rounds) for run in runs)
    if rounds < 6:
        text = f"only {rounds} rounds: intervals are ranges, not confidence intervals"
        yield Finding(text, mend="--runs 3 --repetitions 3 gives nine")


def _heat(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Finding]:
    mend = "let it cool down, add a fan or a heat sink, and measure again"
    if (times := _difference(before, after, "throttle_count")) > 0:
        yield Finding(f"the processor throttled for heat {times} times", True, mend)
    bits = after["pi_throttled"]
    if bits is not None and bits & PI_NOW:
        yield Finding(f"the Raspberry Pi is throttled now (get_throttled {bits:#x})", True, mend)
    elif bits is not None and bits != before["pi_throttled"]:
        text = f"the Raspberry Pi was throttled meanwhile (get_throttled {bits:#x})"
        yield Finding(text, True, "check its power supply and cooling")


def _others(
    before: dict[str, Any], after: dict[str, Any], *, cores: int, own_cpu_s: float
) -> Iterator[Finding]:
    load = before["load_1min"]
    if load is not None and load > MOST_LOAD * cores:
        yield Finding(f"the machine was busy before the start (load average {load:.1f})")
    first, last = before["cpu_ticks"], after["cpu_ticks"]
    if not first or not last or last["all"] <= first["all"]:
        return
    everything = last["all"] - first["all"]
    own = own_cpu_s * os.sysconf("SC_CLK_TCK")
    others = (last["busy"] - first["busy"] - own) / everything
    if others > MOST_OTHERS:
        text = f"other programs used {100 * others:.0f} % of the CPU time during the runs"
        yield Finding(text, mend="stop them and measure again")
    stolen = (last["steal"] - first["steal"]) / everything
    if stolen > MOST_STOLEN:
        text = f"the hypervisor gave {100 * stolen:.0f} % of the CPU time to other machines"
        yield Finding(text, mend="use a dedicated machine")


def _difference(before: dict[str, Any], after: dict[str, Any], key: str) -> int:
    """How far a counter went; 0 where it is unknown."""
    if before[key] is None or after[key] is None:
        return 0
    return int(after[key] - before[key])
