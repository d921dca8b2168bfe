"""One run's control group: made, entered by the child, read, and removed whatever happens.

    place, refusals = usable_place(Tree())
    with confined(place, Limits(memory_bytes=512_000_000, cpus=(0, 1))) as cage:
        child.start(module, job, within=cage.within)
        cage.counted().oom_kills

A group's name says who made it: `edgegauge-<pid name space>-<pid>-<start time>-<number>`. A
`janitor` process removes it at the end and when this process dies, and writes back what was changed
of the kernel's settings. Should both be killed, the next one that makes a group in the same place
does it for them: of former values there is a record.

Without a place (None) the child gets limits of its own process only: on writable private memory
(RLIMIT_DATA) and cores. RLIMIT_AS is not used: it would count a mapped model in full.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from edgegauge.emulate import enter, janitor
from edgegauge.emulate.places import Place, places
from edgegauge.host.tree import Tree, fields, integer
from edgegauge.units import MB

_NUMBERS = count()
_NAME = re.compile(r"edgegauge-([0-9]+)-([0-9]+)-([0-9]+)-[0-9]+")
_LEAF = "edgegauge-others"
"""Where the processes of a crowded place are moved to."""
RECORDS = Path("/run")
"""Where the former values of settings are kept: like those, until the next start of the machine."""
_TRIAL_BYTES = 256 * MB
_TRIAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may use; `cpus` are the numbers of logical processors."""

    memory_bytes: int
    cpus: tuple[int, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Files of the kernel and what they shall hold meanwhile; without the right, as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the kernel counted of a group so far; None where it does not tell."""

    peak_bytes: int | None = None
    """Most that was charged: anonymous memory, page cache, and the kernel's own."""
    file_bytes: int | None = None
    """Page cache charged now."""
    refaulted_pages: int | None = None
    """Pages of files read again after they had been evicted."""
    major_faults: int | None = None
    oom_kills: int | None = None
    stalled_s: float | None = None
    """Time in which all its processes waited for memory."""


@dataclass(frozen=True, slots=True)
class Cage:
    """Limits that a child can be started in: `within` is the command before its own."""

    within: Sequence[str]
    place: Place | None = None
    folder: str = ""
    tree: Tree | None = None

    def counted(self) -> Counted:
        """The group's counters; nothing is counted without a group."""
        if self.tree is None or self.place is None:
            return Counted()
        return _counted(self.tree, self.folder, self.place)

    @property
    def swap_is_off(self) -> bool:
        """Whether the group keeps its processes from being swapped out."""
        if self.tree is None:
            return False
        names = ("swap.max", "memsw.limit_in_bytes", "swappiness")
        return any(self.tree.exists(f"{self.folder}/memory.{name}") for name in names)


@contextmanager
def confined(place: Place | None, limits: Limits, tree: Tree | None = None) -> Iterator[Cage]:
    """Limits for one child; OSError where the place does not allow a group."""
    if place is None:
        yield Cage(_entering((), limits.cpus, limits.memory_bytes))
        return
    tree = tree or Tree()
    sweep(place, tree)
    if place.crowded:
        _make_room(tree.root / place.memory)
    folders = _make(place, limits, tree.root)
    with _watched(folders, limits.settings):
        procs = [f"{folder}/cgroup.procs" for folder in folders]
        memory = folders[0].relative_to(tree.root)
        yield Cage(_entering(procs, limits.cpus, None), place, str(memory), tree)


def usable_place(tree: Tree) -> tuple[Place | None, list[str]]:
    """The first place in which a process could be put into a group, and why others could not."""
    refusals = []
    for place in places(tree):
        try:
            with confined(place, Limits(_TRIAL_BYTES, ()), tree) as cage:
                subprocess.run(
                    [*cage.within, sys.executable, "-I", "-S", "-c", ""],
                    check=True, capture_output=True, timeout=_TRIAL_S,
                )  # fmt: skip
        except OSError as error:
            refusals.append(f"/{place.memory}: {error.strerror}")
        except subprocess.SubprocessError:
            refusals.append(f"/{place.memory}: a process could not enter")
        else:
            return place, refusals
    return None, refusals


def sweep(place: Place, tree: Tree) -> None:
    """Remove the groups in this place whose owner is dead, and undo what dead owners changed."""
    for folder in dict.fromkeys((place.memory, place.cpuset or place.memory)):
        for name in tree.names(folder):
            if _is_left(name):
                janitor.remove([str(tree.root / folder / name)])
    for record in RECORDS.glob("edgegauge-*"):
        if _is_left(record.name):
            janitor.clean(str(record), [])


def _is_left(name: str) -> bool:
    """Whether this is the name of a group whose owner is dead."""
    owner = _NAME.fullmatch(name)
    if owner is None or int(owner[1]) != _name_space():
        return False
    return _start_time(owner[2]) != owner[3]


def _entering(procs: Sequence[str], cpus: Sequence[int], data_bytes: int | None) -> list[str]:
    limits = {"procs": list(procs), "cpus": list(cpus), "data_bytes": data_bytes}
    return [sys.executable, "-I", "-S", enter.__file__, json.dumps(limits)]


def _make(place: Place, limits: Limits, root: Path) -> list[Path]:
    """The group's folders, that of memory first; nothing is left of a failed attempt."""
    name = f"edgegauge-{_name_space()}-{os.getpid()}-{_start_time('self')}-{next(_NUMBERS)}"
    made = [root / place.memory / name]
    made[0].mkdir()
    try:
        _limit_memory(made[0], place, limits.memory_bytes)
        if place.cpuset is not None and limits.cpus:
            made += _cpuset(root / place.cpuset / name, made[0], limits.cpus)
    except OSError:
        janitor.remove([str(folder) for folder in made])
        raise
    return made


def _limit_memory(folder: Path, place: Place, limit: int) -> None:
    if place.version == "cgroup v2":
        _write(folder / "memory.max", limit)
        optional = {"swap.max": 0, "oom.group": 1}
    else:
        _write(folder / "memory.limit_in_bytes", limit)
        optional = {"memsw.limit_in_bytes": limit, "swappiness": 0}
    for name, value in optional.items():
        with suppress(FileNotFoundError, PermissionError):  # not in every kernel
            _write(folder / f"memory.{name}", value)


def _cpuset(folder: Path, memory: Path, cpus: Sequence[int]) -> list[Path]:
    """Give the group these processors; its folder if it is another one than that of memory.

    Affinity restricts the child to them in any case, so a kernel that refuses is no error.
    """
    numbers = ",".join(map(str, cpus))
    if folder == memory:
        with suppress(OSError):
            _write(folder / "cpuset.cpus", numbers)
        return []
    try:
        folder.mkdir()
        _write(folder / "cpuset.mems", (folder.parent / "cpuset.mems").read_text().strip())
        _write(folder / "cpuset.cpus", numbers)
    except OSError:
        janitor.remove([str(folder)])
        return []
    return [folder]


def _make_room(folder: Path) -> None:
    """Move the processes of a delegated folder into a leaf, and hand its controllers on."""
    leaf = folder / _LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            _write(leaf / "cgroup.procs", pid)
    _write(folder / "cgroup.subtree_control", "+memory")
    with suppress(OSError):
        _write(folder / "cgroup.subtree_control", "+cpuset")


@contextmanager
def _watched(folders: Sequence[Path], settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings, and have a janitor clean up after this block or this process."""
    named = [str(folder) for folder in folders]
    record = RECORDS / folders[0].name
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", janitor.__file__, str(record), *named],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout
        process.stdout.read(1)
        _change(settings, record)
        yield
    finally:
        process.communicate()
        janitor.clean(str(record), named)  # in case somebody ended the janitor


def _change(settings: Mapping[str, str], record: Path) -> None:
    """Change settings of the kernel after their former values are recorded; else change none."""
    if not settings:
        return
    # What another run has changed meanwhile is not what it was before.
    former = {
        k: v
        for other in RECORDS.glob("edgegauge-*")
        for k, v in janitor.recorded(str(other)).items()
    }
    before = {path: former.get(path) or Path(path).read_text().strip() for path in settings}
    with suppress(OSError):
        _write(record, json.dumps(before))
        for path, value in settings.items():
            _write(Path(path), value)


def _write(path: Path, value: object) -> None:
    path.write_text(str(value), encoding="ascii")


def _name_space() -> int:
    """Which numbering of processes this is; that of a container is its own."""
    with suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return 0


def _start_time(pid: str) -> str | None:
    """When this process began, in the kernel's ticks; None where there is no such process."""
    with suppress(OSError):
        # The name in brackets may hold anything, so fields are counted from its end.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return None


def _counted(tree: Tree, folder: str, place: Place) -> Counted:
    second = place.version == "cgroup v2"
    stat = fields(tree.text(f"{folder}/memory.stat"), " ")
    cached, shared = (integer(stat.get(k)) for k in ("file" if second else "cache", "shmem"))
    events = fields(tree.text(f"{folder}/memory.{'events' if second else 'oom_control'}"), " ")
    stalled = re.search(r"^full .*total=([0-9]{1,18})$", _pressure(tree, folder), re.M)
    return Counted(
        peak_bytes=tree.integer(f"{folder}/memory.{'peak' if second else 'max_usage_in_bytes'}"),
        file_bytes=None if cached is None else cached - (shared or 0),
        refaulted_pages=integer(stat.get("workingset_refault_file")),
        major_faults=integer(stat.get("pgmajfault")),
        oom_kills=integer(events.get("oom_kill")),
        stalled_s=int(stalled[1]) / 1e6 if stalled else None,
    )


def _pressure(tree: Tree, folder: str) -> str:
    return tree.text(f"{folder}/memory.pressure") or ""
