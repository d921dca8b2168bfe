"""The whole `measure` command on recorded machines: real meters, real child, known true power.

Each machine's joules are compared with its tree's, over the very windows of the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from make_gguf import write_gguf
from played_machine import Move
from staged_machine import WIDTH, Act, Stage

from edgegauge.energy import Energy, Window
from edgegauge.figure import Figure

ORDER = ["idle_before", "prefill", "decode", "decode", "prefill", "idle_after"]
NOISE = ("decode scatters", "other programs used", "pages were re-read", "swapped")
"""Reasons of an exit status 4 that the machine of the tests may have; the recorded have none."""
SEEN = {"rapl:psys": (1.1, 3.5), "pi5:pmic": (1 / 1.1451, -0.5879 / 1.1451)}
"""What a source sees of the power of the stage, where that is not all: a share, and watts more."""
AMD_START_J, AMD_RANGE_J = 65200.0, 65532.610987
RUN = "run 1 of 1"
BAT, AC = "sys/class/power_supply/BAT0", "sys/class/power_supply/AC"
INA = "sys/class/hwmon/hwmon1"
RAPL = "sys/class/powercap/intel-rapl"
TICKING = "@{counter start=500000000 quantum=61 tick=0.001 range=262143328850}"
PER_CHARGE = {
    "tokens_per_charge", "conversations_per_charge", "added_drain_percent_per_hour",
    "continuous_h", "decode_tok_per_s",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A recorded machine, its true watts, and what the result must say."""

    name: str
    idle: float
    prefill: float
    decode: float
    speed: float
    sources: dict[str, tuple[str, bool]]
    """Grade and whole_device of each source, the best first."""
    options: tuple[str, ...] = ()
    moves: Mapping[str, str | Move | None] = field(default_factory=dict)
    phase_s: float = 60.0
    """The least length of both windows of a phase together: what the source needs."""
    idle_s: float = 60.0
    battery: str | None = None
    """Why there are no battery figures; None where there are some."""
    says: tuple[str, ...] = ()
    """Words of the warnings."""
    llama: bool = False
    """Whether llama.cpp runs, where it is installed."""


CASES = {
    "laptop on battery": Case(
        "laptop-on-battery", 6, 18, 15, 500, {"battery:BAT0": ("C", True)},
        # 100 steps of 10 mWh at the 6 W seen while idle; 100 updates of the gauge while idle.
        phase_s=580, idle_s=100, says=("running on battery",),
    ),
    "laptop with a signed gauge and no counter": Case(
        "laptop-on-battery", 6, 18, 15, 150, {"battery:BAT0": ("C", True)},
        moves={
            f"{BAT}/energy_now": None,
            f"{BAT}/energy_full_design": None,
            f"{BAT}/power_now": "@{gauge unit=1e-6 quantum=1000 period=1 sign=-1}",
        },
        phase_s=100, idle_s=100, battery="give it with --battery-wh",
    ),
    "laptop on mains": Case(
        "laptop-on-mains", 4, 18, 15, 80, {"rapl:package": ("B", False)},
        battery="rapl:package measures package-0", llama=True,
    ),
    "Intel with psys": Case(
        "intel-psys", 4, 18, 15, 150,
        {"rapl:package": ("B", False), "rapl:psys": ("C", False)},
        options=("--battery-wh", "50"), battery="a battery feeds the whole device",
    ),
    "AMD that wraps twice": Case(
        "amd-wraps", 100, 280, 270, 200, {"rapl:package": ("B", False)},
        options=("--energy-seconds", "240"), phase_s=240, battery="",
    ),
    "Raspberry Pi 5": Case(
        "raspberry-pi-5", 4, 10, 8, 150,
        {"pi5:pmic-corrected": ("C", True), "pi5:pmic": ("C", False)},
        options=("--meter", "pi5", "--meter", "pi5:corrected", "--battery-wh", "37"),
        phase_s=100, idle_s=100,
        says=("1.1451 x rails +0.5879 W", "of the board's power is missing"),
    ),
    "Jetson Orin Nano": Case(
        "jetson-orin-nano", 5, 12, 10, 170, {"jetson:VDD_IN": ("C", False)},
        # As recorded it is read five times a second, which no busy machine can play at speed:
        # here it averages 64 samples.
        moves={
            f"{INA}/samples": "64", f"{INA}/update_interval": "1280",
            f"{INA}/curr1_input":
                "@{gauge unit=1e-3 volts=5.008 quantum=8 period=1.28 average=1.28}",
        },
        phase_s=128, idle_s=128,
        options=("--battery-wh", "50"), battery="jetson:VDD_IN measures the module at its input",
    ),
    "phone that reports mA": Case(
        "termux-phone", 2.5, 6, 5, 600, {"termux:battery": ("C", True)},
        options=("--battery-wh", "19.25"), phase_s=500, idle_s=500,
        # 650 mA idle becomes µA in Termux:API, 1300 mA under load does not.
        says=("the phone's current disagrees with its charge counter",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.mark.parametrize("named", CASES)
def test_the_joules_of_a_recorded_machine_are_the_true_ones(
    named: str,
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[named]
    stage = Stage(idle=case.idle, prefill=case.prefill, decode=case.decode)
    act = stage.run(
        monkeypatch, capsys, case.name, gguf, tmp_path / "r.json", *case.options,
        speed=case.speed, moves=case.moves, stand_in=not (case.llama and find_spec("llama_cpp")),
    )  # fmt: skip
    trusted(act)
    told = {e.source.id: (e.source.grade, e.source.whole_device) for e in act.result.energy}
    assert told == case.sources and list(told) == list(case.sources)
    for energy in act.result.energy:
        assert [w.phase for w in energy.windows] == ORDER
        assert energy.source.covers and energy.source.excludes
        lengths(energy, case)
        for window in energy.windows:
            near(act, energy, window)
        figures(act, energy, case)
    best = act.result.energy[0]
    assert act.result.summary.energy_j_per_token == best.decode_j_per_token
    assert act.result.summary.energy_reason is None
    charge(act, case)
    said = "\n".join(act.result.warnings)
    assert all(words in said for words in case.says), said
    readable(act)
    if case.name == "amd-wraps":
        wraps_twice(act)


def trusted(act: Act) -> None:
    """Status 0, or 4 for no other reason than the noise of the machine that runs the tests."""
    assert act.status == (0 if act.result.trustworthy else 4), act.err
    noisy = any(words in warning for words in NOISE for warning in act.result.warnings)
    assert act.status == 0 or noisy, act.err


def truth(act: Act, energy: Energy, window: Window) -> float:
    """Joules that this source should have seen."""
    share, more_w = SEEN.get(energy.source.id, (1.0, 0.0))
    return share * act.true_joules(window) + more_w * window.seconds


def near(act: Act, energy: Energy, window: Window) -> None:
    """The scale of a recorded source is perfect: what the window admits must be enough."""
    assert window.joules is not None and window.uncertainty_j is not None, window.reason
    off = abs(window.joules - truth(act, energy, window))
    share = energy.source.calibration_share
    assert off <= 2 * math.hypot(window.uncertainty_j, share * window.joules)
    assert off <= 4 * window.uncertainty_j, (window, off)
    assert window.uncertainty_j < 0.03 * window.joules, "an error of any size would pass"
    assert window.samples >= 10 and window.longest_gap_s is not None


def lengths(energy: Energy, case: Case) -> None:
    """The windows are as long as the source needs, and not much longer."""
    for phase in ("prefill", "decode"):
        seconds = math.fsum(w.seconds for w in energy.windows if w.phase == phase)
        assert case.phase_s <= seconds < 1.5 * case.phase_s
    for window in energy.windows:
        if window.phase.startswith("idle"):
            assert case.idle_s <= window.seconds < 1.1 * case.idle_s and window.tokens == 0


def figures(act: Act, energy: Energy, case: Case) -> None:
    """J/token follows from windows and tokens, and its interval holds the truth, net as well."""
    share, more_w = SEEN.get(energy.source.id, (1.0, 0.0))
    idle_w = share * case.idle + more_w
    for phase, total, net, watts in (
        ("decode", energy.decode_j_per_token, energy.net_decode_j_per_token, energy.decode_w),
        ("prefill", energy.prefill_j_per_token, energy.net_prefill_j_per_token, energy.prefill_w),
    ):
        found = [w for w in energy.windows if w.phase == phase]
        joules = math.fsum(w.joules or 0.0 for w in found)
        true_j = math.fsum(truth(act, energy, w) for w in found)
        tokens, seconds = sum(w.tokens for w in found), math.fsum(w.seconds for w in found)
        assert tokens > 0 and total is not None and net is not None and watts is not None
        assert total.value == pytest.approx(joules / tokens)
        assert watts.value == pytest.approx(joules / seconds)
        holds(total, true_j / tokens)
        holds(watts, true_j / seconds)
        # The ripple leaves an idle window at most so much off the mean.
        holds(net, (true_j - idle_w * seconds) / tokens)
        assert net.value == pytest.approx((true_j - idle_w * seconds) / tokens, rel=0.05)
    for idle in (energy.idle_before_w, energy.idle_after_w):
        assert idle is not None and idle.value == pytest.approx(idle_w, rel=0.05)
    assert set(energy.terms) == {
        "calibration", "quantum", "alignment", "sampling", "repeat", "baseline",
    }  # fmt: skip


def holds(figure: Figure, value: float) -> None:
    assert figure.low is not None and figure.high is not None
    assert figure.low <= value <= figure.high and figure.kind == "measured"


def charge(act: Act, case: Case) -> None:
    """Battery figures where the whole device was measured and its battery is known."""
    found, best = act.result.summary.battery, act.result.energy[0]
    if case.battery is not None:
        assert found is None
        told = [w for w in act.result.warnings if w.startswith("battery: ")]
        assert [case.battery in w for w in told] == ([True] if case.battery else [])
        return
    assert found is not None and set(found) == PER_CHARGE
    assert best.decode_j_per_token and best.decode_w
    capacity_j = found["tokens_per_charge"].value * best.decode_j_per_token.value
    assert found["continuous_h"].value * 3600 == pytest.approx(capacity_j / best.decode_w.value)
    assert best.source.id in found["tokens_per_charge"].source


def readable(act: Act) -> None:
    """Every source has its lines, none of which a terminal would break."""
    lines = act.out.splitlines()
    for energy in act.result.energy:
        title = f"energy: {energy.source.id}, grade {energy.source.grade}, covers "
        (n,) = [n for n, line in enumerate(lines) if line.startswith(title)]
        names = [line.split(":")[0] for line in lines[n + 1 : n + 4]]
        next_line = (lines[n + 4 :] or [""])[0]
        of_charge = act.result.summary.battery and energy is act.result.energy[0]
        assert next_line.startswith("  tokens per charge: ") is bool(of_charge)
        assert names == ["  decode", "  prefill", "  idle with the model loaded"]
        assert all(" J/token [" in line and "net of idle " in line for line in lines[n + 1 : n + 3])
        assert max(map(len, lines[n : n + 4])) <= WIDTH
    for warning in act.result.warnings:
        assert f"warning: {warning}" in act.err


def wraps_twice(act: Act) -> None:
    """While the meter was read: it would be two ranges short, or lost, if it did not see that."""
    readings = act.result.energy[0].readings
    turns = [
        (AMD_START_J + act.tree.true_joules(act.tree.born_s, t_s)) // AMD_RANGE_J
        for t_s in (readings[0][0], readings[-1][0])
    ]
    assert turns[1] - turns[0] >= 2


def test_a_charger_that_is_connected_half_way_ends_the_battery_and_not_the_processor(
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(idle=6, prefill=18, decode=15)
    act = stage.run(
        monkeypatch, capsys, "laptop-on-battery", gguf, tmp_path / "r.json",
        "--energy-seconds", "60", "--json", speed=150,
        moves={
            f"{AC}/online": stage.during("decode", "0", "1"),
            f"{BAT}/status": stage.during("decode", "Discharging", "Charging"),
            f"{RAPL}:0/energy_uj": TICKING,
        },
    )  # fmt: skip
    trusted(act)
    assert json.loads(act.out) == json.loads((tmp_path / "r.json").read_text())
    battery, package = act.result.energy
    why = "the meter was lost: a charger was connected"
    assert battery.source.id == "battery:BAT0"
    near(act, battery, battery.windows[0])
    assert [w.joules is None for w in battery.windows[2:]] == [True] * 4
    assert all(why in (w.reason or "") for w in battery.windows[2:])
    assert battery.idle_before_w is not None and battery.decode_j_per_token is None
    assert why in (battery.reason or "")
    for window in package.windows:
        near(act, package, window)
    assert package.decode_j_per_token is not None and package.reason is None
    summary = act.result.summary  # what is left is a part of the device, whatever its battery
    assert summary.energy_j_per_token == package.decode_j_per_token and summary.battery is None
    assert "rapl:package" in package.decode_j_per_token.source
    assert f"warning: battery:BAT0: {why}" in act.err and "warning: battery: " in act.err


def test_a_charger_that_is_connected_during_the_timed_runs_spoils_them(
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(idle=6, prefill=18, decode=15)
    act = stage.run(
        monkeypatch, capsys, "laptop-on-battery", gguf, tmp_path / "r.json", speed=150,
        moves={
            f"{AC}/online": stage.during(RUN, "0", "1"),
            f"{BAT}/status": stage.during(RUN, "Discharging", "Charging"),
        },
    )  # fmt: skip
    assert act.status == 4
    assert "the charger was connected or disconnected during the runs" in act.err
    assert act.result.energy == [] and act.result.summary.energy_j_per_token is None
    assert "battery: the battery is not discharging" in (act.result.summary.energy_reason or "")


def test_a_meter_whose_file_vanishes_half_way_leaves_the_other(
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(idle=4, prefill=18, decode=15)
    act = stage.run(
        monkeypatch, capsys, "intel-psys", gguf, tmp_path / "r.json", speed=150,
        moves={f"{RAPL}:1/energy_uj": stage.during("decode", TICKING, None)},
    )  # fmt: skip
    trusted(act)
    package, psys = act.result.energy
    for window in package.windows:
        near(act, package, window)
    assert act.result.summary.energy_j_per_token == package.decode_j_per_token is not None
    assert psys.source.id == "rapl:psys" and psys.decode_j_per_token is None
    assert psys.windows[0].joules and "no longer tells an energy" in (psys.reason or "")
    assert "energy: rapl:psys" in act.out and f"  - ({psys.reason})" in act.out
    assert "warning: rapl:psys: the meter was lost: " in act.err


def test_the_only_meter_vanishes_and_the_run_ends_early(
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(idle=4, prefill=18, decode=15)
    act = stage.run(
        monkeypatch, capsys, "laptop-on-mains", gguf, tmp_path / "r.json", speed=150,
        moves={f"{RAPL}:0/energy_uj": stage.during("prefill", TICKING, "")},
    )  # fmt: skip
    trusted(act)
    (package,) = act.result.energy
    assert [w.phase for w in package.windows] == ORDER[:2]
    near(act, package, package.windows[0])
    assert package.windows[1].joules is None and package.decode_j_per_token is None
    assert "no longer tells an energy: ''" in (act.result.summary.energy_reason or "")
    assert act.result.samples and act.result.summary.decode_tok_per_s


@pytest.mark.parametrize(
    ("name", "moves", "reasons"),
    [
        ("no-source", {}, ["rapl: no powercap zones here", "battery: no battery here"]),
        (
            "laptop-on-mains",
            {f"{RAPL}:0/energy_uj": "@{refused}"},
            [
                "rapl: RAPL is present but not readable",
                "battery: the battery is not discharging (ACAD is online)",
            ],
        ),
    ],
)
def test_a_host_without_a_readable_source_has_no_energy_and_says_why(
    name: str,
    moves: Mapping[str, str],
    reasons: list[str],
    gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(idle=4, prefill=18, decode=15)
    path = tmp_path / "r.json"
    act = stage.run(monkeypatch, capsys, name, gguf, path, speed=100, moves=moves)
    trusted(act)
    summary = act.result.summary
    assert act.result.energy == [] and summary.energy_j_per_token is None
    assert summary.battery is None and summary.decode_tok_per_s is not None
    told = (summary.energy_reason or "").split("; ")
    assert all(any(t.startswith(reason) for t in told) for reason in reasons), told
    assert {"ina", "jetson", "pi5", "termux"} <= {t.partition(": ")[0] for t in told}
    (line,) = [line for line in act.out.splitlines() if line.startswith("energy")]
    assert line == "energy: - (no meter could be read; `edgegauge doctor` says why)"
