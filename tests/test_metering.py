"""Energy, battery and the sustained run beside the timed ones: what of them a result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from make_gguf import write_gguf
from sample_results import figure, result

from edgegauge.artifact import Artifact
from edgegauge.cli.measure_show import show
from edgegauge.cli.output import warn
from edgegauge.device import Battery, Sourced
from edgegauge.energy import Energy, MeterFacts
from edgegauge.errors import InputError
from edgegauge.host.tree import Tree
from edgegauge.measure import metering, meters
from edgegauge.measure.energy_run import EnergyOptions, EnergyOutcome
from edgegauge.measure.machine import Clock, Machine
from edgegauge.measure.manager import measure_grid
from edgegauge.measure.metering import Metering, battery_here, with_battery
from edgegauge.measure.meters import Flag, Found, Refusal, find_meters
from edgegauge.measure.steadiness import SustainedOptions
from edgegauge.result import FailedResult, Failure, Result, Workload
from edgegauge.usage import load as load_usage

FACTS = MeterFacts(
    meter="battery", id="battery:BAT0", read_from="/sys", unit="µWh", counter=True,
    update_period_s=1.0, calibration_share=0.02, calibration="made up", grade="C",
    whole_device=True, covers=["whole device"], excludes=[],
)  # fmt: skip
EVERY = EnergyOptions()
WORN = Failure(run=0, phase="decode", kind="killed", reason="ended by SIGKILL")


def energy(**changes: Any) -> Energy:
    made = Energy(
        source=FACTS,
        windows=[],
        decode_j_per_token=figure(0.5, "J/token"),
        prefill_j_per_token=figure(0.1, "J/token"),
        net_decode_j_per_token=figure(0.3, "J/token"),
        net_prefill_j_per_token=figure(0.05, "J/token"),
        decode_w=figure(5.0, "W"),
        idle_before_w=figure(2.0, "W"),
    )
    return made.model_copy(update=changes)


class Stage:
    """Stands in for the meters and the energy run of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: EnergyOutcome) -> None:
        self.found: list[Found] = []
        self.used: list[Found] = []
        self._outcomes = list(outcomes)
        monkeypatch.setattr(metering, "find_meters", self._find)
        monkeypatch.setattr(metering, "measure_energy", self._run)

    def _find(self, machine: Machine, wanted: object) -> Found:
        self.found.append(Found([], [Refusal("rapl", "not readable", None)]))
        return self.found[-1]

    def _run(self, job: object, found: Found, *rest: object, **more: object) -> EnergyOutcome:
        self.used.append(found)
        return self._outcomes.pop(0)


def metered(stage: Stage, options: EnergyOptions | None = EVERY) -> Result:
    found = Metering(options, Machine(), None).add(result("tiny"), {}, lambda done, note: None)
    assert isinstance(found, Result)
    return found


def test_energy_of_the_best_source_is_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    part = energy(source=FACTS.model_copy(update={"id": "rapl:package"}), flags=["corrected"])
    outcome = EnergyOutcome(energies=[energy(), part], flags=[Flag("the clock stepped")])
    found = metered(Stage(monkeypatch, outcome))
    assert found.summary.energy_j_per_token == figure(0.5, "J/token")
    assert found.summary.energy_reason is None and len(found.energy) == 2
    assert found.warnings == ["the clock stepped", "rapl:package: corrected"]


def test_a_lost_meter_is_a_warning_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = energy(decode_j_per_token=None, reason="its file vanished")
    found = metered(Stage(monkeypatch, EnergyOutcome(energies=[lost])))
    assert found.summary.energy_j_per_token is None
    assert found.summary.energy_reason == "its file vanished"
    assert found.warnings == ["battery:BAT0: its file vanished"]
    assert found.trustworthy


def test_a_killed_energy_run_leaves_the_timed_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = EnergyOutcome(failures=[WORN], reason="the energy run failed")
    found = metered(Stage(monkeypatch, outcome))
    assert found.trustworthy and found.summary.decode_tok_per_s == figure(10.0, "tok/s")
    assert found.summary.energy_reason == "the energy run failed"
    assert [failure.kind for failure in found.failures] == ["killed"]
    assert found.warnings == ["energy: tiny, in the phase 'decode': ended by SIGKILL"]


def test_without_options_no_meter_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    assert metered(stage, None) == result("tiny")
    assert stage.found == []


def test_every_run_has_meters_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, EnergyOutcome(), EnergyOutcome())
    metering_now = Metering(EnergyOptions(), Machine(), None)
    for _ in range(2):
        metering_now.add(result("tiny"), {}, lambda done, note: None)
    assert stage.used[0] is not stage.used[1]
    assert all(found in stage.found for found in stage.used)


def test_an_unknown_meter_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="no meter 'crystal-ball'"):
        Metering(EnergyOptions(meters=("crystal-ball",)), Machine(), None)


def test_the_battery_comes_from_the_machine_or_the_user(tmp_path: Path) -> None:
    assert battery_here(Tree(tmp_path)) is None
    stated = battery_here(Tree(tmp_path), 14.5)
    assert stated is not None and stated.capacity_wh.value == 14.5
    supply = tmp_path / "sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    for name, text in (
        ("type", "Battery"), ("energy_full_design", "50000000"), ("energy_full", "45000000"),
    ):  # fmt: skip
        (supply / name).write_text(text)
    here = battery_here(Tree(tmp_path))
    assert here is not None and (here.capacity_wh.value, here.health) == (50.0, 0.9)


def test_battery_figures_need_energy_and_a_battery() -> None:
    battery = Battery(capacity_wh=Sourced(value=10.0, source="made up"), usable=1.0)
    bare, usage = result("tiny"), load_usage()
    assert with_battery(bare, battery, usage) == bare
    fed = bare.model_copy(update={"energy": [energy()]})
    assert with_battery(fed, None, usage) == fed
    figures = with_battery(fed, battery, usage).summary.battery
    assert figures is not None
    assert figures["tokens_per_charge"].value == pytest.approx(36_000 / 0.5)
    assert figures["continuous_h"].value == pytest.approx(2.0)


def test_energy_and_battery_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    battery = Battery(capacity_wh=Sourced(value=10.0, source="made up"), usable=1.0)
    fed = result("tiny", energy=[energy(idle_after_w=figure(2.1, "W"))])
    show([with_battery(fed, battery, load_usage())], None)
    out = " ".join(capsys.readouterr().out.split())
    assert "energy: battery:BAT0, grade C, covers whole device" in out
    assert "decode: 0.5 J/token [0.48 J/token .. 0.52 J/token], net of idle 0.3 J/token" in out
    assert "idle with the model loaded: 2 W before, 2.1 W after" in out
    assert "tokens per charge: 72000" in out and out.count("3 conversations an hour") == 1
    assert "decoding without pause: 2 h" in out and "at 10 tok/s" in out
    warn("termux:battery: half-way")
    assert "termux:battery: half-way" in capsys.readouterr().err


def test_sustained_is_a_result_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = write_gguf(tmp_path / "tiny.gguf")
    load = Workload(prompt_tokens=8, generated_tokens=9, threads=1, runs=1, repetitions=2)
    # The longest it may take is less than a second of real time.
    options = SustainedOptions(least_s=20.0, window_s=10.0, most_s=40.0)
    found = measure_grid(
        Artifact(path, None), [load], sustained=options, machine=Machine(clock=Clock(speed=50.0)),
        timeout_s=60,
    )  # fmt: skip
    burst, lasting = found
    assert isinstance(burst, Result) and isinstance(lasting, Result)
    assert (burst.workload.mode, lasting.workload.mode) == ("burst", "sustained")
    assert burst.summary.sustained is None and lasting.summary.sustained is not None
    assert lasting.summary.decode_tok_per_s == lasting.summary.sustained.plateau_tok_per_s
    assert lasting.summary.load_s is None and lasting.summary.memory.peak_rss_bytes is None
    (run,) = lasting.samples
    assert len(run.rounds) >= 6 and all(timed.start_s for timed in run.rounds)
    assert lasting.host["during"] and lasting.host["cpu_model"] == burst.host["cpu_model"]
    steady = lasting.summary.sustained.plateau_tok_per_s is not None
    assert steady or any("was not steady after 40" in text for text in lasting.warnings)
    assert Result.model_validate_json(lasting.model_dump_json()) == lasting


def test_no_sustained_run_follows_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edgegauge.measure.series.MODULE", "victim")
    path = write_gguf(tmp_path / "tiny.gguf")
    (only,) = measure_grid(
        Artifact(path, None), [Workload(threads=1, runs=1)], sustained=SustainedOptions()
    )
    assert isinstance(only, FailedResult)


def test_the_best_source_that_has_a_figure_is_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = energy(decode_j_per_token=None, reason="a charger was connected")
    part = energy(source=FACTS.model_copy(update={"id": "rapl:package", "whole_device": False}))
    found = metered(Stage(monkeypatch, EnergyOutcome(energies=[lost, part])))
    assert found.summary.energy_j_per_token == figure(0.5, "J/token")
    assert found.summary.energy_reason is None
    assert found.warnings == ["battery:BAT0: a charger was connected"]


def test_the_battery_s_figures_come_from_a_source_of_the_whole_device() -> None:
    battery = Battery(capacity_wh=Sourced(value=10.0, source="made up"), usable=1.0)
    lost = energy(decode_j_per_token=None, reason="a charger was connected")
    part = energy(
        source=FACTS.model_copy(update={"id": "rapl:package", "whole_device": False}),
        decode_j_per_token=figure(0.1, "J/token"),
    )
    bare, usage = result("tiny"), load_usage()
    fed = bare.model_copy(update={"energy": [lost, part, energy()]})
    figures = with_battery(fed, battery, usage).summary.battery
    assert figures is not None and "battery:BAT0" in figures["tokens_per_charge"].source
    only = with_battery(bare.model_copy(update={"energy": [lost, part]}), battery, usage)
    assert only.summary.battery is None
    assert only.warnings[-1] == "battery: a charger was connected"


class Closing:
    """A kind of meter that counts what is open."""

    name = "closing"
    facts = FACTS
    poll_s = 1.0

    def __init__(self) -> None:
        self.opened = self.closed = 0

    def find(self, machine: Machine, address: str | None) -> list[Any]:
        if address == "bad":
            raise InputError("no such address")
        self.opened += 1
        return [self]

    def close(self) -> None:
        self.closed += 1


def test_meters_are_open_during_energy_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that prints a sample a second is no part of a timed run, nor left behind by it."""
    kind = Closing()
    monkeypatch.setattr(meters, "kinds", lambda: {"closing": kind})
    metering_now = Metering(EnergyOptions(), Machine(), None)
    assert (kind.opened, kind.closed) == (1, 1)
    metering_now.ready()
    assert (kind.opened, kind.closed) == (2, 1)


def test_meters_that_were_found_are_closed_when_another_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = Closing()
    monkeypatch.setattr(meters, "kinds", lambda: {"closing": kind})
    for wrong in ("closing:bad", "crystal-ball"):
        with pytest.raises(InputError):
            find_meters(Machine(), ["closing", wrong])
    assert kind.opened == kind.closed == 2
    assert len(find_meters(Machine(), ["closing", "closing"]).meters) == 1
