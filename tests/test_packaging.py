"""The wheel as users get it: the right files, and a base install that works on its own."""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = {
    "src/edgegauge/": "edgegauge/",
    "converters/edgegauge_converters/": "edgegauge_converters/",
    "device_profiles/": "edgegauge/device_profiles/",
}

pytestmark = pytest.mark.slow


def run(bin_folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(bin_folder)}
    command = [str(bin_folder / "edgegauge"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=bin_folder, check=False
    )


def tracked(prefix: str) -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", prefix], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(listing.stdout.split())


def test_wheel_holds_exactly_the_tracked_files(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    expected = {
        target + path.removeprefix(prefix)
        for prefix, target in SHIPPED.items()
        for path in tracked(prefix)
    }
    assert shipped == expected


def test_sdist_holds_the_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("tests/test_packaging.py") for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("devices", "list"),
        ("devices", "detect"),
        ("models", "list", "--json"),
        ("fit", "--device", "raspberry-pi-5-8gb"),
        ("doctor",),
    ],
)
def test_base_install_works_without_extras(installed: Path, arguments: tuple[str, ...]) -> None:
    done = run(installed, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_missing_extra_is_named_with_its_command(installed: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = run(installed, "convert", "smollm2-135m", "--synthetic", "--format", "gguf",
               "--recipe", "q8_0", "-o", out)  # fmt: skip
    assert done.returncode == 1
    assert 'pip install "edgegauge[gguf]"' in done.stderr
    assert "Traceback" not in done.stderr
