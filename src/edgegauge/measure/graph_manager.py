"""Measuring a graph that is not a language model: the parent of `measure.graph_worker`.

    result = measure_graph(Path("detector.onnx"), GraphWorkload(threads=2))
    result.summary.latency_s.p50

One child process per run, one after the other, as for language models (`measure.manager`); a run
that fails is told in the result. Latencies of one run resemble each other, so the medians of the
runs decide whether the figure repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from edgegauge import __version__
from edgegauge.artifact import sha256_of
from edgegauge.energy import best_of
from edgegauge.errors import InputError
from edgegauge.graph_result import (
    GraphFacts,
    GraphResult,
    GraphRun,
    GraphSummary,
    GraphWorkload,
)
from edgegauge.measure import host, trust
from edgegauge.measure.child import Message
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.finding import Finding
from edgegauge.measure.graphs import TEXT_ONLY, graph_format, graph_runtime_for
from edgegauge.measure.machine import Machine
from edgegauge.measure.memory import settle_file
from edgegauge.measure.memory_outcome import outcome
from edgegauge.measure.metering import Metering, notes_of
from edgegauge.measure.monitor import Monitor
from edgegauge.measure.results import children_cpu_s, error_from, failed_findings, now
from edgegauge.measure.series import attempt_as
from edgegauge.measure.statistics import centre, repeatability
from edgegauge.measure.summary import figure_of, memory_of, percentiles_of
from edgegauge.measure.turn import turn
from edgegauge.result import Failure, Tool

MODULE = "edgegauge.measure.graph_worker"
"""What a child runs; tests put a stand-in here."""

Progress = Callable[[float, str], None]


@turn()
def measure_graph(
    path: Path,
    workload: GraphWorkload,
    *,
    text: str | None = None,
    timeout_s: float | None = None,
    energy: EnergyOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = lambda done, note: None,
) -> GraphResult:
    """Run the graph in `workload.runs` children; `text` is what `workload.text` names.

    Raises InputError for a file or inputs that cannot be used, and where no run ended well
    MeasurementError, or RunTimeout if all were too late. A disturbed measurement has `trustworthy`
    false.
    """
    machine = machine or Machine()
    file_format = _format(path, text)
    runtime = graph_runtime_for(file_format)
    tool = Tool(edgegauge=__version__, runtime=runtime.name, runtime_version=runtime.version())
    metering = Metering(energy, machine, timeout_s)
    progress(0.0, "hashing the file")
    digest = sha256_of(path)
    for part in _parts(path):
        settle_file(part)
    job = graph_job(path, file_format, workload, text)
    tried = _Tried()
    facts, findings = tried.execute(job, workload.runs, machine, timeout_s, progress)
    runs = tried.runs
    if not runs:
        raise error_from(path.name, tried.failures)
    failed = failed_findings(path.name, tried.failures, len(runs) + len(tried.failures))
    findings = [*failed, *_scatter(runs), *findings]
    result = GraphResult(
        tool=tool,
        graph=_facts(path, file_format, digest, runs[0]),
        host=facts,
        workload=workload,
        samples=runs,
        failures=tried.failures,
        summary=summarise_graph(runs),
        warnings=[str(finding) for finding in findings],
        trustworthy=not any(finding.spoils for finding in findings),
        created=now(),
    )
    return _with_energy(result, metering, job, progress)


def _format(path: Path, text: str | None) -> str:
    file_format = graph_format(path)
    if file_format is None or not path.is_file():
        raise InputError(f"no such ONNX or TFLite file or GGUF encoder: {path}")
    if file_format == TEXT_ONLY and text is None:
        raise InputError(
            f"{path.name} is an encoder, which turns texts into vectors: it needs texts",
            hint="give a file of one text per line: --text FILE",
        )
    return file_format


@dataclass(slots=True)
class _Tried:
    """The runs of one call."""

    runs: list[GraphRun] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def execute(
        self,
        job: Message,
        runs: int,
        machine: Machine,
        timeout_s: float | None,
        progress: Progress,
    ) -> tuple[dict[str, Any], list[Finding]]:
        """Do all runs, none after a late one; the facts of the host, and what disturbed them."""
        tree = machine.tree
        before, cpu_before = host.state(tree), children_cpu_s()
        with Monitor(tree, machine.clock) as monitor:
            for index in range(runs):
                progress(index / runs, f"run {index + 1} of {runs}")
                found = attempt_as(GraphRun, MODULE, job, index, tree=tree, timeout_s=timeout_s)
                if isinstance(found, GraphRun):
                    self.runs.append(found)
                    continue
                self.failures.append(found)
                if found.kind == "timeout":
                    break
            own_cpu_s = children_cpu_s() - cpu_before
        after, cores = host.state(tree), host.usable_cores(tree)
        states = {"before": before, "during": monitor.states, "after": after}
        findings = trust.of_host(
            before, after, during=monitor.states, cores=cores, own_cpu_s=own_cpu_s
        )
        facts = host.machine(tree) | states | {"overhead": monitor.overhead}
        return facts, list(findings)


def graph_job(path: Path, file_format: str, workload: GraphWorkload, text: str | None) -> Message:
    """The job document of `graph_worker`, and of `block_worker` for an energy run."""
    return {
        "format": file_format,
        "path": str(path.absolute()),
        "text": text,
        "workload": workload.model_dump(mode="json"),
    }


def summarise_graph(runs: Sequence[GraphRun]) -> GraphSummary:
    """The figures of at least one run.

    inferences_per_s is the number of inferences over the sum of their latencies, a value per run;
    tokens_per_s counts the tokens of the texts instead.
    """
    source = str(runs[0].runtime_facts.get("source", "the runtime"))
    pooled = list(chain.from_iterable(run.latencies_s for run in runs))
    spent = [math.fsum(run.latencies_s) for run in runs]
    rates = [len(run.latencies_s) / s for run, s in zip(runs, spent, strict=True)]
    tokens = [sum(r.tokens) / s for r, s in zip(runs, spent, strict=True) if r.tokens]
    memory = memory_of(runs)
    return GraphSummary(
        latency_s=percentiles_of(pooled, source),
        inferences_per_s=figure_of(centre(rates), "1/s", source),
        tokens_per_s=figure_of(centre(tokens), "tok/s", source) if tokens else None,
        load_s=figure_of(centre([run.load_s for run in runs]), "s", source),
        memory=memory.model_copy(update={"outcome": outcome(runs)}),
    )


def _facts(path: Path, file_format: str, digest: str, run: GraphRun) -> GraphFacts:
    return GraphFacts.model_validate(
        {
            "name": path.stem,
            "format": file_format,
            "file_bytes": sum(part.stat().st_size for part in _parts(path)),
            "sha256": digest,
            "inputs": run.runtime_facts.get("inputs", {}),
            "outputs": run.runtime_facts.get("outputs", {}),
        }
    )


def _parts(path: Path) -> list[Path]:
    """The file and its external data, which lies beside it under names that only the file tells;
    what the usual exporters write is `<name>.data` or `<name>_data`."""
    beside = [path.with_name(path.name + end) for end in (".data", "_data")]
    return [path, *(part for part in beside if part.is_file())]


def _scatter(runs: Sequence[GraphRun]) -> Iterator[Finding]:
    """As for decoding: with three runs, their medians must agree; else it can only be said."""
    if len(runs) < trust.LEAST_RUNS:
        yield Finding(f"only {len(runs)} runs: nothing tells whether the figures repeat")
        return
    half = repeatability([median(run.latencies_s) for run in runs])
    if half is not None and half > trust.REPEATABLE:
        more = min(trust.MOST_RUNS, math.ceil(len(runs) * (half / trust.REPEATABLE) ** 2))
        text = f"the latency is known to ±{100 * half:.1f} % only: two calls may differ by more"
        yield Finding(
            f"{text} than 2 %", True, f"stop other programs, or measure with --runs {more}"
        )


def _with_energy(
    result: GraphResult, metering: Metering, job: Message, progress: Progress
) -> GraphResult:
    """The result with the energy per inference, where a meter gives one."""
    measured = metering.measure(job, progress, ("inference",))
    if measured is None:
        return result
    best = best_of(measured.energies, lambda e: e.j_per_inference)
    figure = best.j_per_inference if best else None
    reason = None if figure else measured.reason or (best.reason if best else None)
    summary = result.summary.model_copy(update={"j_per_inference": figure, "energy_reason": reason})
    return result.model_copy(
        update={
            "energy": measured.energies,
            "summary": summary,
            "host": result.host | ({"energy_run": measured.facts} if measured.facts else {}),
            "warnings": [*result.warnings, *notes_of(result.graph.name, measured)],
        }
    )
