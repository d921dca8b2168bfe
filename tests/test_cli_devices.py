"""`edgegauge devices` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgegauge.cli import main
from edgegauge.device import known_ids, load, profiles_folder
from edgegauge.errors import MeasurementError
from edgegauge.host.bandwidth import Readings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `edgegauge devices ...` in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["devices", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return execute


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read bandwidth without reading: 8 GB/s for each thread."""

    def measure(counts: list[int], *, progress: Callable[[int, int], None], **_: Any) -> Readings:
        for done, threads in enumerate(counts):
            progress(done, threads)
        rates = {n: 8.0 * n for n in counts}
        return Readings(gb_per_s=rates, cached_gb_per_s=50, buffer_bytes=2**26, notes=["A note."])

    monkeypatch.setattr("edgegauge.host.bandwidth.measure_read", measure)


def test_list_has_every_device_and_fits_a_terminal(call: Call) -> None:
    status, out, err = call("list")
    lines = [line.rstrip() for line in out.splitlines()]
    assert status == 0
    assert sorted(line.split()[0] for line in lines if line.startswith("  ")) == known_ids()
    assert max(map(len, lines)) <= 80
    assert lines.index("module") < lines.index("phone")
    eight, sixteen = (out.index(f"raspberry-pi-5-{gb}gb") for gb in (8, 16))
    assert eight < sixteen
    pixel = next(line for line in lines if "google-pixel-8-8gb" in line)
    assert pixel.split()[-4:] == ["2.2", "-", "9", "17.6"]  # its bandwidth is not known
    assert "devices show ID" in err


def test_list_of_a_kind_and_of_words(call: Call) -> None:
    _, out, _ = call("list", "--json", "--kind", "phone", "--kind", "tablet", "apple")
    kinds = {d["kind"] for d in json.loads(out)["devices"]}
    assert kinds == {"phone", "tablet"}
    _, out, _ = call("list", "--json", "BCM2712", "16")  # a chip
    assert [d["id"] for d in json.loads(out)["devices"]] == ["raspberry-pi-5-16gb"]
    status, out, err = call("list", "--kind", "phone", "raspberry")
    assert (status, out) == (1, "") and "is phone raspberry" in err
    assert call("list", "--kind", "toaster")[0] == 2


def test_list_json(call: Call) -> None:
    _, out, _ = call("list", "--json")
    document = json.loads(out)
    devices = {d["id"]: d for d in document["devices"]}
    assert document["format"] == 1 and list(devices) == known_ids()
    pi = devices["raspberry-pi-5-8gb"]
    assert pi["app_bytes"]["value"] == 7.94e9
    assert pi["app_bytes"]["unit"] == "bytes" and pi["app_bytes"]["kind"] == "stated"
    assert "sbc-bench" in pi["app_bytes"]["source"]
    assert pi["bandwidth_bytes_per_s"]["source"].startswith("4267 MT/s x 32 bit / 8; ")
    assert pi["battery_wh"] is None
    assert devices["google-pixel-8-8gb"]["bandwidth_bytes_per_s"] is None


@pytest.mark.parametrize("device", known_ids())
def test_show_gives_every_figure_with_its_source(device: str, call: Call) -> None:
    status, out, _ = call("show", device)
    text = " ".join(out.split())
    profile = load(device)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 120  # what a pipe gets
    assert profile.name in text
    memory = profile.memory
    for sourced in (memory.ram_gb, memory.app_gb, memory.llm_decode_gb_per_s):
        if sourced is not None:
            value = f"{sourced.value:.3g}" if sourced.value >= 1 else f"{sourced.value * 1000:.0f}"
            assert value in text
            assert sourced.source.split()[0] in text


def test_show_json_is_the_profile(call: Call) -> None:
    _, out, _ = call("show", "apple-iphone-15-pro", "--json")
    document = json.loads(out)
    assert document["memory"]["app_gb"]["value"] == 3.38
    assert "llm_decode_gb_per_s" not in document["memory"]  # blanks are left out


def test_show_a_file_and_an_unknown_id(call: Call) -> None:
    shown = call("show", profiles_folder() / "raspberry-pi-zero-2-w.toml")
    assert shown[0] == 0 and "Raspberry Pi Zero 2 W" in shown[1]
    status, out, err = call("show", "raspberry-pi-6")
    assert (status, out) == (1, "")
    assert "no device profile 'raspberry-pi-6'" in err and "hint: " in err


def test_validate_reports_all_problems_of_all_files(call: Call, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text((profiles_folder() / "orange-pi-5-8gb.toml").read_text())
    bad = tmp_path / "bad.toml"
    bad.write_text(good.read_text().replace("value = 33.8", "value = -3").replace("kind", "kin"))
    missing = tmp_path / "missing.toml"
    status, out, err = call("validate", good, bad, missing)
    assert status == 1
    assert out == f"ok: {good} (orange-pi-5-8gb)\n"
    assert f"memory.bandwidth_gb_per_s.value: must be > 0, got -3 @ {bad}" in err
    assert f"kind: required, but missing @ {bad}" in err
    assert f"kin: unknown key @ {bad}" in err
    assert f"cannot read {missing}: No such file or directory" in err


def test_validate_json_and_status(call: Call, tmp_path: Path) -> None:
    shipped = sorted(profiles_folder().glob("*.toml"))
    status, out, _ = call("validate", *shipped, "--json")
    assert status == 0 and all(f["valid"] for f in json.loads(out)["files"])
    empty = tmp_path / "empty.toml"
    empty.touch()
    status, out, _ = call("validate", empty, "--json")
    (file,) = json.loads(out)["files"]
    assert status == 1 and file["id"] is None and len(file["problems"]) == 6


def test_validate_wants_a_file(call: Call) -> None:
    assert call("validate")[0] == 2


def test_detect_writes_a_profile_that_other_commands_take(
    call: Call, measured: None, tmp_path: Path
) -> None:
    path = tmp_path / "my-device.toml"
    status, out, err = call("detect", "-o", path)
    assert status == 0
    assert "read, 1 thread" in out and "measured on this machine" in " ".join(out.split())
    assert "reading memory with 1 thread\n" in err
    assert "note: A note." in err and f"written: {path}" in err
    assert call("validate", path)[0] == 0
    memory = load(str(path)).memory
    assert memory.read_1_thread_gb_per_s is not None
    assert memory.read_1_thread_gb_per_s.value == 8
    assert memory.bandwidth_gb_per_s is None


def test_detect_json(call: Call, measured: None) -> None:
    _, out, err = call("detect", "--json")
    document = json.loads(out)
    assert document["profile"]["memory"]["read_gb_per_s"]["value"] >= 8
    assert document["facts"]["read_in_cache_gb_per_s"] == 50
    assert document["notes"][-1] == "A note." and "note: A note." in err


def test_detect_without_bandwidth(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise MeasurementError("measured although told not to")

    monkeypatch.setattr("edgegauge.host.bandwidth.measure_read", never)
    status, out, err = call("detect", "--no-bandwidth", "--json")
    assert status == 0 and "told not to" not in err
    assert "read_gb_per_s" not in json.loads(out)["profile"]["memory"]


def test_detect_into_a_folder_that_is_a_file(call: Call, measured: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = call("detect", "-o", tmp_path / "file" / "x.toml")
    assert status == 1 and "cannot write" in err
    assert call("detect", "-o", tmp_path / "x.json")[0] == 2


def test_the_installed_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgegauge", "devices", "list"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "raspberry-pi-4b-4gb" in done.stdout
