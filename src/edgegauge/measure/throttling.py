"""Did the machine slow itself down? Evidence from the states before, during and after the runs.

Any of these is evidence, and spoils a burst measurement; of a sustained one it is the subject:

    throttle_count   thermal_throttle of an x86 kernel counted on
    cooling          the kernel held a CPU's clock down (a cooling device above its step before)
    pi_throttled     a bit of now was set in any state, or a bit of "since boot" was set meanwhile;
                     one of since boot that was set before tells nothing about these runs
    mhz              the fastest CPU's clock, while the model ran, was below 80 % of one that it had
                     held for three states, and stayed there for three
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgegauge.measure import heat
from edgegauge.measure.finding import Finding, State, difference, known

HELD = 3
"""States: a clock seen in fewer is a moment between two runs."""
LEAST_CLOCK = 0.8
LOADED = 0.5
"""Of the largest share of CPU time that we had in any state: with less, the model did not run."""
LEAST_OWN = 0.02
HOT_C = 90.0
"""Most processors lower their clocks 5 to 15 degrees above this."""
COOL = "let it cool down, add a fan or a heat sink, and measure again"
SUPPLY = "use the power supply that its maker names, on a short cable"


def throttle_findings(
    before: State, after: State, during: Sequence[State], *, sustained: bool
) -> Iterator[Finding]:
    """Every sign of throttling, else the temperature if it was near to it."""
    found = [
        *_counted(before, after),
        *_cooled(before, [*during, after]),
        *_pi(before, after, during),
        *_slower(before, during),
    ]
    for finding in found:
        yield Finding(finding.text, finding.spoils and not sustained, finding.mend)
    hottest = max(known([before, *during, after], "temperature_c"), default=0.0)
    if not found and hottest >= HOT_C:
        text = f"the machine reached {hottest:.0f} °C: a longer run may throttle"
        yield Finding(text, mend="add a fan, or see --sustained")


def _counted(before: State, after: State) -> Iterator[Finding]:
    if (times := difference(before, after, "throttle_count")) > 0:
        yield Finding(f"the processor throttled for heat {times} times", True, COOL)


def _cooled(before: State, states: Sequence[State]) -> Iterator[Finding]:
    step = max(known(states, "cooling"), default=0)
    if step > (before.get("cooling") or 0):
        text = f"the kernel lowered the processor's clock for heat (cooling step {step})"
        yield Finding(text, True, COOL)


def _pi(before: State, after: State, during: Sequence[State]) -> Iterator[Finding]:
    states = [before, *during, after]
    now = since_boot = 0
    for bits in known(states, "pi_throttled"):
        now |= bits & heat.PI_NOW
        since_boot |= bits & heat.PI_SINCE_BOOT
    meanwhile = since_boot & ~(before.get("pi_throttled") or 0)
    for bits, when in ((now, "seen"), (meanwhile & ~(now << 16), "since the start")):
        if bits:
            under_voltage = bits & heat.PI_UNDER_VOLTAGE
            text = f"the Raspberry Pi reported {heat.pi_words(bits)} ({when}, bits {bits:#x})"
            yield Finding(text, True, SUPPLY if under_voltage else COOL)


def _slower(before: State, during: Sequence[State]) -> Iterator[Finding]:
    most = max(known(during, "own"), default=0.0)
    if most < LEAST_OWN:
        return
    loaded = [s["mhz"][1] for s in during if s.get("own", 0.0) >= LOADED * most and s.get("mhz")]
    if len(loaded) < 2 * HELD:
        return
    held = sorted(loaded)[-HELD]
    low = [mhz for mhz in loaded if mhz < LEAST_CLOCK * held]
    if len(low) >= HELD:
        text = f"the processor's clock fell from {held:.0f} to {min(low):.0f} MHz during the runs"
        yield Finding(text, True, before.get("turbo_off") or COOL)
