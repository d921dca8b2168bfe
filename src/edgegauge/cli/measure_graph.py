"""`edgegauge measure` on an ONNX or TFLite file that is no language model, or a GGUF encoder."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from edgegauge.cli.measure_options import Asked
from edgegauge.cli.measure_show import cells, percentiles, source_lines
from edgegauge.cli.output import progress, stdout, table
from edgegauge.graph_result import GraphResult, GraphWorkload
from edgegauge.measure.graph_manager import measure_graph
from edgegauge.measure.host import default_threads
from edgegauge.measure.prompt import read_prompt
from edgegauge.units import format_bytes

NOT_FOR_GRAPHS = (
    "prompt_tokens", "generated_tokens", "depth", "parallel", "prompt", "most_runs", "repetitions",
    "sustained", "usage", "battery_wh", "device", "emulate", "find_limit",
)  # fmt: skip
FOR_GRAPHS = ("text", "shape", "inferences")


def check_options(context: click.Context, *, graph: bool) -> None:
    """Raise UsageError for options that were given but mean nothing for this kind of file."""
    useless = NOT_FOR_GRAPHS if graph else FOR_GRAPHS
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in useless and context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            kind = "a graph that is no language model" if graph else "a language model"
            raise click.UsageError(f"{parameter.opts[0]} means nothing for {kind}")


def shapes_of(given: tuple[str, ...]) -> dict[str, list[int]]:
    """Shapes from `NAME=1,3,224,224`; raises BadParameter."""
    found: dict[str, list[int]] = {}
    for text in given:
        name, mark, sizes = text.rpartition("=")
        parts = [part.strip() for part in sizes.split(",")]
        if not mark or not name or not all(p.isdecimal() and len(p) < 10 for p in parts):
            raise click.BadParameter(f"{text!r}: expected NAME=N,N,...", param_hint="--shape")
        found[name] = [int(p) for p in parts]
    return found


def measure_file(path: Path, asked: Asked) -> GraphResult:
    """Measure the graph as the options say."""
    source, text = read_prompt(asked.text) if asked.text else (None, None)
    workload = GraphWorkload(
        threads=asked.threads or default_threads(),
        runs=asked.runs,
        inferences=asked.inferences,
        shapes=shapes_of(asked.shape),
        text=source,
    )
    with progress(f"measure {path.stem}", total=1.0) as advance:
        return measure_graph(
            path,
            workload,
            text=text,
            timeout_s=asked.timeout_s,
            energy=asked.energy(),
            progress=advance,
        )


def show_graph(result: GraphResult) -> None:
    """Print the figures."""
    graph, summary, console = result.graph, result.summary, stdout()
    fed = result.workload.text.name if result.workload.text else "random values"
    console.print(
        f"{graph.name} ({format_bytes(graph.file_bytes)}) on {result.host['cpu_model']}, "
        f"threads: {result.workload.threads}; {result.tool.runtime} "
        f"{result.tool.runtime_version}; fed with {fed}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    for name, spec in graph.inputs.items():
        console.print(f"  {name}: {spec}", markup=False, soft_wrap=True)
    columns = ("median", "p90", "p99", "max")
    rows = table("", "median", "interval", "p90", "p99", "max", right=columns)
    rows.add_row("latency", *percentiles(summary.latency_s))
    rows.add_row("inferences", *cells(summary.inferences_per_s))
    if summary.tokens_per_s:
        rows.add_row("tokens", *cells(summary.tokens_per_s))
    rows.add_row("load", *cells(summary.load_s))
    rows.add_row("peak memory", *cells(summary.memory.peak_rss_bytes))
    rows.add_row("  of it anonymous", *cells(summary.memory.peak_anonymous_bytes))
    console.print(rows)
    for line in _energy(result):
        console.print(line, markup=False, soft_wrap=True)


def _energy(result: GraphResult) -> list[str]:
    if not result.energy:
        asked = result.summary.energy_reason
        reason = "no meter could be read; `edgegauge doctor` says why" if asked else "not asked for"
        return [f"energy: - ({reason})"]
    return [line for energy in result.energy for line in source_lines(energy, "")]
