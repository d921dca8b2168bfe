"""The Pi 5's power chip: pairing by name, missing rails, the published fit and one's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from played_machine import HandClock, Move, PlayedTree, Power, files_of, played, steps

from edgegauge.cli import calibrate_meter
from edgegauge.document import read_toml
from edgegauge.energy import Window
from edgegauge.errors import InputError
from edgegauge.measure.joules import energy_of
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable
from edgegauge.measure.meters.pi5 import PUBLISHED, RAILS, Pi5Kind, PmicTextError, rails_w
from edgegauge.measure.meters.pi5_calibration import Fit, Pi5Calibration, RawPoints, busy_cores
from edgegauge.measure.recorder import Recorded
from edgegauge.toml import dumps

ADC = "commands/vcgencmd_pmic_read_adc.txt"
BUSY = Power([(0, 12.95)])
LOAD = Power([(0, 5.0), (60, 11.0), (180, 5.5)], ripple_w=0.6, ripple_s=7.3)
TEXT = played("raspberry-pi-5", HandClock(), BUSY).text(ADC) or ""
RAW_W = (12.95 - 0.5879) / 1.1451


def find(
    power: Power = LOAD,
    moves: Mapping[str, str | Move | None] | None = None,
    address: str | None = None,
) -> tuple[PlayedTree, HandClock, Meter]:
    clock = HandClock()
    tree = played("raspberry-pi-5", clock, power, moves)
    (meter,) = Pi5Kind().find(Machine(tree, clock), address)
    return tree, clock, meter


def integral_j(meter: Meter, clock: HandClock, seconds: float) -> tuple[float, float, float]:
    readings = [meter.read()]
    for _ in range(round(seconds / meter.poll_s)):
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    known = [reading for reading in readings if reading is not None]
    area = sum((a.value + b.value) / 2 * (b.t_s - a.t_s) for a, b in pairwise(known))
    return known[0].t_s, known[-1].t_s, area


def without(rail: str) -> str:
    return "\n".join(line for line in TEXT.splitlines() if not line.strip().startswith(rail))


def test_the_sum_of_twelve_rails() -> None:
    assert set(rails_w(TEXT)) == set(RAILS) and len(RAILS) == 12
    assert sum(rails_w(TEXT).values()) == pytest.approx(RAW_W, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_lines_pair_by_name(seed: int) -> None:
    lines = TEXT.splitlines()
    random.Random(seed).shuffle(lines)
    assert rails_w("\n".join(lines)) == rails_w(TEXT)


@pytest.mark.parametrize("rail", RAILS)
@pytest.mark.parametrize(("suffix", "kind"), [("_A", "current"), ("_V", "voltage")])
def test_a_missing_line_is_named_and_never_a_smaller_sum(rail: str, suffix: str, kind: str) -> None:
    with pytest.raises(PmicTextError, match=f"^{rail} has no {kind}$"):
        rails_w(without(rail + suffix))


def test_inputs_without_a_current_and_unknown_rails_are_in_no_sum() -> None:
    more = TEXT + "\nEXT5V_A current(30)=2.50000000A\nNEW_A current(31)=9.0A\nNEW_V volt(32)=9.0V"
    assert rails_w(more) == rails_w(TEXT)
    assert rails_w(without("EXT5V")) == rails_w(TEXT)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("VDD_CORE_A current(7)=1.00000000A", "VDD_CORE is told twice"),
        ("HDMI_V volt(23)=99.00000000V", "HDMI is 99"),
        ("HDMI_A current(22)=-2.00000000A", "HDMI is -2"),
    ],
)
def test_what_cannot_be(line: str, problem: str) -> None:
    base = TEXT if "twice" in problem else without(line.partition(" ")[0])
    with pytest.raises(PmicTextError, match=problem):
        rails_w(f"{base}\n{line}")


@given(st.integers(0, len(TEXT) - 1))
def test_truncated_text_is_all_rails_or_an_error(length: int) -> None:
    with suppress(PmicTextError):
        assert rails_w(TEXT[:length]) == rails_w(TEXT)


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")), st.integers(0, 40))
def test_garbage_between_the_lines_changes_nothing_or_is_an_error(noise: str, at: int) -> None:
    lines = TEXT.splitlines()
    with suppress(PmicTextError):
        assert rails_w("\n".join([*lines[:at], noise, *lines[at:]])) == rails_w(TEXT)
    with pytest.raises(PmicTextError):
        rails_w(noise)


def test_the_published_fit_recovers_the_board() -> None:
    tree, clock, meter = find(address="corrected")
    start_s, end_s, joules = integral_j(meter, clock, 240)
    assert joules == pytest.approx(tree.true_joules(start_s, end_s), rel=0.01)
    facts = meter.facts
    assert facts.whole_device and facts.grade == "C" and facts.calibration_share == 0.1
    assert "one other board" in facts.calibration
    (flag,) = meter.flags()
    assert flag.text.startswith("corrected: 1.1451 x rails +0.5879 W")


def test_its_joules_are_the_true_ones_within_what_they_claim() -> None:
    tree, clock, meter = find(address="corrected")
    readings = []
    while clock.now_s() < tree.born_s + 180:
        clock.wait(meter.poll_s)
        readings.append(meter.read())
    recorded = Recorded(meter.facts, [r for r in readings if r is not None], meter.flags())
    start_s, end_s = tree.born_s + 65, tree.born_s + 175
    energy = energy_of(recorded, [Window(phase="decode", start_s=start_s, end_s=end_s, tokens=500)])
    (window,) = energy.windows
    assert window.joules is not None and window.uncertainty_j is not None
    true_j = tree.true_joules(start_s, end_s)
    assert abs(window.joules - true_j) <= 2 * window.uncertainty_j < 0.05 * true_j


def test_the_default_corrects_nothing_and_says_what_is_missing() -> None:
    tree, clock, meter = find()
    assert meter.flags() == []
    start_s, end_s, joules = integral_j(meter, clock, 240)
    true_j = tree.true_joules(start_s, end_s)
    assert joules == pytest.approx((true_j - 0.5879 * (end_s - start_s)) / 1.1451, rel=0.01)
    facts = meter.facts
    assert not facts.whole_device and facts.calibration == "calibrated by: none"
    assert {"NVMe", "fan", "5 V USB devices"} <= set(facts.excludes)
    (flag,) = meter.flags()
    assert "rails only" in flag.text and "about 19% of the board's power is missing" in flag.text
    assert not flag.spoils
    assert meter.poll_s >= 0.5, "a process and a question to the firmware each time"


def test_older_boards_have_no_current_sensing() -> None:
    moves = {
        "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4",
    }
    with pytest.raises(MeterUnusable, match="Pi 4 and older have no current sensing: Raspberry"):
        find(moves=moves)
    with pytest.raises(MeterUnusable, match="not a Raspberry Pi 5"):
        find(moves={**moves, "proc/device-tree/model": "Orange Pi 5"})


def test_reasons_and_mends() -> None:
    with pytest.raises(MeterUnusable, match="not installed") as absent:
        find(moves={ADC: None, "usr/bin/vcgencmd": None})
    assert absent.value.hint and "apt install" in absent.value.hint
    with pytest.raises(MeterUnusable, match="may not ask the firmware") as refused:
        find(moves={ADC: None, "dev/vcio": "@{refused}"})
    assert refused.value.hint == "sudo usermod -aG video $USER"
    with pytest.raises(MeterUnusable, match="failed"):
        find(moves={ADC: None})
    with pytest.raises(MeterUnusable, match="HDMI has no current"):
        find(moves={ADC: without("HDMI_A")})
    with pytest.raises(MeterUnusable, match="has no current"):
        find(moves={ADC: 'error=1 error_msg="Command not registered"'})
    with pytest.raises(InputError, match="takes `corrected` or"):
        find(address="fixed")


def test_a_rail_that_goes_missing_ends_the_meter_with_its_name() -> None:
    _, clock, meter = find(moves={ADC: steps((0, TEXT), (10, without("VDD_CORE_A")))})
    assert meter.read() is not None
    clock.wait(11)
    assert meter.read() is None and meter.read() is None
    with pytest.raises(MeterLost, match="VDD_CORE has no current"):
        meter.read()


def calibration(**changes: object) -> dict[str, object]:
    points = [
        {"name": "idle", "raw_w": 2.5, "raw_se_w": 0.01, "samples": 50, "metered_w": 3.6},
        {"name": "load", "raw_w": 8.5, "raw_se_w": 0.02, "samples": 50, "metered_w": 10.8},
    ]
    made = {"board": "Raspberry Pi 5", "created": "2026-11-22", "points": points}
    return {**made, **changes}


def point(name: str, raw_w: float, metered_w: float | None) -> dict[str, object]:
    found = {"name": name, "raw_w": raw_w, "raw_se_w": 0.01, "samples": 50}
    return found if metered_w is None else {**found, "metered_w": metered_w}


def test_two_points_make_a_line_with_a_stated_doubt() -> None:
    made = Pi5Calibration.model_validate(calibration())
    assert (made.fit().slope, made.fit().offset_w) == pytest.approx((1.2, 0.6))
    assert made.share() == 0.05 and made.residual_w() < 1e-9 and made.r_squared() == 1


def test_more_points_show_how_far_from_a_line_they_are() -> None:
    fit, off = Fit(1.15, 0.6), (0.1, -0.1, -0.1, 0.1)
    points = [point(f"p{n}", 2.0 + n, fit.watts(2.0 + n) + off[n]) for n in range(4)]
    made = Pi5Calibration.model_validate(calibration(points=points))
    assert (made.fit().slope, made.fit().offset_w) == pytest.approx((1.15, 0.6))
    assert made.residual_w() == pytest.approx((4 * 0.01 / 2) ** 0.5)
    assert made.r_squared() == pytest.approx(1 - 0.04 / (1.15**2 * 5 + 0.04), rel=1e-6)
    assert made.share() == pytest.approx((0.02**2 + (0.1414 / 3.0) ** 2) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([point("idle", 2.5, 3.6)], "at least 2"),
        ([point("idle", 2.5, 3.6), point("idle", 8.5, 10.8)], "names must differ"),
        ([point("idle", 2.5, 3.6), point("load", 8.5, None)], "no metered_w of load"),
        ([point("idle", 2.5, 3.6), point("load", 2.6, 10.8)], "differ by 20 %"),
        ([point("idle", 2.5, 10.8), point("load", 8.5, 3.6)], "slope of -1.20"),
        ([point("idle", 2.5, 3.6), {**point("load", 8.5, 10.8), "note": "x"}], "unknown key"),
    ],
)
def test_files_that_give_no_line(points: object, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "pi5.toml"
    path.write_text(dumps(calibration(points=points)))
    with pytest.raises(InputError, match=problem):
        find(address=str(path))


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HandClock]:
    """The command on a played Pi: idle for the first minute, then all cores."""

    def put(power: Power) -> HandClock:
        clock = HandClock()
        tree = played("raspberry-pi-5", clock, power)
        monkeypatch.setattr(calibrate_meter, "Machine", lambda: Machine(tree, clock))
        return clock

    return put


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(calibrate_meter.command, [str(w) for w in words])
    return done.exit_code, done.stdout, done.stderr


def test_the_two_calls_of_a_calibration(pi: Callable[..., HandClock], tmp_path: Path) -> None:
    raw, fitted = tmp_path / "raw.toml", tmp_path / "pi5.toml"
    # A board of its own: 0.5 W of USB that the published fit knows nothing of.
    power = Power([(0, 4.0), (60, 10.0)], ripple_w=0.3, ripple_s=4.1)
    pi(power)
    code, out, err = call("pi5", "-o", raw)
    assert code == 0, err
    assert err.count("read your meter now") == 2 and "all" not in out
    assert f"--raw {raw} --point idle=WATTS --point load=WATTS" in err
    points = read_toml(raw, RawPoints).points
    assert [(p.name, p.samples, p.metered_w) for p in points] == [
        ("idle", 50, None),
        ("load", 50, None),
    ]
    assert points[0].raw_w == pytest.approx((4.0 - 0.5879) / 1.1451, abs=0.02)
    assert 0 < points[0].raw_se_w < 0.1
    code, out, err = call(
        "pi5", "--raw", raw, "--point", "idle=4.5", "--point", "load=10.5", "-o", fitted, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["fit"]["slope"] == pytest.approx(1.1451, rel=0.02)
    tree, clock, meter = find(power, address=str(fitted))
    start_s, end_s, joules = integral_j(meter, clock, 120)
    true_j = tree.true_joules(start_s, end_s) + 0.5 * (end_s - start_s)
    assert joules == pytest.approx(true_j, rel=0.02)
    assert meter.facts.whole_device and "user's fit of 2 points" in meter.facts.calibration
    assert "outside" not in meter.flags()[0].text


def test_far_from_its_points_a_fit_says_so(tmp_path: Path) -> None:
    path = tmp_path / "pi5.toml"
    path.write_text(dumps(calibration()))
    _, _, meter = find(Power([(0, 20.0)]), address=str(path))
    meter.read()
    (flag,) = meter.flags()
    assert "lies outside of the calibrated 2.50 to 8.50 W" in flag.text and not flag.spoils


def test_points_known_beforehand_need_one_call(
    pi: Callable[..., HandClock], tmp_path: Path
) -> None:
    pi(Power([(0, 4.0), (40, 7.0), (80, 10.0)]))
    points = ("--point", "idle=4", "--point", "load-1=7", "--point", "load-2=10")
    code, out, err = call("pi5", "--seconds", 30, *points, "-o", tmp_path / "pi5.toml")
    assert code == 0, err
    made = read_toml(tmp_path / "pi5.toml", Pi5Calibration)
    assert made.fit().slope == pytest.approx(PUBLISHED.slope, rel=0.001)
    assert made.r_squared() > 0.999 and "residual 0.000 W" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--point", "idle=3.1"),
        ("--point", "idle=three", "--point", "load=9"),
        ("--point", "idle=3", "--point", "idle=4"),
        ("--state", "idle"),
        ("--state", "idle", "--state", "busy"),
        ("--state", "load-2", "--state", "load-2"),
        ("--state", "idle", "--state", "load", "--point", "idle=3", "--point", "load-1=9"),
        ("--raw", "raw.toml", "--state", "idle"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(
    words: tuple[str, ...], pi: Callable[..., HandClock], tmp_path: Path
) -> None:
    clock = pi(BUSY)
    before_s = clock.now_s()
    assert call("pi5", "-o", tmp_path / "x.toml", *words)[0] == 2
    assert clock.now_s() == before_s and not (tmp_path / "x.toml").exists()


def test_busy_cores_end_with_the_block() -> None:
    me = psutil.Process()
    before = {child.pid for child in me.children()}
    with busy_cores(1, 30.0):
        (child,) = [c for c in me.children() if c.pid not in before]
        assert child.is_running()
    assert not child.is_running()


def test_the_recording_is_a_real_shape() -> None:
    lines = files_of("raspberry-pi-5")[ADC].splitlines()
    assert len(lines) == 26 and lines[-2].strip().startswith("EXT5V_V volt(24)=")
