"""What else happened on the machine: other programs, swapping, its power, its clocks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from edgegauge.measure.clock_checks import ClockOffsets, clock_findings
from edgegauge.measure.finding import Finding, State, difference, known

MOST_OTHERS = 0.10
"""Share of the machine's CPU time that other programs may use before it is worth saying."""
MOST_PEAK = 0.40
"""The same, between two states of the monitor."""
SPOILING_OTHERS = 0.25
FULL = 0.90
"""Of all CPU time in use, others' programs and ours take it from each other."""
MOST_STOLEN = 0.02
MOST_LOAD = 0.5
"""Load average per core at the start."""
MOST_HOG = 0.5
"""Of one CPU, that another process may use at the start."""
MOST_SWAPPED_PAGES = 256
"""Pages the whole system may swap in during the runs, about 1 MB, before it counts."""


def load_findings(
    before: State, after: State, during: Sequence[State], *, cores: int, own_cpu_s: float
) -> Iterator[Finding]:
    """Other programs before and during the runs, and other machines on this one's hardware."""
    yield from _busy_before(before, cores)
    first, last = before.get("cpu_ticks"), after.get("cpu_ticks")
    if not first or not last or last["all"] <= first["all"]:
        return
    everything = last["all"] - first["all"]
    busy = (last["busy"] - first["busy"]) / everything
    others = busy - own_cpu_s * os.sysconf("SC_CLK_TCK") / everything
    peak = max(known(during, "others"), default=0.0)
    if others > MOST_OTHERS or peak > MOST_PEAK:
        text = f"other programs used {100 * max(0.0, others):.0f} % of the CPU time during the runs"
        if peak > MOST_PEAK:
            text += f", up to {100 * peak:.0f} % for a while"
        mend = "stop them and measure again; `top` names them"
        yield Finding(text, others > SPOILING_OTHERS and busy > FULL, mend)
    stolen = (last["steal"] - first["steal"]) / everything
    if stolen > MOST_STOLEN:
        text = f"the hypervisor gave {100 * stolen:.0f} % of the CPU time to other machines"
        yield Finding(text, mend="use a dedicated machine")


def _busy_before(before: State, cores: int) -> Iterator[Finding]:
    load, hog = before.get("load_1min"), before.get("busiest")
    seen = []
    if load is not None and load > MOST_LOAD * cores:
        seen.append(f"load average {load:.1f}")
    if hog and (seen or hog["share"] > MOST_HOG):
        seen.append(f"{hog['name']} used {100 * hog['share']:.0f} % of a CPU")
    if seen:
        text = f"the machine was busy before the start ({'; '.join(seen)})"
        yield Finding(text, mend=f"stop {hog['name'] if hog else 'what runs'}, then measure again")


def swap_findings(before: State, after: State) -> Iterator[Finding]:
    """Pages that the whole system had to bring back."""
    if (swapped := difference(before, after, "swapped_in_pages")) > MOST_SWAPPED_PAGES:
        mend = "close other programs, or turn swap off: sudo swapoff -a"
        yield Finding(f"the system swapped in {swapped} pages during the runs", True, mend)


def power_findings(before: State, after: State, during: Sequence[State]) -> Iterator[Finding]:
    """Battery or mains, a change between the two, and a saving profile."""
    sources = set(known([before, *during, after], "power_source"))
    if len(sources) > 1:
        text = "the charger was connected or disconnected during the runs"
        yield Finding(text, True, "leave it as it is, and measure again")
    elif "battery" in sources:
        text = "running on battery, where many machines lower their clocks"
        yield Finding(text, mend="connect the charger")
    if any(known([before, after], "battery_saver")):
        yield Finding("the power-saving profile is on", mend="powerprofilesctl set balanced")
    governor = before.get("governor")
    if governor and governor != "performance":
        mend = "sudo cpupower frequency-set --governor performance"
        yield Finding(f"the CPU frequency governor is {governor}, not performance", mend=mend)


def time_findings(before: State, after: State) -> Iterator[Finding]:
    """Sleep, and steps of the wall clock."""
    first, last = before.get("clock_offsets"), after.get("clock_offsets")
    if first and last:
        for flag in clock_findings(ClockOffsets(*first), ClockOffsets(*last)):
            yield Finding(flag.text, flag.spoils)
