"""`edgegauge devices calibrate-meter`: fit a sampled meter to one that a person reads.

    edgegauge devices calibrate-meter pi5 -o raw.toml      # watch your USB-C meter meanwhile
    edgegauge devices calibrate-meter pi5 --raw raw.toml \\
        --point idle=3.1 --point load=9.8 -o pi5.toml
    edgegauge measure ARTIFACT --meter pi5:pi5.toml

The first call holds each state and averages the meter; nothing asks for input while it runs. The
second puts what was read off the other meter beside it. `--point` on the first call does both, for
those who know the board's power in each state already.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
from rich.markup import escape

from edgegauge.cli.output import emit_json, json_option, stderr, stdout
from edgegauge.document import atomic_write, parse, read_toml
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters.pi5 import pi5_meter
from edgegauge.measure.meters.pi5_calibration import (
    Pi5Calibration,
    Point,
    RawPoints,
    averaged,
    busy_cores,
)
from edgegauge.measure.turn import turn
from edgegauge.toml import dumps

STATES = ("idle", "load")
SETTLE_S = 10
"""In a new state before the first sample: clocks, the fan and the meter's display follow."""

Points = TypeVar("Points", bound=RawPoints)


@click.command("calibrate-meter")
@click.argument("meter", type=click.Choice(["pi5"]))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml",
    required=True, help="The calibration, or the raw sums where no --point is given.",
)  # fmt: skip
@click.option(
    "--state", "states", multiple=True, metavar="NAME",
    help="idle, load (all cores busy) or load-N (N cores); in this order. Default: idle, load.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.IntRange(10, 3600), default=50, show_default=True,
    help="Samples of each state, one a second.",
)  # fmt: skip
@click.option(
    "--raw", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml",
    help="Measure nothing: take the raw sums from an earlier call.",
)  # fmt: skip
@click.option(
    "--point", "points", multiple=True, metavar="NAME=WATTS",
    help="What your meter showed in that state; one for each state.",
)  # fmt: skip
@json_option
def command(
    meter: str, output: Path, states: tuple[str, ...], seconds: int, raw: Path | None,
    points: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Fit a meter of this board to a USB-C meter that you read.

    The first call holds idle and full load while you read your meter; the second, with --raw and
    a --point for each state, writes the file for `--meter pi5:FILE.toml`.
    """
    if raw is not None and states:
        raise click.UsageError("--raw has its states already; leave out --state")
    metered = _metered(points)
    busy = _busy(states or tuple(metered) or STATES)  # before minutes of measuring
    if raw is None and metered and set(metered) != set(busy):
        raise click.UsageError(f"--point is needed for each of {', '.join(busy)}, and no other")
    found = read_toml(raw, RawPoints) if raw is not None else _measure(busy, seconds)
    if not metered:
        _write(output, found)
        _show(found, as_json)
        _say(f"written: {output}; now give what your meter showed:\n  {_next(found, output)}")
        return
    made = _completed(found, metered)
    _write(output, made)
    _show(made, as_json)
    _say(f"written: {output}; use it with: edgegauge measure ARTIFACT --meter {meter}:{output}")


def _metered(points: tuple[str, ...]) -> dict[str, float]:
    """`NAME=WATTS` options by name."""
    metered = {}
    for point in points:
        name, _, value = point.partition("=")
        if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,6})?", value) or name in metered:
            raise click.UsageError(f"--point takes NAME=WATTS, each name once, got {point!r}")
        metered[name] = float(value)
    return metered


def _busy(states: tuple[str, ...]) -> dict[str, int]:
    """Busy cores of each state, in order."""
    cores = os.cpu_count() or 1
    busy = {}
    for state in states:
        match = re.fullmatch(r"idle|load(?:-([1-9][0-9]?))?", state)
        if not match:
            raise click.UsageError(f"a state is idle, load or load-N, got {state!r}")
        busy[state] = 0 if state == "idle" else int(match[1] or cores)
    if len(busy) < 2 or len(set(busy.values())) < len(states):
        raise click.UsageError("a line needs two or more states that differ")
    return busy


@turn()
def _measure(busy: dict[str, int], seconds: int) -> RawPoints:
    """Hold each state and average the rails."""
    machine = Machine()
    source = pi5_meter(machine)
    points: list[Point] = []
    for state, cores in busy.items():
        what = f"{cores} busy cores" if cores else "idle"
        _say(f"{state}: {what} for {SETTLE_S + seconds} s; read your meter now, note its mean")
        with busy_cores(cores, machine.clock.real_s(SETTLE_S + seconds) + SETTLE_S):
            machine.clock.wait(SETTLE_S)
            points.append(averaged(state, source, machine.clock, seconds))
    return RawPoints(
        board=machine.tree.text("proc/device-tree/model") or "unknown",
        created=datetime.now(UTC).date().isoformat(),
        points=points,
    )


def _completed(found: RawPoints, metered: dict[str, float]) -> Pi5Calibration:
    names = [point.name for point in found.points]
    if set(names) != set(metered):
        raise click.UsageError(f"--point is needed for each of {', '.join(names)}, and no other")
    points = [{**p.model_dump(), "metered_w": metered[p.name]} for p in found.points]
    return parse({**found.model_dump(), "points": points}, Pi5Calibration, "the points")


def _write(path: Path, points: RawPoints) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(dumps(points.model_dump(exclude_none=True)))


def _next(found: RawPoints, raw: Path) -> str:
    points = " ".join(f"--point {p.name}=WATTS" for p in found.points)
    return f"edgegauge devices calibrate-meter pi5 --raw {raw} {points} -o {raw.stem}-fit.toml"


def _show(found: RawPoints, as_json: bool) -> None:
    fit = found.fit() if isinstance(found, Pi5Calibration) else None
    if as_json:
        document = found.model_dump()
        if isinstance(found, Pi5Calibration) and fit is not None:
            document["fit"] = {
                "slope": fit.slope, "offset_w": fit.offset_w, "points": len(found.points),
                "r_squared": found.r_squared(), "residual_w": found.residual_w(),
            }  # fmt: skip
        emit_json(document)
        return
    for p in found.points:
        metered = "" if p.metered_w is None else f", metered {p.metered_w:g} W"
        line = f"{p.name}: rails {p.raw_w:.3f} ± {p.raw_se_w:.3f} W ({p.samples} samples){metered}"
        stdout().print(line, markup=False, soft_wrap=True)
    if isinstance(found, Pi5Calibration) and fit is not None:
        line = f"board = {fit.slope:.4f} x rails {fit.offset_w:+.4f} W: {found.described()}"
        stdout().print(line, markup=False, soft_wrap=True)


def _say(text: str) -> None:
    stderr().print(escape(text), soft_wrap=True)
