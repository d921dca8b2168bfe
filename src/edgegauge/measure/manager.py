"""The parent of a measurement: checks that it can be done, runs the children, makes the result.

    result = measure(open_artifact(path), Workload(threads=default_threads()))
    result.summary.decode_tok_per_s

One child process per run, one after the other; the parent waits in a blocking read meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import psutil
from pydantic import ValidationError

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.errors import InputError, MeasurementError
from edgegauge.host.memory import linux_memory
from edgegauge.host.tree import Tree
from edgegauge.measure import child, host, trust, worker
from edgegauge.measure.facts import artifact_facts, digest_of, spec_of
from edgegauge.measure.runtimes import Runtime, runtime_for
from edgegauge.measure.summary import rates_of, summarise
from edgegauge.result import Result, Run, Tool, Workload
from edgegauge.units import format_bytes

MODULE = "edgegauge.measure.worker"
"""What a child runs; tests put a stand-in here."""

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done, between runs only."""


def measure(
    artifact: Artifact,
    workload: Workload,
    *,
    runtime: Runtime | None = None,
    timeout_s: float | None = None,
    progress: Progress = lambda done, note: None,
) -> Result:
    """Run the artifact `workload.runs` times; `timeout_s` limits each run.

    Raises InputError for an artifact that differs from its manifest or that the runtime refuses,
    RunTimeout for a run that takes too long, and MeasurementError where a run fails or the model
    cannot fit this machine's memory. A disturbed measurement is a result with `trustworthy` false.
    """
    runtime = runtime or runtime_for(artifact.file_format)
    tool = Tool(edgegauge=__version__, runtime=runtime.name, runtime_version=runtime.version())
    tree = Tree()
    warnings = [*check_memory(artifact, workload, tree), *_check_context(artifact, workload)]
    progress(0.0, "hashing the artifact")
    digest = digest_of(artifact)
    before, cpu_before = host.state(tree), _children_cpu_s()
    runs = []
    for index in range(workload.runs):
        progress(index / workload.runs, f"run {index + 1} of {workload.runs}")
        runs.append(_one_run(runtime, artifact, workload, timeout_s))
    after, own_cpu_s = host.state(tree), _children_cpu_s() - cpu_before
    findings = [
        *trust.of_runs(runs, rates_of(runs, workload)),
        *trust.of_host(before, after, cores=host.usable_cores(tree), own_cpu_s=own_cpu_s),
    ]
    facts = runs[0].runtime_facts
    return Result(
        tool=tool,
        artifact=artifact_facts(artifact, digest, facts),
        host={**host.machine(tree), "before": before, "after": after},
        workload=workload,
        samples=runs,
        summary=summarise(
            runs, workload, facts.get("source", f"{tool.runtime} {tool.runtime_version}")
        ),
        warnings=[*warnings, *(str(finding) for finding in findings)],
        trustworthy=not any(finding.spoils for finding in findings),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def default_threads() -> int:
    """Physical cores that this process may use."""
    return host.usable_cores(Tree())


def check_memory(artifact: Artifact, workload: Workload, tree: Tree) -> list[str]:
    """Warnings about memory; MeasurementError where the artifact exceeds the machine's.

    Compared are the file and the key/value cache. Repacked weights can add the file's size once
    more, so a warning is no exaggeration.
    """
    memory = linux_memory(tree)
    total = memory.total_bytes if memory else psutil.virtual_memory().total
    room = memory.app_bytes if memory else psutil.virtual_memory().available
    spec = spec_of(artifact)
    cache = round(spec.kv_cache_bytes(workload.context)) if spec else 0
    needed = artifact.path.stat().st_size + cache
    text = f"{artifact.path.name} needs {format_bytes(needed)} for weights and key/value cache"
    if needed > total:
        raise MeasurementError(
            f"{text}, more than the {format_bytes(total)} of this machine",
            hint="use a smaller model, fewer bits or a shorter context; "
            "`edgegauge fit` tells what fits before anything is loaded",
        )
    if needed > room:
        limit = memory.app_limit if memory else "available memory"
        return [f"{text}, but only {format_bytes(room)} are free ({limit}): expect re-reading"]
    return []


def _check_context(artifact: Artifact, workload: Workload) -> list[str]:
    spec = spec_of(artifact)
    if spec is None or workload.context <= spec.context:
        return []
    text = f"{workload.context} tokens are more than the {spec.context} of {spec.id}'s context"
    return [f"{text}: the figures hold, but the model's answers there would not"]


def _one_run(
    runtime: Runtime, artifact: Artifact, workload: Workload, timeout_s: float | None
) -> Run:
    job = worker.job(runtime, artifact.path.absolute(), workload.model_dump())
    doing = "starting"
    try:
        with child.start(MODULE, job, timeout_s=timeout_s) as messages:
            for message in messages:
                if "run" in message:
                    return Run.model_validate(message["run"])
                doing = f"in the phase {message.get('phase')!r}"
    except ValidationError as error:
        raise MeasurementError(f"the child's result makes no sense: {error}") from None
    except InputError:
        raise
    except MeasurementError as error:
        raise type(error)(f"{artifact.path.name}, {doing}: {error}", hint=error.hint) from None
    raise MeasurementError(f"{artifact.path.name}, {doing}: the child ended without a result")


def _children_cpu_s() -> float:
    """CPU time of all children that have been waited for."""
    times = psutil.Process().cpu_times()
    return float(getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0))
