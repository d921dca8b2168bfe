"""`edgegauge doctor`: a line for everything that can be measured, and the command for each gap."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from played_machine import HandClock, Power, played
from rich.console import Console

from edgegauge.cli import doctor
from edgegauge.energy import MeterFacts
from edgegauge.errors import MissingDependency
from edgegauge.host.tree import Tree
from edgegauge.measure import checks, meters
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, MeterUnusable, Reading

MEND = "sudo chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj"


class PackageMeter:
    """A source that reads nothing; it remembers whether it was closed."""

    facts = MeterFacts(
        meter="good", id="good:package-0", read_from="/sys/x", unit="µJ", counter=True,
        update_period_s=0.001, calibration_share=0.05, calibration="stated by its maker",
        grade="B", whole_device=False, covers=["CPU package"], excludes=["display", "memory"],
    )  # fmt: skip
    poll_s = 1.0
    closed = 0

    def read(self) -> Reading | None:
        return None

    def flags(self) -> list[Flag]:
        return []

    def close(self) -> None:
        PackageMeter.closed += 1


class Good:
    name = "good"

    def find(self, machine: Machine, address: str | None) -> list[meters.Meter]:
        return [PackageMeter()]


class Hidden:
    name = "hidden"

    def find(self, machine: Machine, address: str | None) -> list[meters.Meter]:
        raise MeterUnusable("energy_uj is there, but not for this user", hint=MEND)


REAL_KINDS = meters.kinds


@pytest.fixture(autouse=True)
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "kinds", lambda: {"good": Good(), "hidden": Hidden()})


def found_on(root: Path, **files: str) -> dict[str, checks.Check]:
    """Checks of a made machine by their name; `__` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {check.name: check for check in checks.checks(Machine(Tree(root)))}


def test_json_has_a_check_for_every_extra_runtime_and_meter() -> None:
    done = CliRunner().invoke(doctor.command, ["--json"])
    assert done.exit_code == 0, done.output
    listed: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    names = [check["name"] for check in listed]
    assert len(names) == len(set(names))
    assert {"extra gguf", "extra onnx", "extra tflite", "extra report", "extra hub"} <= {*names}
    assert {"runtime llama.cpp", "runtime ONNX Runtime", "runtime LiteRT"} <= {*names}
    assert {"meter good", "meter hidden", "power source", "cpu turbo", "temperature"} <= {*names}
    assert {check["state"] for check in listed} <= {"ok", "absent", "unsure"}


def test_a_meter_tells_its_source_grade_and_coverage_and_is_released(tmp_path: Path) -> None:
    closed = PackageMeter.closed
    meter = found_on(tmp_path)["meter good"]
    assert meter.state == "ok" and meter.mend is None
    assert meter.found == (
        "good:package-0, grade B: covers CPU package; not in it: display, memory"
    )
    assert PackageMeter.closed == closed + 1


def test_an_unusable_meter_tells_why_and_what_mends_it(tmp_path: Path) -> None:
    meter = found_on(tmp_path)["meter hidden"]
    assert (meter.state, meter.mend) == ("absent", MEND)
    assert "not for this user" in meter.found


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("intel-psys", {"rapl"}),
        ("amd-wraps", {"rapl"}),
        ("laptop-on-battery", {"battery"}),
        ("no-source", set()),
    ],
)
def test_recorded_machines_name_their_source_and_why_the_others_are_none(
    monkeypatch: pytest.MonkeyPatch, name: str, usable: set[str]
) -> None:
    monkeypatch.setattr(meters, "kinds", REAL_KINDS)
    clock = HandClock()
    machine = Machine(played(name, clock, Power([(0, 9.0)])), clock)
    found = [c for c in checks.checks(machine) if c.name.startswith("meter ")]
    assert usable <= {c.name.removeprefix("meter ") for c in found if c.state == "ok"}
    if not usable:
        assert {c.state for c in found} == {"absent"}
    assert {c.name.removeprefix("meter ") for c in found} == set(REAL_KINDS())
    assert [c for c in found if c.state == "absent" and not c.found] == []


class Absent:
    name = "Fast"

    def version(self) -> str:
        raise MissingDependency("running fast files", "fast")


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point = SimpleNamespace(load=lambda: Absent)
    monkeypatch.setattr(checks, "entry_points", lambda group: [point])
    check = found_on(tmp_path)["runtime Fast"]
    assert check.state == "absent" and check.mend == 'pip install "edgegauge[fast]"'


def test_a_machine_that_hides_everything_is_unsure_and_not_absent(tmp_path: Path) -> None:
    found = found_on(tmp_path)
    for name in ("power source", "cpu governor", "cpu turbo", "temperature", "throttling"):
        assert found[name].state == "unsure" and "not visible" in found[name].found, name
    assert found["peak memory by phase"].state == "unsure"


@pytest.mark.parametrize(
    ("path", "text", "name", "state", "seen", "mend"),
    [
        ("sys__devices__system__cpu__intel_pstate__no_turbo", "0", "cpu turbo", "unsure",
         "do not last", "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"),
        ("sys__devices__system__cpu__intel_pstate__no_turbo", "1", "cpu turbo", "ok", "off", None),
        ("sys__devices__system__cpu__cpu0__cpufreq__scaling_governor", "powersave",
         "cpu governor", "unsure", "powersave",
         "sudo cpupower frequency-set --governor performance"),
        ("sys__class__thermal__thermal_zone0__temp", "45600", "temperature", "ok", "46 °C", None),
        ("sys__class__thermal__thermal_zone0__temp", "81000", "temperature", "unsure", "81 °C",
         "let it cool down, add a fan or a heat sink, and measure again"),
        ("sys__devices__platform__soc__soc:firmware__get_throttled", "0", "throttling", "ok",
         "none", None),
        ("sys__devices__platform__soc__soc:firmware__get_throttled", "50005", "throttling",
         "unsure", "under-voltage, throttling now",
         "use the power supply that its maker names, on a short cable"),
        ("sys__devices__platform__soc__soc:firmware__get_throttled", "80000", "throttling",
         "unsure", "soft temperature limit since boot",
         "let it cool down, add a fan or a heat sink, and measure again"),
        ("commands__pmset.txt", "Now drawing from 'Battery Power'", "power source", "unsure",
         "battery", "connect the charger, to measure speed"),
        ("commands__pmset.txt", "Now drawing from 'AC Power'", "power source", "ok", "mains", None),
        ("proc__meminfo", "SwapTotal: 900000 kB\nSwapFree: 100000 kB", "swap", "unsure",
         "781 MiB in use", "close other programs, then: sudo swapoff -a && sudo swapon -a"),
        ("proc__meminfo", "SwapTotal: 900000 kB\nSwapFree: 900000 kB", "swap", "ok", "not", None),
        ("proc__loadavg", "0.02 0 0 1/2 3", "other load", "ok", "load average 0.02", None),
        ("proc__loadavg", "900.5 0 0 1/2 3", "other load", "unsure", "will be noisy",
         "stop other programs, or wait until it is done"),
    ],
)  # fmt: skip
def test_what_may_disturb_a_measurement(
    tmp_path: Path, path: str, text: str, name: str, state: str, seen: str, mend: str | None
) -> None:
    check = found_on(tmp_path, **{path: text})[name]
    assert (check.state, check.mend) == (state, mend)
    assert seen in check.found


def test_the_table_is_readable_at_100_columns(tmp_path: Path) -> None:
    found = found_on(tmp_path, proc__loadavg="900.5 0 0 1/2 3")
    out = io.StringIO()
    Console(file=out, width=100).print(doctor.rows(list(found.values())))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    for check in found.values():
        assert any(line.startswith(check.name) and check.state in line for line in lines), check
    assert any(line.strip() == f"> {MEND}" for line in lines), "a command is not broken"


def test_text_has_the_same_checks_as_json() -> None:
    text = CliRunner().invoke(doctor.command, [])
    assert text.exit_code == 0
    for name in ("meter good", "meter hidden", "runtime LiteRT", "other load"):
        assert name in text.stdout
