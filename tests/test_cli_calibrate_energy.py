"""`edgegauge devices calibrate --energy` on recorded machines: real meters and child, known watts.

The power follows what the command says it is doing, as in `staged_machine`; which model it is about
counts too. The parts in the profile must add up to the true powers again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from played_machine import PlayedTree, played
from staged_machine import ATTEMPTS, SETTLE_S, PhasePower
from stand_in_runtime import StandInRuntime

from edgegauge import calibrate, calibration_runs, calibration_shapes, detect
from edgegauge.calibration_power import UNSEEN
from edgegauge.cli import calibrate as cli_calibrate
from edgegauge.cli import main
from edgegauge.device import Battery, InferencePower, load
from edgegauge.measure.machine import Clock, Machine

Call = Callable[..., tuple[int, str, str]]

IDLE_W = 4.0
TRUE_W = {
    "wide, prefill": 10.0, "wide, decode": 8.0, "deep, decode": 6.0, "idle": IDLE_W
}  # fmt: skip
LATE = ("a gap of", "was not read for")


@dataclass(frozen=True)
class Case:
    """A recorded machine and what its best source is."""

    name: str
    source: str
    grade: str
    whole_device: bool
    speed: float
    options: tuple[str, ...] = ()
    sees: Callable[[float], float] = lambda watts: watts
    moves: Mapping[str, str | None] = field(default_factory=dict)


MAINS = Case("laptop-on-mains", "rapl:package", "B", False, 60)
BAT = "sys/class/power_supply/BAT0"
NO_COUNTER = {
    f"{BAT}/energy_now": None,
    f"{BAT}/power_now": "@{gauge unit=1e-6 quantum=1000 period=1 sign=-1}",
}
"""A gauge without the counter that moves every 36 J, which takes ten minutes of each phase."""

CASES = {
    "laptop on battery": Case(
        "laptop-on-battery", "battery:BAT0", "C", True, 100, moves=NO_COUNTER
    ),
    "laptop on mains": MAINS,
    "Raspberry Pi 5": Case(
        "raspberry-pi-5", "pi5:pmic-corrected", "C", True, 150, ("--meter", "pi5:corrected")
    ),
    "Raspberry Pi 5, rails alone": Case(
        "raspberry-pi-5", "pi5:pmic", "C", False, 150, ("--meter", "pi5"),
        sees=lambda watts: (watts - 0.5879) / 1.1451,
    ),
}  # fmt: skip


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A profile of this machine, with a small cache, so that small models are past it."""
    found = detect.detect(measure=None).profile
    cpu = found.cpu.model_copy(update={"l3_cache_mb": 2.0})
    charge: Any = {"value": 40.0, "source": "the label"}
    path = tmp_path / "mine.toml"
    detect.write_profile(
        path, found.model_copy(update={"cpu": cpu, "battery": Battery(capacity_wh=charge)})
    )
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `edgegauge ...` in this process, with two timed models in place of nine."""

    def plan(file_format: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        yield "shallow", "f32", (16,)
        yield "deep", "f32", (16,)

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(calibrate, "plan", plan)
    monkeypatch.setattr(calibration_runs, "MOST_RUNS", 2)
    monkeypatch.setattr(calibration_runs, "GENERATED", 4)
    monkeypatch.setattr(calibration_shapes, "LEAST_PAST", 10e6)
    # Whether runs repeat is the machine's business: here they always do.
    monkeypatch.setattr(calibration_runs, "AGREE", 1e9)
    monkeypatch.setattr(calibration_runs, "MOST_DOUBTED", 1.0)
    monkeypatch.setattr(calibrate, "installed_runtimes", lambda: {"llama.cpp": StandInRuntime()})

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return execute


def stage(
    monkeypatch: pytest.MonkeyPatch, name: str, speed: float, moves: Mapping[str, str | None]
) -> PlayedTree:
    """A machine whose power is that of the phase and the model that the command tells."""
    clock, power = Clock(speed=speed), PhasePower(IDLE_W, 0.1)
    tree = played(name, clock, power, moves)

    def advance(done: float, note: str) -> None:
        model, energy, phase = note.partition(", energy: ")
        if energy:
            phase = phase.partition(" for ")[0]
            watts = IDLE_W if phase.startswith("idle") else TRUE_W[f"{model}, {phase}"]
            power.turn(clock.now_s() - tree.born_s + SETTLE_S, watts)

    @contextmanager
    def progress(description: str, total: float | None = None) -> Iterator[object]:
        yield advance

    monkeypatch.setattr(cli_calibrate, "Machine", lambda: Machine(tree, clock))
    monkeypatch.setattr(cli_calibrate, "progress", progress)
    return tree


def metered(
    call: Call, monkeypatch: pytest.MonkeyPatch, case: Case, *arguments: str | Path
) -> tuple[int, str, str]:
    """Calibrate with a meter on a recorded machine; more slowly where a reader came too late."""
    for attempt in range(ATTEMPTS):
        stage(monkeypatch, case.name, case.speed / 3**attempt, case.moves)
        done = call("devices", "calibrate", *arguments, "--threads", "1", "--energy")
        if not any(words in done[2] for words in LATE):
            break
    return done


def parts_of(path: Path) -> InferencePower | None:
    calibration = load(str(path)).calibration
    assert calibration is not None
    return calibration["llama.cpp"].power


@pytest.mark.parametrize("named", CASES)
def test_the_parts_add_up_to_the_true_powers(
    named: str, mine: Path, call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    case = CASES[named]
    status, out, err = metered(call, monkeypatch, case, mine, *case.options)
    assert status == 0, err
    parts = parts_of(mine)
    assert parts is not None, err
    idle, large, small, prompt = (
        case.sees(w) for w in (IDLE_W, TRUE_W["wide, decode"], TRUE_W["deep, decode"],
                               TRUE_W["wide, prefill"])
    )  # fmt: skip
    assert parts.idle_w == pytest.approx(idle, rel=0.03)
    # The small model reads next to nothing; the large one's bytes are the rest of its power.
    assert parts.decode_w_per_thread == pytest.approx(small - idle, rel=0.08)
    assert parts.prefill_w_per_thread == pytest.approx(prompt - idle, rel=0.05)
    assert parts.decode_nj_per_byte is not None and parts.error > UNSEEN
    assert parts.whole_device is case.whole_device
    assert case.source in parts.source and f"grade {case.grade}" in parts.source
    assert ("no battery figures" in err) is not case.whole_device
    assert "power: " in out and parts.covers in out
    predicts(case, mine, call, large, parts)


def predicts(
    case: Case, mine: Path, call: Call, large_w: float,
    parts: InferencePower,
) -> None:  # fmt: skip
    """A later fit takes its joules from the meter, and a battery's figures where it saw all."""
    status, out, err = call(
        "fit", "--device", mine, "stories42m", "--recipe", "q8_0", "--format", "gguf", "--json"
    )
    assert status == 0, err
    (candidate,) = json.loads(out)["candidates"]
    energy = candidate["energy_j_per_token"]
    assert energy["kind"] == "predicted" and case.source in energy["source"]
    assert energy["low"] < energy["value"] < energy["high"]
    assert (candidate["battery"] is not None) is case.whole_device


def test_a_later_calibration_without_a_meter_keeps_what_it_said(
    mine: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    metered(call, monkeypatch, MAINS, mine, "--energy-seconds", "70")
    said = parts_of(mine)
    assert said is not None
    assert call("devices", "calibrate", mine, "--threads", "1")[0] == 0
    assert parts_of(mine) == said
    _, out, _ = call("devices", "show", mine)
    shown = " ".join(out.split())
    assert f"{said.decode_w_per_thread:.3g} W per decoding thread" in shown
    assert "rapl:package, grade B" in shown


def test_too_short_a_run_gives_no_parts_and_says_how_long(
    mine: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = metered(call, monkeypatch, MAINS, mine, "--energy-seconds", "12")
    assert status == 0 and parts_of(mine) is None
    assert "llama.cpp: no energy: rapl:package: 12" in err and "it needs 60 s" in err


def test_without_a_meter_nothing_is_run_and_the_reasons_are_told(
    mine: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mine.read_bytes()
    tree = PlayedTree({}, Clock(), PhasePower(IDLE_W, 0.0))
    monkeypatch.setattr(cli_calibrate, "Machine", lambda: Machine(tree, Clock()))
    status, out, err = call("devices", "calibrate", mine, "--energy", "--meter", "rapl")
    assert (status, out) == (1, "") and mine.read_bytes() == before
    assert "no energy can be measured here: rapl: " in err and "temporary folder" not in err
    assert call("devices", "calibrate", mine, "--energy", "--meter", "seance")[0] == 1
    for wrong in (["--meter", "rapl"], ["--energy-seconds", "90"],
                  ["--energy", "--meter", "none"], ["--energy", "--meter", "file"]):  # fmt: skip
        assert call("devices", "calibrate", mine, *wrong)[0] == 2
