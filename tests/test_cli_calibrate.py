"""`edgegauge devices calibrate` as a user calls it, on models that take no time to run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stand_in_runtime import STEP_S, StandInRuntime

from edgegauge import calibrate, calibration_runs, detect
from edgegauge.calibration_shapes import LEAST_PAST, MOST_PAST, RECIPES, SHAPES, plan
from edgegauge.cli import main
from edgegauge.device import DeviceProfile, as_document, load
from edgegauge.errors import MeasurementError
from edgegauge.find_model import resolve_model
from edgegauge.speed_model import speed_model
from edgegauge.work import work_of

Call = Callable[..., tuple[int, str, str]]
Plan = Iterator[tuple[str, str, tuple[int, ...]]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `edgegauge devices calibrate ...` in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["devices", "calibrate", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return execute


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small models in place of thirteen."""

    def plan(file_format: str) -> Plan:
        yield "shallow", "f32", (16,)
        yield "deep", "f32", (16,)

    monkeypatch.setattr(calibrate, "plan", plan)
    monkeypatch.setattr(calibration_runs, "MOST_RUNS", 2)
    monkeypatch.setattr(calibration_runs, "GENERATED", 4)
    # Whether runs repeat is the machine's business: here they always do.
    monkeypatch.setattr(calibration_runs, "AGREE", 1e9)
    monkeypatch.setattr(calibration_runs, "MOST_DOUBTED", 1.0)


@pytest.fixture
def stand_in(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "installed_runtimes", lambda: {"llama.cpp": StandInRuntime()})


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A profile of this machine with things in it that only a user knows."""
    found = detect.detect(measure=None).profile
    profile = found.model_copy(update={"name": "The one in the kitchen", "notes": "Runs hot."})
    path = tmp_path / "mine.toml"
    detect.write_profile(path, profile)
    return path


def test_the_calibration_joins_the_profile_and_predicts(
    stand_in: None, mine: Path, call: Call
) -> None:
    before = as_document(load(str(mine)))
    status, out, err = call(mine, "--threads", "1")
    assert status == 0
    assert "layer" in out and "llama.cpp 1, 1 thread" in out and "±" in out
    assert "temporary folder" in err and f"written: {mine}" in err
    after = as_document(load(str(mine)))
    made = after.pop("calibration")["llama.cpp"]
    assert after == before
    assert made["threads"] == 1 and made["runtime_version"] == "1"
    assert "4 runs of 2 synthetic models" in made["source"]
    speed = speed_model(load(str(mine)), "llama.cpp")
    work = work_of(resolve_model("stories260k").spec, "f32")
    assert "calibration" in speed.decode(work, 0).source
    shape = SHAPES["deep"].spec("deep", "f32", "gguf", 1e6)
    assert speed.decode(work_of(shape, "f32"), 10).seconds > 0.9 * STEP_S


def test_show_says_what_is_calibrated(
    stand_in: None, mine: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    call(mine, "--threads", "1")
    with pytest.raises(SystemExit):
        main(["devices", "show", str(mine)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "calibrated llama.cpp 1, threads: 1 measured on this machine on" in shown


def test_another_runtimes_calibration_stays(stand_in: None, mine: Path, call: Call) -> None:
    call(mine, "--threads", "1")
    profile = load(str(mine))
    assert profile.calibration is not None
    there = profile.calibration["llama.cpp"]
    detect.write_profile(
        mine, profile.model_copy(update={"calibration": {"litert": there, "llama.cpp": there}})
    )
    call(mine, "--threads", "1")
    again = load(str(mine)).calibration
    assert again is not None and again["litert"] == there and set(again) == {"litert", "llama.cpp"}


def test_without_a_profile_the_machine_is_detected(
    stand_in: None, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = detect.detect(measure=None)
    monkeypatch.setattr(detect, "detect", lambda: found)
    target = tmp_path / "new.toml"
    status, out, err = call("--json", "--threads", "1", "-o", target)
    document = json.loads(out)
    assert status == 0 and "describing this machine" in err
    assert document["format"] == 1
    written = tomllib.loads(target.read_text())
    assert document["profile"] == written
    assert document["calibration"] == written["calibration"]


def test_what_does_not_repeat_is_written_and_called_untrustworthy(
    stand_in: None, mine: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_runs, "AGREE", -0.5)
    status, _, err = call(mine, "--threads", "1")
    assert status == 4
    assert "2 of 2 workloads did not repeat" in err and "quiet machine" in err
    calibration = load(str(mine)).calibration
    assert calibration is not None and not calibration["llama.cpp"].trustworthy
    source = speed_model(load(str(mine)), "llama.cpp").decode(_work(), 0).source
    assert "disturbed" in source


def _work() -> Any:
    return work_of(resolve_model("stories260k").spec, "q8_0")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), MeasurementError("the child was killed")])
def test_ended_half_way_the_old_profile_stays_and_no_models(
    end: BaseException, stand_in: None, mine: Path, call: Call, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before, models = mine.read_bytes(), tmp_path / "models"
    models.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(models))
    measured = calibration_runs._measured
    calls = []

    def fail(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise end
        return measured(*arguments)

    monkeypatch.setattr(calibration_runs, "_measured", fail)
    status, _, _ = call(mine, "--threads", "1")
    assert status in (1, 130)
    assert mine.read_bytes() == before
    assert not list(models.iterdir())
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_profile_of_another_machine_is_refused(
    stand_in: None, call: Call, tmp_path: Path
) -> None:
    target = tmp_path / "other.toml"
    other = load("raspberry-pi-5-8gb")
    clusters = [other.cpu.clusters[0].model_copy(update={"count": 77})]
    cpu = other.cpu.model_copy(update={"clusters": clusters})
    detect.write_profile(target, other.model_copy(update={"cpu": cpu}))
    status, _, err = call(target)
    assert status == 1
    assert "77 cores" in err and "belongs to the machine" in err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["raspberry-pi-5-8gb"], 2, "name a file with -o"),
        (["-o", "x.json"], 2, "ends in .toml"),
        (["--runtime", "tensorrt", "-o", "x.toml"], 1, "not installed: tensorrt"),
        (["absent.toml"], 1, "cannot read absent.toml"),
    ],
)
def test_wrong_calls(
    arguments: list[str], status: int, said: str, stand_in: None, call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = detect.detect(measure=None)
    monkeypatch.setattr(detect, "detect", lambda: found)
    left, _, err = call(*arguments)
    assert left == status and said in err


@pytest.mark.parametrize("runtime", ["llama.cpp", "onnxruntime", "litert"])
def test_the_real_runtimes(runtime: str, quick: None) -> None:
    installed = calibrate.installed_runtimes()
    if runtime not in installed:
        pytest.skip(f"{runtime} is not installed")
    profile: DeviceProfile = detect.detect(measure=None).profile
    found = calibrate.calibrate(runtime, installed[runtime], profile, threads=1).calibration
    assert found.runtime_version and found.cache_bytes > 0
    assert all(c.value >= 0 and c.error >= 0 for c in found.decode.values())
    assert "layer" in found.decode and "pass" in found.prefill


def test_the_plan_has_models_on_both_sides_of_the_cache() -> None:
    for file_format in RECIPES:
        for cache in (1e6, 32e6, 96e6):
            sizes = {}
            for shape, recipe, _ in plan(file_format):
                spec = SHAPES[shape].spec(shape, recipe, file_format, cache)
                sizes[shape, recipe] = work_of(spec, recipe, file_format).weight_bytes
            past = [s for (shape, _), s in sizes.items() if shape in ("wide", "headed")]
            assert len(past) == 6
            assert all(size >= 0.9 * min(4 * cache, MOST_PAST) for size in past)
            assert all(size >= LEAST_PAST for size in past)
            inside = [s for (shape, r), s in sizes.items() if shape == "small" and r != "f32"]
            assert cache < 30e6 or max(inside) < cache
            assert calibrate.disk_bytes(file_format, cache) < 3e9
