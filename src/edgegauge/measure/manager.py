"""The parent of a measurement: checks that it can be done, runs the children, makes the results.

    result = measure(open_artifact(path), Workload(threads=default_threads()))
    result.summary.decode_tok_per_s

    results = measure_grid(artifact, grid(base, prompt_tokens=[128, 512], depth=[0, 1024]))

One child process per run, one after the other; configurations take turns (`series`). The parent
waits in a blocking read meanwhile, and looks at the machine once a second (`monitor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import psutil

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.errors import MeasurementError
from edgegauge.host.memory import linux_memory
from edgegauge.host.tree import Tree
from edgegauge.measure import host, trust, worker
from edgegauge.measure.child import Message
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.facts import digest_of, spec_of
from edgegauge.measure.machine import Machine
from edgegauge.measure.memory import settle_file
from edgegauge.measure.metering import Metering
from edgegauge.measure.monitor import Monitor
from edgegauge.measure.results import Circumstances, children_cpu_s, error_of, result_of
from edgegauge.measure.runtimes import Runtime, runtime_for
from edgegauge.measure.series import Attempt, Series, attempt, turns
from edgegauge.measure.steadiness import SustainedOptions
from edgegauge.measure.sustained_result import sustained_result
from edgegauge.measure.turn import turn
from edgegauge.memory import cache_bytes
from edgegauge.result import FailedResult, Failure, Result, Run, Tool, Workload
from edgegauge.units import format_bytes

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done, between runs only."""


def measure(
    artifact: Artifact,
    workload: Workload,
    *,
    runtime: Runtime | None = None,
    prompt_text: str | None = None,
    most_runs: int | None = None,
    timeout_s: float | None = None,
    energy: EnergyOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = lambda done, note: None,
) -> Result:
    """Run the artifact `workload.runs` times or more; `measure_grid` with one configuration.

    Raises what `measure_grid` does, and RunTimeout or MeasurementError where no run ended well.
    """
    (found,) = measure_grid(
        artifact, [workload], runtime=runtime, prompt_text=prompt_text, most_runs=most_runs,
        timeout_s=timeout_s, energy=energy, machine=machine, progress=progress,
    )  # fmt: skip
    if isinstance(found, FailedResult):
        raise error_of(found)
    return found


@turn()
def measure_grid(
    artifact: Artifact,
    workloads: Sequence[Workload],
    *,
    runtime: Runtime | None = None,
    prompt_text: str | None = None,
    most_runs: int | None = None,
    timeout_s: float | None = None,
    energy: EnergyOptions | None = None,
    sustained: SustainedOptions | None = None,
    machine: Machine | None = None,
    attempt: Attempt = attempt,
    progress: Progress = lambda done, note: None,
    keep: Callable[[Result | FailedResult], None] = lambda result: None,
) -> list[Result | FailedResult]:
    """Measure the artifact under each workload, in turns; one result for each, in their order.

    A configuration has its `runs` child processes, and up to `most_runs` (None: no more) until they
    agree. `timeout_s` limits each of them. `prompt_text` is the text behind `Workload.prompt`;
    None: random tokens. `attempt` is what runs one child. With `energy`, an energy run follows for
    each configuration that ran, if the machine has a meter. With `sustained`, the result of each is
    followed by one of decoding until the rate was steady (`sustained_result`). `keep` gets the
    results of the timed runs before those minutes begin, which may be interrupted.

    A run that fails is told in the result; a disturbed measurement has `trustworthy` false. Raises
    InputError for an artifact that differs from its manifest or that the runtime refuses, and
    MeasurementError where the model cannot fit this machine's memory.
    """
    machine = machine or Machine()
    runtime = runtime or runtime_for(artifact.file_format)
    tool = Tool(edgegauge=__version__, runtime=runtime.name, runtime_version=runtime.version())
    warnings = [
        [*check_memory(artifact, load, machine.tree), *_check_context(artifact, load)]
        for load in workloads
    ]
    metering = Metering(energy, machine, timeout_s)
    progress(0.0, "hashing the artifact")
    digest = digest_of(artifact)
    settle_file(artifact.path)
    path = artifact.path.absolute()
    series = [
        Series(load, worker.job(runtime, path, load.model_dump(), prompt_text), most_runs or 0)
        for load in workloads
    ]
    run = partial(attempt, tree=machine.tree, timeout_s=timeout_s)
    shared = _execute(series, artifact, digest, tool, machine, run, progress)
    timed = [result_of(one, shared, told) for one, told in zip(series, warnings, strict=True)]
    for result in timed:
        keep(result)
    return list(_with_the_minutes(series, timed, metering, sustained, progress))


def _with_the_minutes(
    series: Sequence[Series],
    timed: Sequence[Result | FailedResult],
    metering: Metering,
    sustained: SustainedOptions | None,
    progress: Progress,
) -> Iterator[Result | FailedResult]:
    """Each result with its energy, and after it the sustained one where that was asked for."""
    for one, result in zip(series, timed, strict=True):
        made = metering.add(result, one.job, progress)
        yield made
        if sustained and isinstance(made, Result):
            yield sustained_result(made, one.job, sustained, metering, progress)


def _execute(
    series: Sequence[Series],
    artifact: Artifact,
    digest: str,
    tool: Tool,
    machine: Machine,
    run: Callable[[Message, int], Run | Failure],
    progress: Progress,
) -> Circumstances:
    """Do all runs; the series keep what they found, and what was around them is returned."""
    tree = machine.tree
    before, cpu_before = host.state(tree), children_cpu_s()
    with Monitor(tree, machine.clock) as monitor:
        for one, index in turns(series):
            progress(*_note(series, one))
            one.keep(run(one.job, index))
        after, own_cpu_s = host.state(tree), children_cpu_s() - cpu_before
    findings = trust.of_host(
        before, after, during=monitor.states, cores=host.usable_cores(tree), own_cpu_s=own_cpu_s
    )
    return Circumstances(
        artifact=artifact,
        digest=digest,
        tool=tool,
        host={
            **host.machine(tree), "before": before, "during": monitor.states, "after": after,
            "overhead": monitor.overhead,
        },
        findings=list(findings),
        refaulted_pages=_refaulted(before, after) if len(series) == 1 else None,
    )  # fmt: skip


def grid(
    base: Workload,
    *,
    prompt_tokens: Sequence[int] = (),
    depth: Sequence[int] = (),
    parallel: Sequence[int] = (),
) -> list[Workload]:
    """`base` with every combination of these values; what is empty stays as it is."""
    axes = [
        prompt_tokens or [base.prompt_tokens],
        depth or [base.depth],
        parallel or [base.parallel],
    ]
    return [
        base.model_copy(update={"prompt_tokens": p, "depth": d, "parallel": n})
        for p, d, n in dict.fromkeys(product(*axes))
    ]


def check_memory(artifact: Artifact, workload: Workload, tree: Tree) -> list[str]:
    """Warnings about memory; MeasurementError where the artifact exceeds what a process can have.

    Compared are the file and the key/value cache. Repacked weights can add the file's size once
    more, so a warning is no exaggeration.
    """
    memory = linux_memory(tree)
    ceiling = memory.ceiling_bytes if memory else psutil.virtual_memory().total
    room = memory.app_bytes if memory else psutil.virtual_memory().available
    needed = artifact.bytes + _cache_bytes(artifact, workload)
    text = f"{artifact.path.name} needs {format_bytes(needed)} for weights and key/value cache"
    if needed > ceiling:
        raise MeasurementError(
            f"{text}, more than the {format_bytes(ceiling)} that a process can have here",
            hint="use a smaller model, fewer bits or a shorter context; "
            "`edgegauge fit` tells what fits before anything is loaded",
        )
    if needed > room:
        limit = memory.app_limit if memory else "available memory"
        return [f"{text}, but only {format_bytes(room)} are free ({limit}): expect re-reading"]
    return []


def _cache_bytes(artifact: Artifact, workload: Workload) -> int:
    """Bytes of keys and values as the format's runtime keeps them; 0 for a model nobody knows."""
    manifest, spec = artifact.manifest, spec_of(artifact)
    if manifest is not None and manifest.cache_bytes is not None:
        return manifest.cache_bytes  # sequences take turns in it
    if spec is None:
        return 0
    return workload.parallel * cache_bytes(spec, workload.context, artifact.file_format)


def _check_context(artifact: Artifact, workload: Workload) -> list[str]:
    spec = spec_of(artifact)
    if spec is None or workload.context <= spec.context:
        return []
    text = f"{workload.context} tokens are more than the {spec.context} of {spec.id}'s context"
    return [f"{text}: the figures hold, but the model's answers there would not"]


def _note(series: Sequence[Series], now: Series) -> tuple[float, str]:
    """The share of the runs that are done, and which one is next."""
    done = sum(one.tried for one in series)
    least = sum(one.workload.runs for one in series)
    number, runs = now.tried + 1, now.workload.runs
    text = f"run {number} of {runs if number <= runs else f'at most {now.most_runs}'}"
    if len(series) > 1:
        text = f"{name_of(now.workload)}, {text}"
    return done / max(least, done + 1), text


def name_of(workload: Workload) -> str:
    """A configuration of a grid in a few words: `128 tokens at depth 1024, 4 in parallel`."""
    parallel = f", {workload.parallel} in parallel" if workload.parallel > 1 else ""
    lasting = ", sustained" if workload.mode == "sustained" else ""
    return f"{workload.prompt_tokens} tokens at depth {workload.depth}{parallel}{lasting}"


def _refaulted(before: dict[str, object], after: dict[str, object]) -> int | None:
    first, last = before.get("refaulted_pages"), after.get("refaulted_pages")
    return last - first if isinstance(first, int) and isinstance(last, int) else None
