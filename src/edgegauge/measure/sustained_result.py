"""The sustained result: one more run of a configuration, decoding until its rate is steady.

Burst and sustained are two results because heat makes them two speeds. This one has the burst
result's workload with `mode` sustained; its decode rate is the plateau, None where the time ran out
before there was one. Its memory and load time were not read, for which the burst result stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from edgegauge.measure import host, trust
from edgegauge.measure.child import HINTS, Message
from edgegauge.measure.failures import described
from edgegauge.measure.finding import Finding
from edgegauge.measure.metering import Metering, with_energy
from edgegauge.measure.results import children_cpu_s, now
from edgegauge.measure.steadiness import SustainedOptions
from edgegauge.measure.summary import summarise
from edgegauge.measure.sustained import SustainedOutcome, measure_sustained
from edgegauge.result import FailedResult, MemorySummary, Result, Run, Summary
from edgegauge.units import format_seconds

Progress = Callable[[float, str], None]


def sustained_result(
    burst: Result,
    job: Message,
    options: SustainedOptions,
    metering: Metering,
    progress: Progress,
) -> Result | FailedResult:
    """Run the job of a burst result until its rate is steady; raises InputError."""
    machine, tree = metering.machine, metering.machine.tree
    rate = burst.summary.decode_tok_per_s
    energy, found = metering.ready()
    before, cpu_before = host.state(tree), children_cpu_s()
    outcome = measure_sustained(
        job, machine, options=options, found=found, progress=progress,
        source=rate.source if rate else burst.tool.runtime, timeout_s=metering.timeout_s,
        **({"energy": energy} if energy else {}),
    )  # fmt: skip
    after, own_cpu_s = host.state(tree), children_cpu_s() - cpu_before
    common: dict[str, Any] = {
        "tool": burst.tool,
        "artifact": burst.artifact,
        "workload": burst.workload.model_copy(update={"mode": "sustained", "runs": 1}),
        "host": {
            **burst.host, "before": before, "during": outcome.states, "after": after,
            "overhead": outcome.overhead,
        },
        "created": now(),
    }  # fmt: skip
    if outcome.sustained is None:
        return FailedResult(**common, failures=outcome.failures)
    findings = [
        *_of_outcome(outcome, burst.artifact.name, options),
        *trust.of_host(
            before, after, during=outcome.states, cores=host.usable_cores(tree),
            own_cpu_s=own_cpu_s, sustained=True,
        ),
    ]  # fmt: skip
    made = Result(
        **common,
        samples=[Run(load_s=None, rounds=outcome.rounds, phases={})],
        failures=outcome.failures,
        summary=_summary(burst, outcome),
        warnings=[str(finding) for finding in findings],
        trustworthy=not any(finding.spoils for finding in findings),
    )
    return made if energy is None else with_energy(made, outcome.energy, told=False)


def _summary(burst: Result, outcome: SustainedOutcome) -> Summary:
    """The figures of all rounds, with the plateau as the decode rate."""
    assert outcome.sustained is not None  # the caller has looked
    rate = burst.summary.decode_tok_per_s
    runs = [Run(load_s=None, rounds=outcome.rounds, phases={})]
    found = summarise(runs, burst.workload, rate.source if rate else burst.tool.runtime)
    unread = MemorySummary(peak_rss_bytes=None, peak_anonymous_bytes=None, peak_file_bytes=None)
    return found.model_copy(
        update={
            "decode_tok_per_s": outcome.sustained.plateau_tok_per_s,
            "sustained": outcome.sustained,
            "memory": unread,
        }
    )


def _of_outcome(
    outcome: SustainedOutcome, name: str, options: SustainedOptions
) -> Iterator[Finding]:
    for failure in outcome.failures:
        yield Finding(
            f"the sustained run failed: {described(name, failure)}", True, HINTS[failure.kind]
        )
    if outcome.rounds_seen > len(outcome.rounds):
        kept = f"{len(outcome.rounds)} of {outcome.rounds_seen} rounds, evenly chosen, are stored"
        yield Finding(f"{kept}; the rates are those of all")
    if outcome.sustained and outcome.sustained.plateau_tok_per_s is None:
        text = f"the rate was not steady after {format_seconds(options.most_s)}"
        yield Finding(
            text, True, "let the device cool down, stop other programs, and measure again"
        )
