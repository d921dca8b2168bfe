"""`edgegauge measure --device ID --emulate` on the ladder, and what it rests on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgegauge import ladder
from edgegauge.artifact import open_artifact
from edgegauge.cli import main
from edgegauge.cli import measure_emulate as cli
from edgegauge.convert import converter_for, prepare
from edgegauge.device import load
from edgegauge.document import read_json
from edgegauge.emulate import checks, emulator
from edgegauge.emulate.group import Limits
from edgegauge.emulate.judge import measure_emulated
from edgegauge.emulate.libraries import library_bytes
from edgegauge.emulate.places import DELEGATE, Place
from edgegauge.emulation import Boundary
from edgegauge.figure import Figure
from edgegauge.host.tree import Tree
from edgegauge.measure import page_cache, worker
from edgegauge.measure.runtimes import runtime_for
from edgegauge.result import FailedResult, Result, Workload
from edgegauge.units import MB

QUICK = ["--prompt-tokens", "8", "--generated-tokens", "4", "--threads", "1", "--runs", "1",
         "--repetitions", "1"]  # fmt: skip
WORKLOAD = Workload(prompt_tokens=8, generated_tokens=4, threads=1, runs=1, repetitions=1)
NEEDS = {"gguf": "llama_cpp", "onnx": "onnxruntime", "tflite": "ai_edge_litert"}
DEVICE = """
format = 1
id = "little"
name = "Little"
kind = "sbc"
os = "linux"
[cpu]
soc = "none"
core_class = "x86-avx2"
features = ["avx2"]
source = "made up"
[[cpu.clusters]]
core = "core"
count = 1
[memory]
ram_gb = {{ value = {gb}, source = "made up" }}
app_gb = {{ value = {gb}, source = "made up" }}
bandwidth_gb_per_s = {{ value = 10.0, source = "made up" }}
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="limits are Linux's")


@pytest.fixture(scope="module", params=list(NEEDS))
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest ladder model in each format."""
    return converted(request.param, tmp_path_factory.mktemp(request.param))


def converted(file_format: str, folder: Path) -> Path:
    pytest.importorskip(NEEDS[file_format])
    job = prepare(str(ladder.path() / ladder.MODELS[0]), "int8", file_format)
    converter_for(file_format).convert(job.into(folder), lambda done, note: None)
    return folder


@pytest.fixture
def device(tmp_path: Path) -> Callable[[float], Path]:
    """Writes the profile of a device whose applications may use so many GB."""

    def write(gb: float) -> Path:
        path = tmp_path / f"little-{gb}.toml"
        path.write_text(DEVICE.format(gb=gb))
        return path

    return write


def status_of(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in ("measure", *arguments)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def groups_of_this_process(place: Place) -> list[str]:
    folders = (place.memory, place.cpuset or place.memory)
    names = [name for folder in folders for name in Tree().names(folder)]
    return [name for name in names if re.match(rf"edgegauge-\d+-{os.getpid()}-", name)]


def test_it_fits_a_device_with_room_and_the_rates_are_this_hosts(
    place: Place, artifact: Path, device: Callable[[float], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "r.json"
    asked = [artifact, *QUICK, "--device", device(0.4), "--emulate", "--meter", "none", "-o", path]
    assert status_of(*asked) == 0
    out, _ = capsys.readouterr()
    assert "emulated little, 8 tokens at depth 0: fits in 400.0 MB on 1 core (cgroup v" in out
    assert "predicted: fits with ~" in out
    assert "predicted for the device from its profile alone: decode ~" in out
    assert "energy: - (no joules are given under emulation" in out and "J/token" not in out
    result = read_json(path, Result)
    found = result.emulation
    assert found and (found.verdict, found.enforced_by) == ("fits", place.version)
    assert found.whole is True
    assert found.peak_bytes and found.peak_bytes.kind == "emulated"
    assert found.libraries_bytes < found.peak_bytes.value < 400 * MB
    assert found.expected and found.expected.decode_tok_per_s
    assert found.expected.decode_tok_per_s.kind == "predicted"
    assert result.summary.memory.outcome == "fits" and result.energy == []
    decode = result.summary.decode_tok_per_s
    assert decode and decode.kind == "measured"
    assert decode.source.endswith("this host's, limited as little")


def test_out_of_memory_is_a_result_and_leaves_nothing_behind(
    place: Place, artifact: Path, device: Callable[[float], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, before = tmp_path / "r.json", psutil.Process().children(recursive=True)
    asked = [artifact, *QUICK, "--device", device(0.02), "--emulate", "-o", path, "--json"]
    assert status_of(*asked) == 3
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document == json.loads(path.read_text())
    assert document["emulation"]["verdict"] == "out of memory"
    assert "error" not in err
    failed = read_json(path, FailedResult)
    assert [f.kind for f in failed.failures] == ["out of memory"]
    assert "the kernel ended it at the limit of 20.0 MB" in failed.failures[0].reason
    assert groups_of_this_process(place) == []
    assert psutil.Process().children(recursive=True) == before


def test_the_limits_are_searched_for_on_request(
    place: Place, device: Callable[[float], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def found(emulator: object, workload: Workload, **options: object) -> Boundary:
        figure = Figure(50e6, "bytes", "emulated", "bisection", 49.6e6, 50e6)
        return Boundary(fits_bytes=figure, survives_bytes=None, trials=9)

    monkeypatch.setattr(cli, "find_boundary", found)
    folder, path = converted("gguf", tmp_path / "gguf"), tmp_path / "r.json"
    asked = [folder, *QUICK, "--device", device(0.4), "--emulate", "--find-limit", "-o", path]
    assert status_of(*asked) == 0
    out, _ = capsys.readouterr()
    assert re.search(r"it fits: 50.0 MB \[49.6 MB .. 50.0 MB\], predicted ~\S+ MB \(\S+ % too", out)
    assert "it does not die: more than this host has" in out
    emulation = read_json(path, Result).emulation
    assert emulation and emulation.boundary and emulation.boundary.trials == 9


def test_the_limit_is_less_the_libraries_and_a_model_in_memory_already_is_told(
    place: Place, device: Callable[[float], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    limits, dropped = list[Limits](), list[Path]()

    def limited(*given: Any) -> Limits:
        limits.append(Limits(*given))
        return limits[-1]

    monkeypatch.setattr(emulator, "Limits", limited)
    monkeypatch.setattr(page_cache, "drop", dropped.extend)
    monkeypatch.setattr(page_cache, "cached_bytes", lambda path: 10**12)
    folder, path = converted("gguf", tmp_path / "gguf"), tmp_path / "r.json"
    asked = [folder, *QUICK, "--device", device(0.4), "--emulate", "-o", path]
    assert status_of(*asked) == 4
    assert "in memory at somebody else's charge" in " ".join(capsys.readouterr().err.split())
    emulation = read_json(path, Result).emulation
    assert emulation and (emulation.verdict, emulation.whole) == ("fits", False)
    assert emulation.libraries_bytes > 10 * MB
    assert [(one.memory_bytes, len(one.cpus)) for one in limits] == [
        (400 * MB - emulation.libraries_bytes, 1)
    ]
    assert set(limits[0].settings.values()) <= {"128"}  # kB read ahead, where the disk has that
    assert dropped == open_artifact(folder).paths


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--emulate"], "--emulate needs --device"),
        (["--device", "raspberry-pi-5-8gb", "--find-limit"], "--find-limit needs --emulate"),
        (["--meter", "rapl"], "no joules under emulation"),
        (["--energy-seconds", "60"], "no joules under emulation"),
        (["--usage", "chat"], "no joules under emulation"),
        (["--battery-wh", "10"], "no joules under emulation"),
        (["--sustained"], "rates under emulation are this host's"),
        (["--most-runs", "4"], "rates under emulation are this host's"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    options: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    if "--emulate" not in options and "--find-limit" not in options:
        options = [*options, "--device", "raspberry-pi-5-8gb", "--emulate"]
    assert status_of(model, *options) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_without_a_group_it_says_what_is_not_enforced(
    tmp_path: Path, device: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "usable_place", lambda tree: (None, ["/x: Permission denied"]))
    opened = open_artifact(converted("onnx", tmp_path / "onnx"))
    (result,) = measure_emulated(emulator.Emulator(load(str(device(0.4))), opened), [WORKLOAD])
    found = result.emulation
    assert found and found.enforced_by == "process limits"
    assert found.verdict == "fits" and "were resident at most" in found.reason
    assert found.peak_bytes is None and found.whole is None
    told = " ".join(result.warnings)
    assert "pages of files are not limited" in told
    assert "/x: Permission denied" in told and DELEGATE in told
    unknown = found.model_copy(update={"verdict": None})
    assert cli.emulated_status([result.model_copy(update={"emulation": unknown})]) == 4


def test_the_doctor_says_what_can_be_enforced(tmp_path: Path, place: Place) -> None:
    assert checks.emulation_check(Tree()).found.startswith(f"memory by {place.version}")
    without = checks.emulation_check(Tree(tmp_path))
    assert without.state == "unsure" and "pages of files are not limited" in without.found


def test_dropped_pages_are_gone_and_read_ones_are_back(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(os.urandom(3_000_000))
    if page_cache.cached_bytes(file) != 3_000_000:
        pytest.skip("this system does not tell what is in its page cache")
    page_cache.drop([file])
    if page_cache.cached_bytes(file):
        pytest.skip("this file system keeps its pages")
    with file.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        stream.read(8192)
    assert 8192 <= (page_cache.cached_bytes(file) or 0) < 3_000_000


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    assert page_cache.cached_bytes(file) == 0


def test_the_libraries_of_a_runtime_are_file_pages_of_tens_of_megabytes() -> None:
    pytest.importorskip("onnxruntime")
    job = worker.job(runtime_for("onnx"), Path("none"), WORKLOAD.model_dump(), None)
    assert 10 * MB < library_bytes(job) < 300 * MB
