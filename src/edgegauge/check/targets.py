"""What a gate comes to here: its subjects found on disk and in the catalog, its devices read.

    found = find_targets(gate, Path("ci/gate.toml"))
    found.targets, found.devices, found.left_out

Everything that the gate names and that is not there is told at once, with its place in the file.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgegauge.artifact import SUFFIX, Artifact, open_artifact
from edgegauge.check.gate import Gate, GateSubject, Paired, Quality
from edgegauge.check.quality import check_files
from edgegauge.check.subject import Subject, artifact_subject, model_subject
from edgegauge.device import DeviceProfile, load
from edgegauge.errors import InputError
from edgegauge.fit import recipes_for
from edgegauge.plan import locate

MOST_MATCHES = 1000
"""Artifacts that one pattern may match."""

MOST_CELLS = 100_000
"""Subjects x devices of one gate: some minutes of predictions."""


@dataclass(frozen=True, slots=True)
class Target:
    """A subject, and what the gate says of it."""

    subject: Subject
    asked: GateSubject


@dataclass(frozen=True, slots=True)
class Pair:
    """Two artifacts whose speed is compared, or one in two environments."""

    name: str
    asked: Paired
    candidate: Artifact
    baseline: Artifact
    python: str | None
    """The baseline's interpreter."""


@dataclass(frozen=True, slots=True)
class Targets:
    """All subjects and devices, in the order of the gate."""

    targets: list[Target]
    devices: dict[str, DeviceProfile]
    """By the name that the gate has for each."""
    pairs: list[Pair]
    left_out: list[str]
    """Sentences on recipes that a format has not got."""


def find_targets(gate: Gate, path: Path) -> Targets:
    """The subjects and devices of the gate at `path`; InputError with everything that is wrong."""
    base, problems = path.parent, list[str]()
    devices: dict[str, DeviceProfile] = {}
    for index, name in enumerate(gate.devices):
        with _noted(problems, f"devices.{index}"):
            devices[name] = load(str(base / name) if name.endswith(".toml") else name)
    targets: list[Target] = []
    left_out: list[str] = []
    with _noted(problems, "quality"):
        _check_quality(gate.quality, base)
    for index, asked in enumerate(gate.subject):
        with _noted(problems, f"subject.{index}"):
            _check_quality(asked.quality, base)
            targets += [Target(subject, asked) for subject in _subjects(asked, base, left_out)]
    pairs: list[Pair] = []
    for index, asked_pair in enumerate(gate.paired):
        with _noted(problems, f"paired.{index}"):
            pairs.append(_pair(asked_pair, base))
    for key, names in {
        "devices": [profile.id for profile in devices.values()],
        "subject": [target.subject.name for target in targets],
        "paired": [pair.name for pair in pairs],
    }.items():
        twice = [name for name, count in Counter(names).items() if count > 1]
        problems += [f"{key}: {name} is there twice" for name in twice]
    if not problems and len(targets) * len(devices) > MOST_CELLS:
        problems.append(f"{len(targets)} subjects on {len(devices)} devices: at most {MOST_CELLS}")
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        shown = [f"{problem} @ {path}" for problem in problems]
        raise InputError(f"{len(problems)} {noun} in {path}", shown)
    return Targets(targets, devices, pairs, list(dict.fromkeys(left_out)))


@contextmanager
def _noted(problems: list[str], where: str) -> Iterator[None]:
    """Keep what is wrong with the part of the gate at `where`, and go on."""
    try:
        yield
    except InputError as error:
        problems += [f"{where}: {problem}" for problem in error.problems or [str(error)]]


def _subjects(asked: GateSubject, base: Path, left_out: list[str]) -> Iterator[Subject]:
    """The subjects that one entry means."""
    if asked.artifact is not None:
        for path in _matches(asked.artifact, base):
            yield artifact_subject(open_artifact(path), _shown(path, base))
        return
    assert asked.model is not None
    stored, refused = recipes_for(asked.formats, asked.recipes)
    left_out += refused
    for file_format, recipes in stored.items():
        for recipe in recipes:
            yield model_subject(locate(asked.model, base), recipe, file_format)


def _check_quality(asked: Quality | None, base: Path) -> None:
    if asked is not None:
        check_files(asked, base)


def _pair(asked: Paired, base: Path) -> Pair:
    """The two sides of a comparison."""
    candidate = open_artifact(base / asked.artifact)
    against, python = asked.baseline or asked.artifact, asked.baseline_python
    if python is not None:
        python = str((base / python).absolute())
        if not Path(python).is_file():
            raise InputError(f"no such interpreter: {python}")
    where = f"{against} in {asked.baseline_python}" if python else against
    name = f"{asked.artifact} against {where}"
    return Pair(name, asked, candidate, open_artifact(base / against), python)


def _matches(pattern: str, base: Path) -> list[Path]:
    """The file or folder of this name, or those that match the pattern; at least one."""
    named = base / pattern
    if not any(mark in pattern for mark in "*?[") or named.exists():
        return [named]
    try:
        found = (p for p in base.glob(pattern) if not p.name.endswith(SUFFIX))
        paths = sorted(itertools.islice(found, MOST_MATCHES + 1))
    except (ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"cannot look for {pattern[:100]!r}: {error}") from None
    if not 0 < len(paths) <= MOST_MATCHES:
        count = "nothing" if not paths else f"more than {MOST_MATCHES} files"
        raise InputError(f"{pattern[:100]!r} matches {count} in {base.absolute()}")
    return paths


def _shown(path: Path, base: Path) -> str:
    """How reports call an artifact: its path from the gate's folder, whoever reads them."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
