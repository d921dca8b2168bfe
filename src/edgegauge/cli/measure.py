"""`edgegauge measure`: run an artifact here, print its figures, write the result file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from edgegauge import device as devices
from edgegauge.artifact import open_artifact
from edgegauge.cli.output import (
    emit_json,
    json_option,
    progress,
    stderr,
    stdout,
    table,
    text_of,
    warn,
)
from edgegauge.document import write_json
from edgegauge.errors import EXIT_NOT_TRUSTWORTHY
from edgegauge.figure import Figure
from edgegauge.measure.manager import default_threads, measure
from edgegauge.result import Percentiles, Result, Workload
from edgegauge.units import format_bytes

RESULTS = Path("results")
TIMEOUT_S = 3600.0


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--prompt-tokens", type=click.IntRange(1, 1_000_000), default=128, show_default=True)
@click.option(
    "--generated-tokens", type=click.IntRange(2, 1_000_000), default=64, show_default=True
)
@click.option(
    "--depth",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    help="Tokens already in the context when the clock starts.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), show_default="the physical cores it may use"
)
@click.option(
    "--runs", type=click.IntRange(1, 1000), default=3, show_default=True, help="Child processes."
)
@click.option(
    "--repetitions",
    type=click.IntRange(1, 10_000),
    default=3,
    show_default=True,
    help="Timed rounds in each run, at least.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds that one run may take.",
)
@click.option(
    "--device", help="Compare memory with this device profile; the speed stays this machine's."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Result file.  [default: results/<artifact>-<hash>.json]",
)
@json_option
def command(
    artifact: Path,
    prompt_tokens: int,
    generated_tokens: int,
    depth: int,
    threads: int | None,
    runs: int,
    repetitions: int,
    timeout_s: float,
    device: str | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """Run ARTIFACT here and record speed, latency and memory.

    ARTIFACT is a model file, or a folder that holds one. The result is written even where the
    machine disturbed it; the exit status is 4 then.
    """  # fmt: skip
    profile = devices.load(device) if device else None
    found = open_artifact(artifact)
    workload = Workload(
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        depth=depth,
        threads=threads or default_threads(),
        runs=runs,
        repetitions=repetitions,
    )
    with progress(f"measure {found.name}", total=1.0) as advance:
        result = measure(found, workload, timeout_s=timeout_s, progress=advance)
    path = output or RESULTS / default_name(result)
    document = result.model_dump(mode="json")
    write_json(path, document)
    if as_json:
        emit_json(document)
    else:
        _show(result, profile)
    for warning in result.warnings:
        warn(warning)
    stderr().print(f"result written to {path}", soft_wrap=True, markup=False)
    return 0 if result.trustworthy else EXIT_NOT_TRUSTWORTHY


def default_name(result: Result) -> str:
    """A name that another artifact or another workload does not have."""
    asked = result.artifact.sha256 + result.workload.model_dump_json()
    return f"{result.artifact.name}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}.json"


def _show(result: Result, profile: devices.DeviceProfile | None) -> None:
    facts, load, summary = result.artifact, result.workload, result.summary
    console = stdout()
    console.print(
        f"{facts.name} ({format_bytes(facts.file_bytes)}) on {result.host['cpu_model']}, "
        f"threads: {load.threads}; {load.prompt_tokens} prompt and {load.generated_tokens} "
        f"generated tokens at depth {load.depth}",
        markup=False,
    )
    rows = table(
        "", "median", "interval", "p90", "p99", "max", right=("median", "p90", "p99", "max")
    )
    rows.add_row("prefill", *_cells(summary.prefill_tok_per_s))
    rows.add_row("decode", *_cells(summary.decode_tok_per_s))
    rows.add_row("time to first token", *_percentiles(summary.ttft_s))
    rows.add_row("between tokens", *_percentiles(summary.inter_token_s))
    rows.add_row("load", *_cells(summary.load_s))
    rows.add_row("peak memory", *_cells(summary.memory.peak_rss_bytes))
    rows.add_row("  of it anonymous", *_cells(summary.memory.peak_anonymous_bytes))
    rows.add_row("  before the model", *_cells(_baseline(result)))
    console.print(rows)
    if summary.energy_j_per_token is None:
        console.print(f"energy: - ({summary.energy_reason})", markup=False, soft_wrap=True)
    peak = summary.memory.peak_rss_bytes
    if profile and peak:
        share = 100 * peak.value / profile.app_memory_bytes
        console.print(
            f"memory on {profile.id}: {share:.0f} % of the "
            f"{format_bytes(profile.app_memory_bytes)} one application may use there",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _baseline(result: Result) -> Figure | None:
    """Resident memory of the interpreter and the libraries alone."""
    phase = result.summary.memory.phases.get("import")
    if phase is None:
        return None
    return Figure(phase.rss_bytes, "bytes", "measured", "end of the phase import")


def _cells(figure: Figure | None) -> tuple[str, str]:
    return text_of(figure), _interval(figure)


def _interval(figure: Figure | None) -> str:
    whole = text_of(figure, interval=True)
    return whole[whole.index("[") :] if "[" in whole else ""


def _percentiles(found: Percentiles | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return (*_cells(found.p50), text_of(found.p90), text_of(found.p99), text_of(found.max))
