"""Recorded power files: every format's trap, bounds, and errors with path and line."""

from __future__ import annotations

import tempfile
from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import Run, csv, sample

from edgegauge.errors import InputError
from edgegauge.measure import meter_file, trace
from edgegauge.measure.align import Alignment
from edgegauge.measure.meter_file import read_recording
from edgegauge.measure.meter_formats import quantity
from edgegauge.measure.trace import Thinner, Trace

JOULESCOPE = "#time,current,voltage,power,charge,energy"
PPK2 = "Timestamp(ms),Current(uA),D0-D7,D0,D1,D2,D3,D4,D5,D6,D7"
MONSOON = "Time(ms),Main(mA),Main Voltage(V),"
FNIRSI = (
    "\ntimestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As"
)
RUN = Run()
TRUE_J = RUN.joules(RUN.end_s)


def mean_w(recording: meter_file.Recording) -> float:
    return recording.trace.joules[-1] / recording.trace.seconds


def steady(path: Path, header: str, row: str, seconds: float, step: float) -> Path:
    """A file of equal rows; `{t}` and `{n}` are filled in."""
    rows = [row.format(t=n * step, n=n) for n in range(int(seconds / step) + 1)]
    return csv(path, header, rows)


def test_joulescope_energy_is_differenced(tmp_path: Path) -> None:
    rows = sample(RUN, 0.5, lambda n, t, w, j: f"{t:.1f},{w / 5:.5f},5.0,{w:.5f},0,{j:.6f}")
    recording = read_recording(csv(tmp_path / "js.csv", JOULESCOPE, rows))
    assert recording.format == "joulescope"
    assert recording.facts.counter
    assert recording.facts.update_period_s == pytest.approx(0.5)
    assert recording.trace.joules[-1] == pytest.approx(TRUE_J, rel=0.01)


def test_ppk2_needs_the_voltage(tmp_path: Path) -> None:
    path = steady(tmp_path / "ppk.csv", PPK2, "{t},50000.0,00000000,0,0,0,0,0,0,0,0", 2000, 1)
    with pytest.raises(InputError, match="voltage") as caught:
        read_recording(path)
    assert "--volts" in str(caught.value.hint)
    recording = read_recording(path, volts=3.7)
    assert mean_w(recording) == pytest.approx(0.05 * 3.7)
    assert recording.trace.seconds == pytest.approx(2.0)
    assert recording.facts.calibration_share > 0.1


def test_monsoon_writes_seconds_under_ms(tmp_path: Path) -> None:
    # 5000 rows a second, stamped once per packet of 250.
    rows = [f"{(n // 250 + 1) * 0.05:.4f},1000.0,4.0," for n in range(50_000)]
    recording = read_recording(csv(tmp_path / "m.csv", MONSOON, rows))
    assert recording.trace.seconds == pytest.approx(10, rel=0.02)
    assert mean_w(recording) == pytest.approx(4.0)
    assert any("seconds" in note for note in recording.notes)
    # With granularity 1000, the rate alone would allow milliseconds; the length does not.
    rows = [f"{n * 0.2:.4f},1000.0,4.0," for n in range(1500)]
    recording = read_recording(csv(tmp_path / "m.csv", MONSOON, rows))
    assert recording.trace.seconds == pytest.approx(300, rel=0.01)


def test_monsoon_file_in_true_milliseconds(tmp_path: Path) -> None:
    path = steady(tmp_path / "m.csv", MONSOON, "{t:.3f},1000.0,4.0,", 100_000, 2.0)
    recording = read_recording(path)
    assert recording.trace.seconds == pytest.approx(100)
    assert mean_w(recording) == pytest.approx(4.0)


def test_packet_stamps_are_spread(tmp_path: Path) -> None:
    # 9 W in the first half of each packet, 1 W in the second: the last row alone would say 1 W.
    rows = [f"{(n // 10 + 1) * 0.1:.2f},{9 if n % 10 < 5 else 1}" for n in range(1000)]
    recording = read_recording(csv(tmp_path / "p.csv", "time_s,power_w", rows))
    assert mean_w(recording) == pytest.approx(5.0, rel=0.03)


def fnirsi_rows(seconds: float, drift: float = 0.0, lost: tuple[int, ...] = ()) -> list[str]:
    """Packets of four, stamped when they came less 40 ms: every other packet goes back in time."""
    rows = []
    for packet in range(int(seconds * 25)):
        if packet in lost:
            continue
        came = 1.8e9 + packet * 0.04 * (1 + drift) + (0.021 if packet % 2 == 0 else -0.001)
        for k in range(4):
            rows.append(f"{came + k * 0.01:.3f} {k} 5.00000 1.20000 0.6 0.6 25.0 0.0 0.0")
    return rows


def test_fnirsi_times_that_run_backwards_are_rebuilt(tmp_path: Path) -> None:
    rows = fnirsi_rows(60)
    stamps = [float(row.split()[0]) for row in rows]
    assert any(b < a for a, b in pairwise(stamps))
    recording = read_recording(csv(tmp_path / "f.txt", FNIRSI, rows))
    assert recording.format == "fnirsi"
    assert mean_w(recording) == pytest.approx(6.0)
    assert recording.trace.seconds == pytest.approx(60, abs=0.05)
    assert recording.since_1970_s == pytest.approx(1.8e9, abs=0.1)
    steps = [b - a for a, b in pairwise(recording.trace.t_s)]
    assert min(steps) > 0.005
    assert max(steps) < 0.02


def test_fnirsi_follows_the_host_and_notes_lost_packets(tmp_path: Path) -> None:
    recording = read_recording(csv(tmp_path / "f.txt", FNIRSI, fnirsi_rows(100, drift=0.003)))
    assert recording.trace.seconds == pytest.approx(100.3, abs=0.1)
    rows = fnirsi_rows(60, lost=tuple(range(500, 600)))
    recording = read_recording(csv(tmp_path / "f.txt", FNIRSI, rows))
    assert recording.trace.seconds == pytest.approx(60, abs=0.1)
    assert any("missing" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("header", "row", "watts", "seconds"),
    [
        ("time_s,power_w", "{t},3.5", 3.5, 100),
        ("t(ms),P[mW]", "{t},3500", 3.5, 0.1),
        ("Time [s];Power (W)", "{t};3,5", 3.5, 100),
        ("elapsed_us\tvoltage_mv\tcurrent_ma", "{t}\t5000\t700", 3.5, 1e-4),
        ("seconds,U (V),I (A)", "{t},5,0.7", 3.5, 100),
        ("time,watts", "{t},3.5", 3.5, 100),
        ('"Time (s)","Power [µW]"', '"{t}","3500000"', 3.5, 100),
        ("time_s power_w", "{t} 3.5", 3.5, 100),
        ("sample,Time (s),Voltage_V,Current in mA,note", "7,{t},5,700,x", 3.5, 100),
        ("timestamp,power_kw", "2026-11-22T10:0{n}:00+00:00,0.0035", 3.5, 540),
    ],
)
def test_csv_spellings(header: str, row: str, watts: float, seconds: float, tmp_path: Path) -> None:
    length = 9 if "{n}" in row else 100
    recording = read_recording(steady(tmp_path / "x.csv", header, row, length, 1))
    assert mean_w(recording) == pytest.approx(watts)
    assert recording.trace.seconds == pytest.approx(seconds)


def test_energy_column_alone_is_a_counter(tmp_path: Path) -> None:
    path = csv(tmp_path / "e.csv", "time_s,energy_mwh", [f"{n},{n}" for n in range(100)])
    recording = read_recording(path)
    assert recording.facts.counter
    assert mean_w(recording) == pytest.approx(3.6)


def test_absolute_times(tmp_path: Path) -> None:
    def started(first: str, second: str) -> float | None:
        rows = [f"{first},1", f"{second},1", ""]
        path = csv(tmp_path / "t.csv", "timestamp,power_w", [*rows[:2], rows[1]])
        return read_recording(path).since_1970_s

    utc = started("2026-11-22T10:00:00.5+01:00", "2026-11-22T10:00:01.5+01:00")
    assert utc == pytest.approx(1795338000.5)
    assert started("1795338000.5", "1795338001.5") == pytest.approx(1795338000.5)
    assert started("1795338000500", "1795338001500") == pytest.approx(1795338000.5)
    # Without a zone nobody knows when that was.
    assert started("2026-11-22 10:00:00", "2026-11-22 10:00:01") is None
    assert started("0.0", "1.0") is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("5,nan", "line 4: power is nan"),
        ("5,abc", "line 4: power is 'abc'"),
        ("5", "line 4: 1 fields"),
        ("0.5,3", "line 4: time goes back"),
        ("x" * 5000 + ",3", "line 4: longer than"),
        ("inf,3", "line 4: time is"),
    ],
)
def test_errors_name_line_and_path(bad: str, said: str, tmp_path: Path) -> None:
    path = csv(tmp_path / "bad.csv", "time_s,power_w", ["1,3", "2,3", bad, "6,3"])
    with pytest.raises(InputError) as caught:
        read_recording(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_swapped_leads_are_refused_but_noise_is_not(tmp_path: Path) -> None:
    path = csv(tmp_path / "n.csv", "time_s,power_w", [f"{n},-2" for n in range(50)])
    with pytest.raises(InputError, match="negative"):
        read_recording(path)
    noisy = [f"{n},{-0.01 if n % 10 == 0 else 2}" for n in range(50)]
    assert mean_w(read_recording(csv(path, "time_s,power_w", noisy))) > 1.5
    falling = [f"{n},{100 - n}" for n in range(50)]
    with pytest.raises(InputError, match="energy falls"):
        read_recording(csv(path, "time_s,energy_j", falling))


def test_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv"
    path.write_text("time_s,power_w\n0,5\n1,5\n2,5\n3,")
    assert read_recording(path).rows == 3
    path.write_text("time_s,power_w\n0,50\n1,50\n2,50\n3,5")  # of 3,50
    assert mean_w(read_recording(path)) == pytest.approx(50)


def test_what_is_no_recording_says_so(tmp_path: Path) -> None:
    for name, content in (
        ("empty", b""),
        ("text", b"hello\nworld\n"),
        ("binary", bytes(range(256))),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match="no header"):
            read_recording(path)
    with pytest.raises(InputError, match="cannot read"):
        read_recording(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot read"):
        read_recording(tmp_path)
    path = csv(tmp_path / "x.csv", "time_s,power_w", ["0,1", "1,1", "2,1"])
    with pytest.raises(InputError, match="no header of a monsoon file"):
        read_recording(path, "monsoon")
    path.write_text("time_s,power_w\n")
    with pytest.raises(InputError, match="no recording"):
        read_recording(path)


def test_huge_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_file, "MAX_FILE_BYTES", 10)
    with pytest.raises(InputError, match="more than is read"):
        read_recording(csv(tmp_path / "x.csv", "time_s,power_w", ["0,1", "1,1", "2,1"]))


def test_grade_a_only_where_it_is_stated(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", "time_s,power_w", [f"{n},1" for n in range(9)])
    assert read_recording(path).facts.grade == "C"
    assert "not stated" in read_recording(path).facts.calibration
    stated = read_recording(path, accuracy=0.005).facts
    assert (stated.grade, stated.calibration_share) == ("A", 0.005)
    assert read_recording(path, accuracy=0.03).facts.grade == "C"


def test_fast_rows_are_thinned_without_losing_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MAX_POINTS", 500)
    thinner = Thinner()
    true_j, last = 0.0, 0.0
    for n in range(100_000):
        watts = float(n * 7919 % 13)
        true_j += (watts + last) / 2 * 1e-5 if n else 0.0
        thinner.add(n * 1e-5, watts)
        last = watts
    found = thinner.trace()
    assert len(found) <= 501
    assert found.joules[-1] == pytest.approx(true_j, rel=1e-6)
    assert found.seconds == pytest.approx(0.99999)


def test_merging_keeps_gaps_apart() -> None:
    times = [*range(100), *range(1000, 1100)]
    points = Trace(array("d", times), array("d", [5.0] * 200), array("d", [0.0] * 200))
    fewer = points.thinned(60)
    assert len(fewer) <= 60
    assert fewer.joules[-1] == pytest.approx(points.joules[-1])
    assert max(fewer.span_s) < 50


def test_readings_are_on_the_clock_of_the_run(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", "time_s,power_w", [f"{100 + n},2" for n in range(9)])
    placed = read_recording(path).recorded(Alignment(5000.0, 1.001, 0.01, 0.9, "note"))
    assert placed.readings[0].t_s == 5000.0
    assert placed.readings[-1].t_s == pytest.approx(5008.008)
    assert placed.readings[0].took_s == pytest.approx(0.01 * 3**0.5)
    assert [flag.text for flag in placed.flags] == ["note"]


def test_units_of_names() -> None:
    assert quantity("power_mw") == ("power", 1e-3)
    assert quantity("P [MW]") == ("power", 1e-3)  # never a megawatt
    assert quantity("Main(mA)") == ("current", 1e-3)
    assert quantity("Main Voltage(V)") == ("voltage", 1)
    assert quantity("t(μs)") == ("time", 1e-6)
    assert quantity("timestamp") == ("time", None)
    assert quantity("temp_C_ema") is None
    assert quantity("power_v") is None


HEADERS = st.sampled_from(
    [JOULESCOPE, PPK2, MONSOON, FNIRSI, "time_s,power_w", "t(ms);P[mW]", "timestamp\tU\tI", ""]
)
LINES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.lists(st.floats(allow_nan=True).map(str), max_size=9).map(",".join),
        st.lists(st.integers(-9, 10**6).map(str), max_size=9).map(" ".join),
    ),
    max_size=30,
)


@given(header=HEADERS, lines=LINES, cut=st.integers(0, 60), volts=st.sampled_from([None, 5.0]))
def test_whatever_a_file_holds_there_is_a_recording_or_an_input_error(
    header: str, lines: list[str], cut: int, volts: float | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        raw = "\n".join([header, *lines]).encode("utf-8", "surrogatepass")
        path.write_bytes(raw[: len(raw) - cut])
        try:
            recording = read_recording(path, volts=volts)
        except InputError:
            return
        assert recording.trace.seconds > 0


@given(raw=st.binary(max_size=300))
def test_random_bytes_never_crash(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        path.write_bytes(b"time,power\n" + raw)
        try:
            read_recording(path)
        except InputError:
            return
