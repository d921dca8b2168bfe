"""`edgegauge energy`: joules for a result from what an external meter recorded beside the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgegauge.cli.output import emit_json, json_option, stderr, stdout, table, text_of, warn
from edgegauge.document import read_json, write_json
from edgegauge.energy import Energy, Window, best_of
from edgegauge.errors import InputError
from edgegauge.measure.align import Alignment, NotAligned, by_clock, by_edges
from edgegauge.measure.joules import energy_of
from edgegauge.measure.meter_file import Recording, read_recording
from edgegauge.measure.meter_formats import FORMATS
from edgegauge.result import Result

HOW = "measure with `edgegauge measure ARTIFACT --meter file` while the meter records"
MAX_EDGES = 64
MAX_S = 1e12
PLACEHOLDERS = ("recording", "file")


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "wanted", type=click.Choice(["auto", *FORMATS]), default="auto", show_default=True
)
@click.option(
    "--volts",
    type=click.FloatRange(0, 1000, min_open=True),
    help="Voltage of a file without that column; replaces one that is there.",
)
@click.option(
    "--align",
    type=click.Choice(["auto", "clock", "edges"]),
    default="auto",
    show_default=True,
    help="Place the recording by absolute times or by the run's load edges.",
)
@click.option(
    "--accuracy",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="Standard uncertainty of the meter, from its certificate or data sheet.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="New result file.  [default: <result>-energy.json]",
)
@json_option
def command(
    result: Path,
    file: Path,
    wanted: str,
    volts: float | None,
    align: str,
    accuracy: float | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Add to RESULT the energy that an external meter recorded in FILE.

    RESULT comes from `edgegauge measure --meter file`. FILE is a Joulescope statistics file, a
    PPK2, Monsoon or fnirsi_logger file, or any CSV whose columns name a time and a power.
    """
    old = read_json(result, Result)
    windows = _windows(old, result)
    recording = read_recording(file, wanted, volts, None if accuracy is None else accuracy / 100)
    placed = _placed(recording, old, align)
    _check_reach(recording, placed, windows)
    energy = energy_of(recording.recorded(placed), windows)
    new = with_energy(old, energy)
    path = output or result.with_name(f"{result.stem}-energy.json")
    document = new.model_dump(mode="json")
    write_json(path, document)
    if as_json:
        emit_json(document)
    else:
        _show(energy)
    for flag in energy.flags:
        warn(flag)
    if energy.reason:
        warn(f"no energy per token: {energy.reason}")
    stderr().print(f"result written to {path}", soft_wrap=True, markup=False)


def with_energy(result: Result, energy: Energy) -> Result:
    """The result with that energy in place of its placeholder, and the summary of the best."""
    others = [e for e in result.energy if e.source.meter not in PLACEHOLDERS]
    every = [energy, *others] if energy.source.whole_device else [*others, energy]
    best = best_of(every, lambda e: e.decode_j_per_token) or energy
    summary = result.summary.model_copy(
        update={
            "energy_j_per_token": best.decode_j_per_token,
            "energy_reason": None if best.decode_j_per_token else best.reason,
        }
    )
    return result.model_copy(update={"energy": every, "summary": summary})


def _windows(result: Result, path: Path) -> list[Window]:
    """The windows of the run, without the joules of any other source."""
    entries = sorted(result.energy, key=lambda e: e.source.meter not in PLACEHOLDERS)
    for entry in entries:
        if entry.windows:
            return [
                Window(phase=w.phase, start_s=w.start_s, end_s=w.end_s, tokens=w.tokens)
                for w in entry.windows
            ]
    raise InputError(f"no energy run is in this result @ {path}", hint=HOW)


def _placed(recording: Recording, result: Result, align: str) -> Alignment:
    """The recording on the clock of the run; InputError with both reasons where that fails."""
    facts = result.host.get("energy_run")
    facts = facts if isinstance(facts, dict) else {}
    reasons: list[str] = []
    if align in ("auto", "edges"):
        try:
            return by_edges(recording.trace, _edges(facts), recording.facts.update_period_s)
        except NotAligned as error:
            reasons.append(f"by load edges: {error}")
    if align in ("auto", "clock"):
        try:
            placed = by_clock(recording.since_1970_s, _number(facts.get("monotonic_to_unix_s")))
            return replace(placed, note="; ".join([placed.note, *reasons]))
        except NotAligned as error:
            reasons.append(f"by clock: {error}")
    raise InputError(f"cannot place {recording.path} in the run", reasons, hint=HOW)


def _edges(facts: dict[str, Any]) -> list[tuple[float, float]]:
    pairs = facts.get("edges")
    found = []
    for pair in pairs[:MAX_EDGES] if isinstance(pairs, list) else []:
        start_s, end_s = map(_number, pair) if isinstance(pair, list) and len(pair) == 2 else (0, 0)
        if start_s is not None and end_s is not None and start_s < end_s:
            found.append((start_s, end_s))
    return found


def _number(value: Any) -> float | None:
    """A time that can be one; a result file may hold anything there."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < MAX_S else None


def _check_reach(recording: Recording, placed: Alignment, windows: list[Window]) -> None:
    """InputError where the recording and the run do not overlap at all."""
    start_s, end_s = placed.run_s(0.0), placed.run_s(recording.trace.seconds)
    if all(w.end_s <= start_s or w.start_s >= end_s for w in windows):
        off_s = start_s - windows[0].start_s
        raise InputError(
            f"{recording.path} begins {abs(off_s):.0f} s {'after' if off_s > 0 else 'before'} the "
            f"run and lasts {recording.trace.seconds:.0f} s: it holds nothing of it",
            hint="give the recording of this run; or place it with --align edges",
        )


def _show(energy: Energy) -> None:
    console = stdout()
    source = energy.source
    console.print(
        f"{source.read_from}: grade {source.grade}, "
        f"± {100 * source.calibration_share:.2g} % ({source.calibration})",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    rows = table("phase", "power", "total", "interval", "net", right=("power", "total", "net"))
    rows.add_row("idle before", text_of(energy.idle_before_w))
    shown = (
        ("prefill", energy.prefill_w, energy.prefill_j_per_token, energy.net_prefill_j_per_token),
        ("decode", energy.decode_w, energy.decode_j_per_token, energy.net_decode_j_per_token),
        ("inference", energy.inference_w, energy.j_per_inference, energy.net_j_per_inference),
    )
    for name, power, total, net in shown:
        if any(w.phase == name for w in energy.windows):
            whole = text_of(total, interval=True)
            interval = whole[whole.index("[") :] if "[" in whole else ""
            rows.add_row(name, text_of(power), text_of(total), interval, text_of(net))
    rows.add_row("idle after", text_of(energy.idle_after_w))
    console.print(rows)
    terms = ", ".join(f"{name} {100 * share:.2g} %" for name, share in energy.terms.items())
    if terms:
        console.print(f"uncertainty (standard): {terms}", markup=False, soft_wrap=True)
