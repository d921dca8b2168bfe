"""Recorded power files: what another meter wrote while the run went on, as a trace in watts.

    recording = read_recording(Path("run.csv"), volts=3.7)
    recording.trace.seconds                      # its own clock starts at 0
    recording.recorded(alignment)                # on the clock of the run, for `energy_of`

A file is read line by line and thinned while it is read, so its size does not matter up to 8 GiB.
What is wrong in it is an InputError with path and line; a last line without its end was cut off
and is left out. Each instrument has its trap:

- Joulescope's energy only grows, so it is differenced.
- PyMonsoon writes seconds under `Time(ms)`; whichever gives a possible rate and length is taken.
- Rows of one USB packet have one time (Monsoon): they are spread over the time since the last.
- fnirsi_logger's times go back between packets: rows are counted, 10 ms each, and the count
  follows the times slowly.
- PPK2 has no voltage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO

from edgegauge.energy import Grade, MeterFacts
from edgegauge.errors import InputError
from edgegauge.measure.align import Alignment
from edgegauge.measure.meter_formats import FORMATS, Layout, layout_of
from edgegauge.measure.meters import Flag, Reading
from edgegauge.measure.recorder import Recorded
from edgegauge.measure.trace import Thinner, Trace

MAX_FILE_BYTES = 8 * 1024**3
MAX_LINE = 4096
MAX_HEADER_LINES = 50
MAX_PACKET_ROWS = 100_000
MOST_READINGS = 100_000
SINCE_1970 = (1e9, 4e9)
"""Seconds from 2001 to 2096: a time in there is absolute."""

BACKWARDS = 0.01
"""Share of energy that may flow backwards: noise at idle does, swapped leads do far more."""

GRADE_A = 0.01
UNKNOWN_SHARE = 0.05
SHARES = {"ppk2": (0.12, "Nordic's product page: better than 20 %, taken as a rectangle")}
"""Standard uncertainty by format where `--accuracy` is not given; others: `UNKNOWN_SHARE`."""

MILLI = 1e-3
MONSOON_HZ = 5000.0
MONSOON_MIN_S = 60.0
FNIRSI_STEP_S = 0.01
FNIRSI_LOST_S = 0.5
FNIRSI_BACK_S = 5.0
FNIRSI_FOLLOW = 250.0
"""Packets over which the count follows the host's times (10 s)."""


@dataclass(frozen=True)
class Recording:
    """A recorded file; its trace starts at second 0."""

    path: Path
    format: str
    facts: MeterFacts
    trace: Trace
    rows: int
    since_1970_s: float | None
    """When it started, where its times are absolute."""
    notes: list[str] = field(default_factory=list)

    def recorded(self, alignment: Alignment) -> Recorded:
        """Its readings on the clock of the run."""
        trace = self.trace.thinned(MOST_READINGS)
        # `took_s` is what `integrate` charges for not knowing when a reading was taken.
        took_s = alignment.uncertainty_s * math.sqrt(3)
        # Noise may let an accumulator fall by a hair; readings of a counter never do.
        values = accumulate(trace.value, max) if trace.counter else trace.value
        readings = [
            Reading(alignment.run_s(t), value, took_s, span * alignment.rate)
            for t, value, span in zip(trace.t_s, values, trace.span_s, strict=True)
        ]
        flags = [Flag(note) for note in (*self.notes, alignment.note)]
        return Recorded(self.facts, readings, flags)


def read_recording(
    path: Path, wanted: str = "auto", volts: float | None = None, accuracy: float | None = None
) -> Recording:
    """Read a recorded power file.

    `wanted` is `auto` or one of `FORMATS`; `volts` replaces (or stands in for) a voltage column;
    `accuracy` is the instrument's standard uncertainty as a share. Raises InputError.
    """
    notes: list[str] = []
    thinner, layout = _read(path, wanted, volts, notes)
    trace = thinner.trace()
    if thinner.rows < 3 or trace.seconds <= 0:
        raise InputError(f"{thinner.rows} rows are no recording @ {path}")
    if layout.format == "monsoon":
        trace = _monsoon_seconds(trace, thinner.rows, path, notes)
    _check_direction(trace, path)
    first = trace.t_s[0]
    period_s = max(trace.seconds / (thinner.rows - 1), 1e-6)
    absolute = SINCE_1970[0] < first < SINCE_1970[1]
    return Recording(
        path=path,
        format=layout.format,
        facts=_facts(path, layout, period_s, accuracy),
        trace=trace.from_zero(),
        rows=thinner.rows,
        since_1970_s=first if absolute else None,
        notes=notes,
    )


def _read(path: Path, wanted: str, volts: float | None, notes: list[str]) -> tuple[Thinner, Layout]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(
                f"{size / 1e9:.0f} GB are more than is read @ {path}",
                hint="export it with fewer samples per second, or only the time of the run",
            )
        with path.open("r", encoding="utf-8-sig", errors="replace") as stream:
            return _parse(stream, path, wanted, volts, notes)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _parse(
    stream: IO[str], path: Path, wanted: str, volts: float | None, notes: list[str]
) -> tuple[Thinner, Layout]:
    lines = _lines(stream, path)
    layout = _layout(lines, path, wanted, volts)
    rows = _rows(lines, layout, path)
    thinner = Thinner(layout.counter)
    timed = _count_packets(rows, path, notes) if layout.sample else _spread(rows, path)
    for t_s, value in timed:
        thinner.add(t_s, value)
    return thinner, layout


def _lines(stream: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that were written to their end."""
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InputError(f"line {number}: longer than {MAX_LINE} characters @ {path}")
        if line[-1] == "\n":
            yield number, line


def _layout(
    lines: Iterator[tuple[int, str]], path: Path, wanted: str, volts: float | None
) -> Layout:
    for number, line in lines:
        try:
            found = layout_of(line, wanted, volts)
        except InputError as error:
            raise InputError(f"{error} @ {path}", hint=error.hint) from None
        if found is not None:
            return found
        if number >= MAX_HEADER_LINES:
            break
    kind = "power file" if wanted == "auto" else f"{wanted} file"
    raise InputError(
        f"no header of a {kind} in the first {MAX_HEADER_LINES} lines @ {path}",
        hint="name the columns, for example: time_s,power_w"
        if wanted in ("auto", "csv")
        else f"formats: {', '.join(FORMATS)}",
    )


_Row = tuple[int, float, float, int]
"""Line, seconds, watts (joules), and whether a packet begins (1) with it."""


def _rows(lines: Iterable[tuple[int, str]], layout: Layout, path: Path) -> Iterator[_Row]:
    plain, delimiter, width = layout.plain_row(), layout.delimiter, layout.width
    order, begins = layout.sample.index if layout.sample else None, 0
    for number, line in lines:
        fields = line.split(delimiter, width)
        try:
            t_s, value = plain(fields)
        except (ValueError, IndexError):
            if not line.strip() or line.lstrip()[0] == "#":
                continue
            try:
                t_s, value = layout.row(fields)
            except ValueError as error:
                raise InputError(f"line {number}: {error} @ {path}") from None
        if order is not None:
            begins = int(fields[order].strip() == "0")
        yield number, t_s, value, begins


def _spread(rows: Iterable[_Row], path: Path) -> Iterator[tuple[float, float]]:
    """Rows that share one time, spread evenly over the time since the one before."""
    packet: list[float] = []
    at_s = last_s = math.nan
    for line, t_s, value, _ in rows:
        if t_s != at_s:
            if t_s < at_s:
                raise _goes_back(line, at_s - t_s, path)
            if len(packet) == 1:
                yield at_s, packet[0]
            else:
                yield from _packet(packet, at_s, last_s)
            packet, last_s, at_s = [], at_s, t_s
        packet.append(value)
        if len(packet) > MAX_PACKET_ROWS:
            raise InputError(f"line {line}: {MAX_PACKET_ROWS} rows of one time @ {path}")
    yield from _packet(packet, at_s, last_s)


def _goes_back(line: int, by_s: float, path: Path) -> InputError:
    return InputError(
        f"line {line}: time goes back by {by_s:.6g} s @ {path}",
        hint="a file holds one recording; cut it where a new one starts",
    )


def _packet(values: list[float], at_s: float, last_s: float) -> Iterator[tuple[float, float]]:
    if not values:
        return
    if math.isnan(last_s):  # of the first packet nobody knows when it began
        yield at_s, values[-1]
        return
    step_s = (at_s - last_s) / len(values)
    for k, value in enumerate(values, 1):
        yield (at_s if k == len(values) else last_s + k * step_s), value


def _count_packets(
    rows: Iterable[_Row], path: Path, notes: list[str]
) -> Iterator[tuple[float, float]]:
    """FNIRSI rows on a time base of 10 ms each that follows the host's times slowly."""
    start_s, late_s, lost = math.nan, 0.0, 0
    for count, (line, t_s, value, begins) in enumerate(rows):
        if count == 0:
            start_s = t_s
        at_s = start_s + count * FNIRSI_STEP_S + late_s
        off_s = t_s - at_s
        if off_s < -FNIRSI_BACK_S:
            raise _goes_back(line, -off_s, path)
        if off_s > FNIRSI_LOST_S:  # packets were lost: go on where they come again
            lost += 1
            late_s += off_s
            at_s = t_s
        elif begins:
            late_s += max(-FNIRSI_LOST_S, off_s) / FNIRSI_FOLLOW
        yield at_s, value
    if lost:
        notes.append(f"packets are missing in {lost} places of the recording")


def _monsoon_seconds(trace: Trace, rows: int, path: Path, notes: list[str]) -> Trace:
    """The trace in seconds, whatever the header says; InputError where neither unit can be."""
    rate = rows / trace.seconds
    if rate / MILLI <= 1.5 * MONSOON_HZ and trace.seconds * MILLI >= MONSOON_MIN_S:
        return trace.slower(MILLI)
    if rate > 1.5 * MONSOON_HZ:
        raise InputError(f"{rate:.0f} rows per second are more than a Monsoon has @ {path}")
    notes.append("its times are seconds, although the header says ms")
    return trace


def _check_direction(trace: Trace, path: Path) -> None:
    """InputError where energy flows backwards for more than noise."""
    joules, back = trace.joules, 0.0
    for i in range(1, len(joules)):
        back += max(0.0, joules[i - 1] - joules[i])
    forth = joules[-1] + back
    if back > BACKWARDS * forth:
        what = "the energy falls" if trace.counter else "the power is negative"
        raise InputError(
            f"{what} for more than noise: {back:.3g} J backwards, {forth:.3g} J forwards @ {path}",
            hint="swap the leads, or give the file of one recording",
        )


def _facts(path: Path, layout: Layout, period_s: float, accuracy: float | None) -> MeterFacts:
    if accuracy is not None:
        share, why = accuracy, "stated with --accuracy"
    elif layout.format in SHARES:
        share, why = SHARES[layout.format]
    else:
        share, why = UNKNOWN_SHARE, "not stated: 5 % assumed; give it with --accuracy"
    grade: Grade = "A" if accuracy is not None and accuracy <= GRADE_A else "C"
    fixed = "" if layout.volts is None else f" x {layout.volts:g} V, as stated"
    return MeterFacts(
        meter="file",
        id=f"file:{path.name}",
        read_from=f"{path.name} ({layout.format}{fixed})",
        unit="J" if layout.counter else "W",
        counter=layout.counter,
        update_period_s=period_s,
        quantum=None,
        calibration_share=share,
        calibration=why,
        grade=grade,
        whole_device=True,
        covers=["all that the recording meter feeds"],
        excludes=["what lies before that meter"],
    )
