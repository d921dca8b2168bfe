"""The environment of an engine: built on demand, complete or absent, apart from the user's own.

    python = python_of(engine, heard)        # builds it the first time, which takes minutes

It is a virtual environment in the user's cache folder, `edgegauge/engines/<engine>-<key>`, where
the key is that of the pinned requirements and this Python. It is made under a temporary name and
renamed when it is complete; what a killed build left is removed by the next. Of two builds at once
the second waits for the first. Deleting the folder is always safe.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgegauge.engines import Engine
from edgegauge.engines.process import Heard, execute
from edgegauge.errors import ConversionError
from edgegauge.units import format_bytes

BUILD_TIMEOUT_S = 2 * 3600.0
"""For everything: 1 to 4 GB over a slow line."""

PIP = (
    "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check",
    "--progress-bar=off", "--only-binary=:all:",
)  # fmt: skip
"""Wheels only: nothing is compiled, and no package executes code while it is installed."""

PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_.*|TMPDIR|XDG_CACHE_HOME|XDG_CONFIG_HOME|SSL_CERT_(FILE|DIR)"
    r"|REQUESTS_CA_BUNDLE|(HTTPS?|ALL|NO)_PROXY|PIP_(INDEX_URL|EXTRA_INDEX_URL|NO_INDEX|FIND_LINKS"
    r"|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|CACHE_DIR|NO_CACHE_DIR|DEFAULT_TIMEOUT|TIMEOUT|RETRIES"
    r"|CONFIG_FILE|KEYRING_PROVIDER)",
    re.IGNORECASE,
)
"""What pip may see of this environment: how to reach packages, not how to install them."""

MENDS = {
    "No space left": "set XDG_CACHE_HOME to a folder on a disk with more room, or free some",
    "No matching distribution": "check the network and pip's settings; not every version of Python"
    " and every processor has all these packages",
    "ensurepip": "install the system's package of it, such as python3-venv",
}
"""Words of a failure, and what mends it."""


@dataclass(frozen=True, slots=True)
class Built:
    """What is there of an engine: its environment if complete, and the bytes of it and of others.

    `older` are environments of other requirements or Pythons.
    """

    path: Path | None
    bytes: int
    older: list[Path]


def cache_folder() -> Path:
    """Where environments are kept."""
    return platformdirs.user_cache_path("edgegauge") / "engines"


def environment_path(engine: Engine) -> Path:
    """Where the environment of this engine is or goes."""
    version = f"{sys.implementation.cache_tag} {sys.platform} {platform.machine()}"
    key = hashlib.sha256(engine.requirements.read_bytes() + version.encode()).hexdigest()
    return cache_folder() / f"{engine.name}-{key[:12]}"


def is_built(engine: Engine) -> bool:
    """Whether the environment is complete and its Python still there."""
    return _python(environment_path(engine)).exists()


def state_of(engine: Engine) -> Built:
    """What is there of this engine; reads sizes, builds nothing."""
    path = environment_path(engine)
    name = re.compile(re.escape(engine.name) + r"-[0-9a-f]{12}")
    found = cache_folder().iterdir() if cache_folder().is_dir() else iter(())
    older = sorted(p for p in found if name.fullmatch(p.name) and p != path)
    return Built(path, _size(path), older) if is_built(engine) else Built(None, 0, older)


def python_of(engine: Engine, heard: Heard) -> Path:
    """The Python of the engine's environment, which is built if need be.

    `heard` is told what is being done. Raises ConversionError, and RunTimeout for a build that
    takes longer than BUILD_TIMEOUT_S.
    """
    final = environment_path(engine)
    if is_built(engine):
        return _python(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(final, heard):
            if not is_built(engine):  # by the one waited for
                _build(engine, final, heard)
    except OSError as error:
        raise ConversionError(
            f"the environment of {engine.name} cannot be built in {final.parent}: {error.strerror}",
            hint="set XDG_CACHE_HOME to a folder that can be written to",
        ) from error
    return _python(final)


def packages_path(python: Path) -> list[str]:
    """The folders with the packages of an environment, as importlib.metadata takes them."""
    return [str(p) for p in python.parent.parent.glob("lib/python*/site-packages")]


def _build(engine: Engine, final: Path, heard: Heard) -> None:
    for left in final.parent.glob(f".{final.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    _check_space(engine, final.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent))
    try:
        _fill(engine, work, heard)
        if final.exists():  # its Python was removed
            shutil.rmtree(final)
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _fill(engine: Engine, work: Path, heard: Heard) -> None:
    """Make the environment and install the pinned packages; an empty list needs no pip."""
    python, name = str(_python(work)), f"of the environment of {engine.name}"
    commands = [("making", [sys.executable, "-I", "-m", "venv", "--without-pip", str(work)])]
    if _pins(engine.requirements):
        commands += [
            ("ensurepip", [python, "-I", "-m", "ensurepip", "--default-pip"]),
            ("pip", [python, *PIP, "-r", str(engine.requirements)]),
        ]
    for what, command in commands:
        heard(f"building the environment: {what}")
        try:
            execute(
                f"{what} {name}", command, environment=pip_environment(os.environ), folder=work,
                timeout_s=BUILD_TIMEOUT_S,
                heard=lambda line: heard(f"building the environment: {line}"),
            )  # fmt: skip
        except ConversionError as error:
            words = str(error)
            error.hint = next((m for said, m in MENDS.items() if said in words), error.hint)
            raise


def pip_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """The variables that pip sees: those of PASSED_ON, and none that would install elsewhere."""
    passed = {name: value for name, value in outer.items() if PASSED_ON.fullmatch(name)}
    return {**passed, "PIP_USER": "0", "PYTHONNOUSERSITE": "1"}


def _pins(requirements: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _check_space(engine: Engine, folder: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, engine.facts.disk_bytes
    if free < needed:
        raise ConversionError(
            f"the environment of {engine.name} takes {format_bytes(needed)} in {folder},"
            f" where {format_bytes(free)} are free",
            hint=MENDS["No space left"],
        )


@contextmanager
def _only_one(final: Path, heard: Heard) -> Iterator[None]:
    """Hold the lock of this environment; the system lets go of it however this process ends."""
    import fcntl  # POSIX only, as are the paths of an environment here

    with final.with_name(f"{final.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            heard("waiting for another build of the same environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _python(path: Path) -> Path:
    return path / "bin" / "python"


def _size(folder: Path) -> int:
    """Bytes on disk, hard links and symbolic links counted once or not at all."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(place, name))
            found += status.st_blocks * 512 // status.st_nlink
    return found
