"""The wheel as users get it: the right files, and a base install that works on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SHIPPED = {
    "src/edgegauge/": "edgegauge/",
    "converters/edgegauge_converters/": "edgegauge_converters/",
    "device_profiles/": "edgegauge/device_profiles/",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel (built from the sdist, as a release is) and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def base_requirements(name: str, found: set[str]) -> set[str]:
    """Names of everything a plain `pip install NAME` brings, NAME left out."""
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in found:
            found.add(requirement.name)
            base_requirements(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its base requirements and nothing else.

    The requirements are linked from the running environment, so no network is needed; whatever
    is not declared is not there, as on a user's machine.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    (wheel,) = built.glob("*.whl")
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = home.glob("lib/python*/site-packages")
    for name in base_requirements("edgegauge", set()):
        for file in distribution(name).files or []:
            top = file.parts[0]
            source = Path(str(distribution(name).locate_file(top)))
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(source)
    return home / "bin"


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
