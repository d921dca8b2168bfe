"""What the columns of a recorded power file mean: the header of each known format, and of any CSV.

    layout = layout_of(header_line, "auto", volts=None)
    layout.row(fields)          # (seconds, watts), or joules where `layout.counter`

| format | header | power |
|---|---|---|
| joulescope | `#time,current,voltage,power,charge,energy` | `energy`, an accumulator |
| ppk2 | `Timestamp(ms),Current(uA),...` | current x the voltage that was set |
| monsoon | `Time(ms),Main(mA),...,Main Voltage(V),` | current x voltage; times are in seconds |
| fnirsi | `timestamp sample_in_packet voltage_V current_A ...` | voltage x current |
| csv | a time, and power, or voltage and current, or energy | with units in the names |

Headers as written by jetperch/pyjoulescope_ui, NordicSemiconductor/pc-nrfconnect-ppk,
msoon/PyMonsoon (sampleEngine.py) and baryluk/fnirsi-usb-power-data-logger.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from edgegauge.errors import InputError

FORMATS = ("joulescope", "ppk2", "monsoon", "fnirsi", "csv")
MAX_COLUMNS = 100
MILLI, MICRO, NANO = 1e-3, 1e-6, 1e-9

UNITS: dict[str, dict[str, float]] = {
    "time": {"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "ms": MILLI, "us": MICRO,
             "ns": NANO, "min": 60, "h": 3600},
    "power": {"w": 1, "watt": 1, "watts": 1, "mw": MILLI, "uw": MICRO, "nw": NANO, "kw": 1000},
    "voltage": {"v": 1, "volt": 1, "volts": 1, "mv": MILLI, "uv": MICRO},
    "current": {"a": 1, "amp": 1, "amps": 1, "ampere": 1, "ma": MILLI, "ua": MICRO, "na": NANO},
    "energy": {"j": 1, "ws": 1, "mj": MILLI, "uj": MICRO, "kj": 1000, "wh": 3600, "mwh": 3.6,
               "uwh": 3.6e-3, "kwh": 3.6e6},
}  # fmt: skip
"""SI units per unit, by quantity. `mw` is never a megawatt here."""

NAMES: dict[str, tuple[str, ...]] = {
    "time": ("time", "timestamp", "t", "elapsed", "datetime", "date time", "date", "clock", "ts"),
    "power": ("power", "p", "watts", "watt", "pwr", "w"),
    "voltage": ("voltage", "volts", "volt", "v", "u", "vbus", "main voltage", "bus voltage"),
    "current": ("current", "i", "amps", "amperes", "amp", "a", "main", "main current", "ibus"),
    "energy": ("energy", "e"),
}
NAME = re.compile(r"([^\[(]*?)[\s_]*(?:\[([^\]]*)\]|\(([^)]*)\)|[\s_]in[\s_]+(\w+))?\s*")

NOWHEN = datetime(2020, 1, 1)
"""Local times are told from here, so that they are not taken for seconds since 1970."""

LATE_MS, LATE_US = 1e11, 1e14
"""Numbers of a time without unit that only make sense as milliseconds, microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where a quantity is, and what its unit is worth; scale None: a time that names no unit."""

    index: int
    scale: float | None


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of one file are read."""

    format: str
    delimiter: str | None
    """None: runs of white space."""
    time: Column
    power: Column | None = None
    voltage: Column | None = None
    current: Column | None = None
    energy: Column | None = None
    volts: float | None = None
    """The voltage where no column has it."""
    sample: Column | None = None
    """FNIRSI: the number of the row within its packet."""

    @property
    def counter(self) -> bool:
        """Whether rows hold accumulated joules instead of watts."""
        return self.energy is not None

    @property
    def width(self) -> int:
        """How many fields of a line matter."""
        columns = (self.time, self.power, self.voltage, self.current, self.energy, self.sample)
        return 1 + max(column.index for column in columns if column is not None)

    def row(self, fields: Sequence[str]) -> tuple[float, float]:
        """Seconds (since 1970 where the file says so), watts (joules); ValueError with a reason."""
        return self._seconds(fields), self._value(fields)

    def plain_row(self) -> Callable[[Sequence[str]], tuple[float, float]]:
        """As `row`, several times faster, for fields that are plain numbers.

        It raises ValueError or IndexError for all others, of which `row` then says what they are.
        """
        at, scale = self.time.index, self.time.scale
        value = self.energy or self.power or self.current
        assert value is not None  # a layout without any is not made
        index, unit = value.index, value.scale or 1.0
        other = self.voltage.index if self.voltage and value is self.current else index
        if value is self.current:
            unit *= self.volts or (self.voltage and self.voltage.scale) or 1.0
        product = other != index

        def read(fields: Sequence[str]) -> tuple[float, float]:
            if scale is None:
                raise ValueError
            t_s, seen = float(fields[at]) * scale, float(fields[index]) * unit
            if product:
                seen *= float(fields[other])
            if seen - seen or t_s - t_s:  # infinite or not a number
                raise ValueError
            return t_s, seen

        return read

    def _seconds(self, fields: Sequence[str]) -> float:
        text = _field(fields, self.time, "time")
        if self.time.scale is None:
            return _moment(text)
        return _number(text, "time") * self.time.scale

    def _value(self, fields: Sequence[str]) -> float:
        if self.energy is not None:
            return _scaled(fields, self.energy, "energy")
        if self.power is not None:
            return _scaled(fields, self.power, "power")
        assert self.current is not None  # a layout without any is not made
        if self.voltage is None:
            assert self.volts is not None
            return _scaled(fields, self.current, "current") * self.volts
        voltage = _scaled(fields, self.voltage, "voltage")
        return _scaled(fields, self.current, "current") * voltage


def layout_of(header: str, wanted: str, volts: float | None) -> Layout | None:
    """The layout that a line names; None where it names none.

    `wanted` is `auto` or one of FORMATS. Raises InputError for a file without voltage where `volts`
    is not given, and ValueError for columns that cannot be told apart.
    """
    line = header.strip().lstrip("\ufeff#").strip()
    delimiter = _delimiter(line)
    names = [name.strip().strip('"') for name in line.split(delimiter, MAX_COLUMNS)]
    told = recognised(names)
    if told is None or (wanted != "auto" and wanted not in (told, "csv")):
        return None
    found = told if wanted == "auto" else wanted
    columns = _columns(names)
    if found == "joulescope":  # its names have no units; its power is a mean, its energy exact
        return Layout(found, delimiter, Column(0, 1.0), energy=Column(5, 1.0))
    time, power = columns.get("time"), columns.get("power")
    if time is None:
        return None
    if found == "monsoon":  # not the unit it says; the whole recording shows which it is
        time = Column(time.index, 1.0)
    if power is not None:
        return Layout(found, delimiter, time, power=power)
    current, voltage = columns.get("current"), columns.get("voltage")
    if current is not None:
        if voltage is None and volts is None:
            raise InputError(
                f"a {found} file without a voltage column: currents alone give no watts",
                hint="give the voltage that was set: --volts 3.7",
            )
        sample = Column(names.index("sample_in_packet"), 1.0) if found == "fnirsi" else None
        own = None if volts is not None else voltage
        return Layout(
            found, delimiter, time, voltage=own, current=current, volts=volts, sample=sample
        )
    energy = columns.get("energy")
    return None if energy is None else Layout(found, delimiter, time, energy=energy)


def recognised(names: Sequence[str]) -> str | None:
    """The format with these column names; `csv` for any that names a time and a quantity."""
    plain = [name.lower().replace("\u00b5", "u").replace("\u03bc", "u") for name in names]
    if plain[:6] == ["time", "current", "voltage", "power", "charge", "energy"]:
        return "joulescope"
    if plain[:2] == ["timestamp(ms)", "current(ua)"]:
        return "ppk2"
    if plain[:1] == ["time(ms)"] and "main(ma)" in plain:
        return "monsoon"
    if plain[:2] == ["timestamp", "sample_in_packet"]:
        return "fnirsi"
    columns = _columns(names)
    return "csv" if "time" in columns and len(columns) > 1 else None


def quantity(name: str) -> tuple[str, float | None] | None:
    """Which quantity a column name stands for, and what its unit is worth (None: it has none)."""
    plain = name.strip().strip('"').lower().replace("\u00b5", "u").replace("\u03bc", "u")
    match = NAME.fullmatch(plain)
    stem, unit = (match[1], match[2] or match[3] or match[4]) if match else (plain, None)
    unit = unit.strip() if unit else None
    stem = re.sub(r"[\s_-]+", " ", stem).strip()
    for kind, names in NAMES.items():
        if stem in names and (unit is None or unit in UNITS[kind]):
            return kind, None if unit is None else UNITS[kind][unit]
        if unit is not None:
            continue
        head, _, tail = stem.rpartition(" ")
        if head in names and tail in UNITS[kind]:
            return kind, UNITS[kind][tail]
    return ("time", UNITS["time"][stem]) if stem in ("seconds", "ms") else None


def _columns(names: Sequence[str]) -> dict[str, Column]:
    """The first column of each quantity; other than times, those without a unit are in SI."""
    found: dict[str, Column] = {}
    for index, name in enumerate(names[:MAX_COLUMNS]):
        told = quantity(name)
        if told is not None and told[0] not in found:
            kind, scale = told
            found[kind] = Column(index, scale if scale or kind == "time" else 1.0)
    return found


def _delimiter(line: str) -> str | None:
    for delimiter in ("\t", ";", ","):
        if delimiter in line:
            return delimiter
    return None


def _field(fields: Sequence[str], column: Column, what: str) -> str:
    if column.index >= len(fields):
        raise ValueError(f"{len(fields)} fields; {what} is the {column.index + 1}.")
    return fields[column.index]


def _scaled(fields: Sequence[str], column: Column, what: str) -> float:
    return _number(_field(fields, column, what), what) * (column.scale or 1.0)


def _number(text: str, what: str) -> float:
    text = text.strip().strip('"')
    if "," in text:  # a decimal comma; as a delimiter it would not be here
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{what} is {text[:20]!r}, not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{what} is {text[:20]}")
    return value


def _moment(text: str) -> float:
    """A time without unit: ISO 8601, or seconds, or a count since 1970 of a unit it betrays."""
    text = text.strip().strip('"')
    try:
        value = _number(text, "time")
    except ValueError:
        return _iso(text)
    if abs(value) > LATE_US:
        return value * MICRO
    return value * MILLI if abs(value) > LATE_MS else value


def _iso(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        raise ValueError(f"time is {text[:40]!r}, neither a number nor ISO 8601") from None
    # Without a zone it says nothing about the clock of the run; differences are all it gives.
    if moment.tzinfo is None:
        return (moment - NOWHEN).total_seconds()
    return moment.astimezone(UTC).timestamp()
