"""`edgegauge devices calibrate`: what the runtimes that are installed here take for each work.

edgegauge devices calibrate -o my-device.toml          # detects this machine first
edgegauge devices calibrate my-device.toml             # the calibration joins the profile
edgegauge devices calibrate my-device.toml --energy    # and what a meter says of power
edgegauge fit --device my-device.toml                  # predicts by it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from edgegauge.cli.measure_options import NO_METER
from edgegauge.cli.output import emit_json, json_option, progress, stderr, stdout, table, warn
from edgegauge.device import (
    Calibration,
    Coefficient,
    DeviceProfile,
    InferencePower,
    as_document,
    load,
)
from edgegauge.errors import EXIT_DONE, EXIT_NOT_TRUSTWORTHY, EdgeGaugeError, InputError
from edgegauge.measure.energy_run import RECORDED, EnergyOptions
from edgegauge.measure.machine import Machine
from edgegauge.measure.runtimes import Runtime
from edgegauge.units import format_bytes

SCALES = (("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9), ("ps", 1e-12))


@click.command("calibrate")
@click.argument("profile", required=False, metavar="[PROFILE.toml]")
@click.option(
    "--runtime", "runtimes", multiple=True, metavar="NAME",
    help="llama.cpp, onnxruntime or litert; may be repeated.  [default: all that are installed]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 1024), show_default="the profile's fast cores",
    help="Threads of every run; predictions by the calibration are for as many.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml",
    help="Where the profile is written.  [default: PROFILE.toml]",
)  # fmt: skip
@click.option(
    "--energy", is_flag=True,
    help="Also read a meter while models decode and read prompts: some minutes for each runtime.",
)  # fmt: skip
@click.option(
    "--meter", "meters", metavar="NAME[:ADDRESS]", multiple=True,
    help="With --energy: the meter to read; may be repeated.  [default: all that work here]",
)  # fmt: skip
@click.option(
    "--energy-seconds", type=click.FloatRange(1, 86_400),
    help="With --energy: the length of each phase.  [default: what the meter needs]",
)  # fmt: skip
@json_option
def command(
    profile: str | None, runtimes: tuple[str, ...], threads: int | None, output: Path | None,
    energy: bool, meters: tuple[str, ...], energy_seconds: float | None, as_json: bool,
) -> int:  # fmt: skip
    """Run short synthetic models here and keep what they cost in the profile.

    PROFILE.toml is what `devices detect -o` wrote on this machine; without it, the machine is
    detected first. It is rewritten whole when all is done: comments in it are lost, nothing else.
    """
    from edgegauge.calibrate import Calibrated, calibrate
    from edgegauge.detect import write_profile

    written = _place(profile, output)
    metering = _metering(energy, meters, energy_seconds)
    described = _described(profile)
    chosen = _chosen(runtimes)
    found: dict[str, Calibrated] = {}
    made: dict[str, Calibration] = {}
    for name, runtime in chosen.items():
        _say_what_it_takes(name, runtime.formats[0], described)
        with progress(f"calibrating {name}", total=1.0) as advance:
            found[name] = calibrate(
                name, runtime, described, progress=advance,
                threads=threads or described.cpu.fast_cores,
            )  # fmt: skip
        made[name] = _with_power(name, runtime, described, found[name].calibration, metering)
    joined = described.model_copy(update={"calibration": (described.calibration or {}) | made})
    if written is not None:
        write_profile(written, joined)
    _show(joined, made, as_json)
    for name, calibrated in found.items():
        for note in calibrated.notes:
            warn(f"{name}: {note}")
    if written is not None:
        stderr().print(f"written: {written}", markup=False, soft_wrap=True)
    trusted = all(calibration.trustworthy for calibration in made.values())
    return EXIT_DONE if trusted else EXIT_NOT_TRUSTWORTHY


def _chosen(runtimes: tuple[str, ...]) -> dict[str, Runtime]:
    """The runtimes to calibrate, by name; InputError where one is not installed, or none is."""
    from edgegauge.calibrate import installed_runtimes

    installed = installed_runtimes()
    names = list(dict.fromkeys(runtimes)) or list(installed)
    if absent := [name for name in names if name not in installed]:
        have = ", ".join(installed) or "none"
        raise InputError(f"not installed: {', '.join(absent)}; installed runtimes: {have}")
    if not names:
        raise InputError(
            "no runtime is installed: there is nothing to calibrate",
            hint='pip install "edgegauge[onnx]" (or gguf, tflite)',
        )
    return {name: installed[name] for name in names}


Metering = tuple[EnergyOptions, Machine]
"""Which meters are read and for how long, and where."""


def _metering(energy: bool, meters: tuple[str, ...], seconds: float | None) -> Metering | None:
    """What was asked for; None: no energy. MeasurementError at once where no meter can be read."""
    from edgegauge.calibrate_power import check_meters

    if not energy:
        if meters or seconds is not None:
            raise click.UsageError("--meter and --energy-seconds go with --energy")
        return None
    if unsuited := [name for name in meters if name in (NO_METER, RECORDED)]:
        raise click.UsageError(f"--meter {unsuited[0]} is no meter that can be read meanwhile")
    options, machine = EnergyOptions(meters=meters, seconds=seconds), Machine()
    check_meters(machine, options)
    return options, machine


def _with_power(
    name: str, runtime: Runtime, profile: DeviceProfile, calibration: Calibration,
    metering: Metering | None,
) -> Calibration:  # fmt: skip
    """The calibration with what a meter says, or said before for as many threads; without, and a
    warning, where it says nothing."""
    from edgegauge.calibrate_power import calibrate_power

    before = (profile.calibration or {}).get(name)
    if before and before.power and before.threads == calibration.threads:
        calibration = calibration.model_copy(update={"power": before.power})
    if metering is None:
        return calibration
    options, machine = metering
    with progress(f"measuring the power of {name}", total=1.0) as advance:
        found = calibrate_power(
            runtime, profile, options,
            threads=calibration.threads, machine=machine, progress=advance,
        )  # fmt: skip
    for note in found.notes:
        warn(f"{name}: {note}")
    if found.power is None:
        warn(f"{name}: no energy: {found.reason}")
        return calibration
    if not found.power.whole_device:
        warn(f"{name}: {found.power.covers} is a part of the device: no battery figures from it")
    return calibration.model_copy(update={"power": found.power})


def _place(profile: str | None, output: Path | None) -> Path | None:
    """Where the result goes; None where nobody named a file."""
    if output is not None:
        if output.suffix != ".toml":
            raise click.UsageError(f"the name of a profile ends in .toml, got {output}")
        return output
    if profile is not None and not profile.endswith(".toml"):
        raise click.UsageError(f"{profile} is a shipped profile: name a file with -o")
    return Path(profile) if profile is not None else None


def _described(profile: str | None) -> DeviceProfile:
    """The profile, which must be of this machine; detected where there is none."""
    from edgegauge.detect import describe, detect
    from edgegauge.host.tree import Tree

    if profile is None:
        stderr().print("describing this machine", soft_wrap=True)
        return detect().profile
    stated, here = load(profile), describe(Tree())
    cores = sum(cluster.count for cluster in here.cpu.clusters)
    if stated.cores != cores or stated.cpu.core_class != here.cpu.core_class:
        raise EdgeGaugeError(
            f"{stated.id} has {stated.cores} cores of class {stated.cpu.core_class}, this machine "
            f"{cores} of class {here.cpu.core_class}: a calibration belongs to the machine it was "
            "made on",
            hint="leave the profile out to have this machine described",
        )
    return stated


def _say_what_it_takes(name: str, file_format: str, profile: DeviceProfile) -> None:
    from edgegauge.calibrate import cache_of, disk_bytes

    size = format_bytes(disk_bytes(file_format, cache_of(profile)))
    note = f"{name}: models of {size} in a temporary folder, about two minutes"
    stderr().print(escape(note), soft_wrap=True)


def _show(profile: DeviceProfile, made: dict[str, Calibration], as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = as_document(profile)
        calibrations = {name: document["calibration"][name] for name in made}
        emit_json({"format": 1, "calibration": calibrations, "profile": document})
        return
    for name, calibration in made.items():
        threads = f"{calibration.threads} thread{'s' if calibration.threads > 1 else ''}"
        rows = table("cost of", "a token", "a prompt", right=("a token", "a prompt"),
                     title=f"{name} {calibration.runtime_version}, {threads}")  # fmt: skip
        for work in dict.fromkeys([*calibration.decode, *calibration.prefill]):
            decode, prefill = calibration.decode.get(work), calibration.prefill.get(work)
            rows.add_row(work, _text(decode), _text(prefill))
        spread = (calibration.decode_residual, calibration.prefill_residual)
        rows.add_row("residual", *(f"{100 * share:.1f} %" for share in spread))
        stdout().print(rows)
        if calibration.power is not None:
            stdout().print(_power_text(calibration.power), markup=False, soft_wrap=True)


def _power_text(power: InferencePower) -> str:
    """`power: 2.93 W idle + 0.37 W per decoding thread ...`, with what it is the power of."""
    parts = [f"{power.idle_w:.3g} W idle", f"{power.decode_w_per_thread:.3g} W per decoding thread"]
    if power.prefill_w_per_thread is not None:
        parts.append(f"{power.prefill_w_per_thread:.3g} W per thread that reads a prompt")
    if power.decode_nj_per_byte is not None:
        parts.append(f"{power.decode_nj_per_byte:.3g} nJ per byte from memory")
    return f"power: {', '.join(parts)} ({power.covers})"


def _text(coefficient: Coefficient | None) -> str:
    """`12.3 ± 0.4 µs`, in the unit that suits the larger of the two."""
    if coefficient is None:
        return "-"
    size = max(coefficient.value, coefficient.error)
    unit, scale = next(((u, s) for u, s in SCALES if size >= s), SCALES[-1])
    return f"{coefficient.value / scale:.3g} ± {coefficient.error / scale:.2g} {unit}"
