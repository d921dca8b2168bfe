"""`edgegauge measure`: run an artifact here, print its figures, write the result files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgegauge import device as devices
from edgegauge.artifact import Artifact, manifest_path, open_artifact
from edgegauge.cli.measure_emulate import (
    check_emulation,
    emulated,
    emulated_status,
    show_emulated,
)
from edgegauge.cli.measure_graph import check_options, measure_file, show_graph
from edgegauge.cli.measure_options import Asked, measure_options
from edgegauge.cli.measure_show import show
from edgegauge.cli.output import emit_json, json_option, progress, stderr, warn
from edgegauge.document import write_json
from edgegauge.errors import EXIT_NOT_TRUSTWORTHY, InputError, RunTimeout
from edgegauge.measure.graphs import graph_format
from edgegauge.measure.machine import Machine
from edgegauge.measure.manager import measure_grid, name_of
from edgegauge.measure.metering import battery_here, with_battery
from edgegauge.measure.results import error_of
from edgegauge.result import FailedResult, Result
from edgegauge.usage import load as load_usage

RESULTS = Path("results")


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@measure_options
@click.option(
    "--device", help="Compare memory with this device profile; the speed stays this machine's."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Result file, or a folder for several.  [default: results/<artifact>-<hash>.json]",
)
@json_option
def command(
    artifact: Path, device: str | None, output: Path | None, as_json: bool, **asked: Any
) -> int:
    """Run ARTIFACT here and record speed, latency, memory and energy.

    ARTIFACT is a model file, or a folder that holds one; an ONNX or TFLite file that is no language
    model is run on random inputs, or on --text, and an encoder in GGUF on --text. Comma lists of
    --prompt-tokens, --depth and --parallel make a grid, whose configurations take turns. The
    results are written even where the machine disturbed them; the exit status is 4 then. With
    --emulate it is 3 where the artifact does not fit the device.
    """
    profile = devices.load(device) if device else None
    wanted = Asked(**asked)
    graph = graph_of(artifact, text=wanted.text is not None)
    if graph is not None:
        return _graph(graph, wanted, output, as_json)
    check_options(click.get_current_context(), graph=False)
    check_emulation(click.get_current_context(), wanted, device=device)
    if wanted.results > 1 and output and output.suffix:
        text = f"{wanted.results} results need a folder, and {output.name} looks like a file"
        raise click.BadParameter(text, param_hint="--output")
    alone = wanted.results == 1

    def keep(result: Result | FailedResult) -> None:
        path = _place(default_name(result), output, alone=alone)
        write_json(path, result.model_dump(mode="json"))

    opened = open_artifact(artifact)
    if wanted.emulate and profile:
        results = emulated(opened, profile, wanted)
    else:
        results = _results(opened, wanted, keep)
    paths = [_place(default_name(result), output, alone=alone) for result in results]
    documents = [result.model_dump(mode="json") for result in results]
    for path, document in zip(paths, documents, strict=True):
        write_json(path, document)
    if as_json:
        emit_json(documents[0] if len(results) == 1 else {"format": 1, "results": documents})
    else:
        show(
            [result for result in results if isinstance(result, Result)],
            None if wanted.emulate else profile,
        )
        show_emulated(results)
    for warning in _warnings(results):
        warn(warning)
    for path in paths:
        stderr().print(f"result written to {path}", soft_wrap=True, markup=False)
    return _status(results)


def graph_of(path: Path, *, text: bool) -> Path | None:
    """The ONNX or TFLite file or GGUF encoder there, unless a manifest calls it a language model.

    Else None, as for a GGUF file that cannot be read: llama.cpp says why. InputError says it here
    where a manifest or a `text` to encode makes it an encoder.
    """
    if path.is_dir() or manifest_path(path).exists():
        artifact = open_artifact(path)
        path = artifact.path
        if artifact.manifest is not None:
            is_encoder = artifact.manifest.encoder is not None
            return path if is_encoder and graph_format(path) is not None else None
    try:
        return path if graph_format(path) is not None else None
    except InputError:
        if text:
            raise
        return None


def _graph(path: Path, asked: Asked, output: Path | None, as_json: bool) -> int:
    check_options(click.get_current_context(), graph=True)
    result = measure_file(path, asked)
    document = result.model_dump(mode="json")
    name = _file_name(result.graph.name, result.graph.sha256, result.workload.model_dump_json())
    written = _place(name, output, alone=True)
    write_json(written, document)
    if as_json:
        emit_json(document)
    else:
        show_graph(result)
    for warning in result.warnings:
        warn(warning)
    stderr().print(f"result written to {written}", soft_wrap=True, markup=False)
    return 0 if result.trustworthy else EXIT_NOT_TRUSTWORTHY


def _results(
    artifact: Artifact, asked: Asked, keep: Callable[[Result | FailedResult], None]
) -> list[Result | FailedResult]:
    """Measure; `keep` gets the timed results before the energy runs begin."""
    usage, machine = load_usage(asked.usage), Machine()
    workloads, text = asked.workloads()
    with progress(f"measure {artifact.name}", total=1.0) as advance:
        found = measure_grid(
            artifact,
            workloads,
            prompt_text=text,
            most_runs=asked.most_runs,
            timeout_s=asked.timeout_s,
            energy=asked.energy(),
            sustained=asked.lasting(),
            machine=machine,
            progress=advance,
            keep=keep,
        )
    battery = battery_here(machine.tree, asked.battery_wh)
    return [
        with_battery(result, battery, usage) if isinstance(result, Result) else result
        for result in found
    ]


def _warnings(results: Sequence[Result | FailedResult]) -> list[str]:
    """Each warning once; one that not all configurations have says whose it is."""
    told = []
    for result in results:
        for text in result.warnings:
            common = all(text in other.warnings for other in results)
            told.append(text if common else f"{name_of(result.workload)}: {text}")
    return list(dict.fromkeys(told))


def default_name(result: Result | FailedResult) -> str:
    """A name that another artifact, workload or emulated device does not have."""
    facts, limits = result.artifact, result.emulation.device if result.emulation else ""
    return _file_name(facts.name, str(facts.sha256), result.workload.model_dump_json() + limits)


def _file_name(name: str, sha256: str, workload: str) -> str:
    return f"{name}-{hashlib.sha256((sha256 + workload).encode()).hexdigest()[:8]}.json"


def _place(name: str, output: Path | None, *, alone: bool) -> Path:
    if output is None:
        return RESULTS / name
    return output if alone and not output.is_dir() else output / name


def _status(results: Sequence[Result | FailedResult]) -> int:
    """Prints the failures; 1 or 124 where a configuration failed, 4 for a disturbed one, else 0.

    Under emulation, running out of memory is no failure (`emulated_status`).
    """
    errors = [
        error_of(result)
        for result in results
        if isinstance(result, FailedResult) and not (result.emulation and result.emulation.verdict)
    ]
    for error in errors:
        click.echo(f"error: {error}", err=True)
    for hint in dict.fromkeys(error.hint for error in errors if error.hint):
        click.echo(f"\nhint: {hint}", err=True)
    if errors:
        late = all(isinstance(error, RunTimeout) for error in errors)
        return RunTimeout.exit_status if late else errors[0].__class__.exit_status
    if any(result.emulation for result in results):
        return emulated_status(results)
    trusted = all(isinstance(result, Result) and result.trustworthy for result in results)
    return 0 if trusted else EXIT_NOT_TRUSTWORTHY
