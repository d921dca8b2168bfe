"""`edgegauge measure --device ID --emulate`: the run under the device's limits, and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import click
from click.core import ParameterSource

from edgegauge.artifact import Artifact
from edgegauge.cli.measure_options import NO_METER, Asked
from edgegauge.cli.output import progress, stdout, text_of
from edgegauge.device import DeviceProfile
from edgegauge.emulate.boundary import find_boundary
from edgegauge.emulate.emulator import Emulator
from edgegauge.emulate.judge import measure_emulated
from edgegauge.emulation import Boundary, Emulation, Expected
from edgegauge.errors import EXIT_BROKEN_BUDGET, EXIT_DONE, EXIT_NOT_TRUSTWORTHY
from edgegauge.figure import Figure
from edgegauge.measure.manager import name_of
from edgegauge.result import FailedResult, Result
from edgegauge.units import format_bytes

OF_ENERGY = ("meters", "energy_seconds", "usage", "battery_wh")
OF_RATES = ("sustained", "most_runs")


def check_emulation(context: click.Context, asked: Asked, *, device: str | None) -> None:
    """Raise UsageError for options that do not go together with these."""
    if asked.find_limit and not asked.emulate:
        raise click.UsageError("--find-limit needs --emulate")
    if not asked.emulate:
        return
    if device is None:
        raise click.UsageError("--emulate needs --device: whose limits?")
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if name in OF_ENERGY and not (name == "meters" and asked.meters == (NO_METER,)):
            why = "there are no joules under emulation, for this host's power is not the device's"
        elif name in OF_RATES:
            why = "rates under emulation are this host's, not the device's"
        else:
            continue
        raise click.UsageError(f"{parameter.opts[0]} cannot be combined with --emulate: {why}")


def emulated(
    artifact: Artifact, profile: DeviceProfile, asked: Asked
) -> list[Result | FailedResult]:
    """Measure under the limits of the device."""
    emulator = Emulator(profile, artifact)
    workloads, text = replace(asked, threads=asked.threads or emulator.threads()).workloads()
    with progress(f"emulate {artifact.name} on {profile.id}", total=1.0) as advance:
        results = measure_emulated(
            emulator, workloads, prompt_text=text, timeout_s=asked.timeout_s, progress=advance
        )
        if not asked.find_limit:
            return results
        return [
            _with_boundary(
                result,
                find_boundary(
                    emulator, result.workload, prompt_text=text,
                    say=lambda note: advance(1.0, f"limit of {note}"),
                ),
            )
            for result in results
        ]  # fmt: skip


def _with_boundary(result: Result | FailedResult, found: Boundary) -> Result | FailedResult:
    assert result.emulation
    emulation = result.emulation.model_copy(update={"boundary": found})
    return result.model_copy(update={"emulation": emulation})


def show_emulated(results: Sequence[Result | FailedResult]) -> None:
    """Print the verdict of each, and what stands behind it."""
    for result in results:
        if result.emulation:
            for line in _lines(result.emulation, name_of(result.workload)):
                stdout().print(line, markup=False, soft_wrap=True)


def _lines(found: Emulation, workload: str) -> Iterator[str]:
    verdict = found.verdict or "cannot tell"
    yield (
        f"emulated {found.device}, {workload}: {verdict} in {text_of(found.memory_bytes)} "
        f"on {found.cores} core{'s' if found.cores > 1 else ''} ({found.enforced_by})"
    )
    yield f"  {found.reason}"
    for name, figure in (
        ("charged at most", found.peak_bytes),
        ("re-read after eviction", found.refaulted_bytes),
    ):
        if figure:
            yield f"  {name}: {text_of(figure)}"
    if found.boundary:
        yield from _boundary(found.boundary, found.expected, found.libraries_bytes)
    if found.expected is None:
        yield "  no prediction: the shape of this model, or of this workload, is not known"
        return
    expects = found.expected
    yield (
        f"  predicted: {expects.outcome} with {text_of(expects.needed_bytes, interval=True)} on "
        f"this processor, {expects.device_outcome} on that of the device"
    )
    if expects.decode_tok_per_s is None:
        return
    yield (
        "  predicted for the device from its profile alone: "
        f"decode {text_of(expects.decode_tok_per_s, interval=True)}, "
        f"prefill {text_of(expects.prefill_tok_per_s, interval=True)}, "
        f"first token {text_of(expects.ttft_s, interval=True)}; "
        "the rates measured here are this host's"
    )


def _boundary(found: Boundary, expects: Expected | None, libraries: int) -> Iterator[str]:
    """Both limits; the libraries' pages count in the second too, as the emulated limit has them."""
    for name, figure, predicted in (
        ("fits", found.fits_bytes, expects.needed_bytes.value if expects else None),
        (
            "does not die",
            found.survives_bytes,
            expects.anonymous_bytes.value + libraries if expects else None,
        ),
    ):
        yield f"  smallest memory in which it {name}: {_compared(figure, predicted)}"


def _compared(figure: Figure | None, predicted: float | None) -> str:
    if figure is None:
        return "more than this host has"
    text = text_of(figure, interval=True)
    if predicted is None:
        return text
    error = predicted / figure.value - 1
    side = "too much" if error > 0 else "too little"
    return f"{text}, predicted ~{format_bytes(predicted)} ({100 * abs(error):.1f} % {side})"


def emulated_status(results: Sequence[Result | FailedResult]) -> int:
    """3 where a configuration does not fit, 4 where the limits do not tell, else 0.

    What disturbed the rates does not count: they are not the device's.
    """
    found = [result.emulation for result in results if result.emulation]
    if any(one.verdict in ("thrashes", "out of memory") for one in found):
        return EXIT_BROKEN_BUDGET
    unsure = any(one.verdict is None or one.whole is False for one in found)
    return EXIT_NOT_TRUSTWORTHY if unsure else EXIT_DONE
