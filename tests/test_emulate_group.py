"""A run's control group: its limits, its counters, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edgegauge.emulate import group, janitor
from edgegauge.emulate.group import Counted, Limits, confined, sweep
from edgegauge.emulate.places import Place
from edgegauge.host.tree import Tree
from edgegauge.units import MB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
HOLD = """
import os, subprocess, sys, time
from edgegauge.emulate.group import Limits, confined, usable_place
from edgegauge.host.tree import Tree
place, _ = usable_place(Tree())
with confined(place, Limits(64_000_000, ())) as cage:
    child = subprocess.Popen([*cage.within, sys.executable, "-I", "-S", "-c",
        "import time; print(1, flush=True); time.sleep(600)"], stdout=subprocess.PIPE,
        start_new_session=True)
    child.stdout.read(1)
    print(child.pid, cage.folder, flush=True)
    if sys.argv[1] == "raise":
        raise ValueError
    time.sleep(600)
"""


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def holder(place: Place) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], int, Path]]]:
    """Starts a process that keeps a child in a group; its child and the group's folder."""
    started = []

    def start(how: str) -> tuple[subprocess.Popen[str], int, Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, how], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        assert process.stdout
        pid, folder = process.stdout.readline().split()
        return process, int(pid), Path("/", folder)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_child_that_takes_more_than_its_limit_is_killed_and_counted(place: Place) -> None:
    grab = [sys.executable, "-I", "-S", "-c", "b = bytearray(200_000_000)"]
    with confined(place, Limits(100 * MB, (0,))) as cage:
        assert cage.swap_is_off
        done = subprocess.run([*cage.within, *grab], capture_output=True)
        counted = cage.counted()
    assert done.returncode == -signal.SIGKILL
    assert counted.oom_kills == 1
    assert 90 * MB < (counted.peak_bytes or 0) <= 100 * MB
    assert not Path("/", cage.folder).exists()


def test_a_child_has_the_processors_that_it_was_given(place: Place) -> None:
    first = min(os.sched_getaffinity(0))
    ask = [sys.executable, "-I", "-S", "-c", "import os; print(os.sched_getaffinity(0))"]
    with confined(place, Limits(100 * MB, (first,))) as cage:
        done = subprocess.run([*cage.within, *ask], capture_output=True, text=True)
    assert done.stdout.strip() == f"{{{first}}}"


@pytest.mark.parametrize("how", ["raise", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_however_the_parent_ends(
    holder: Callable[[str], tuple[subprocess.Popen[str], int, Path]], how: str
) -> None:
    process, child, folder = holder(how)
    if how != "raise":
        assert folder.exists() and not gone(child)
        process.send_signal(signal.Signals[how])
    assert within(20, lambda: gone(child) and not folder.exists())


def test_a_group_whose_parent_and_janitor_were_killed_is_removed_by_the_next(
    place: Place, holder: Callable[[str], tuple[subprocess.Popen[str], int, Path]]
) -> None:
    process, child, folder = holder("wait")
    of_process = psutil.Process(process.pid).children()
    (watching,) = [p for p in of_process if any("janitor" in word for word in p.cmdline())]
    watching.kill()
    process.kill()
    process.wait()
    assert folder.exists() and not gone(child)
    sweep(place, Tree())
    assert gone(child) and not folder.exists()


def test_the_group_of_a_living_process_is_left_alone(
    place: Place, holder: Callable[[str], tuple[subprocess.Popen[str], int, Path]]
) -> None:
    _, child, folder = holder("wait")
    sweep(place, Tree())
    assert folder.exists() and not gone(child)


def test_settings_are_changed_meanwhile_and_written_back(place: Place, tmp_path: Path) -> None:
    setting = tmp_path / "read_ahead_kb"
    setting.write_text("8192\n")
    with confined(place, Limits(64 * MB, (), {str(setting): "128"})):
        assert setting.read_text() == "128"
    assert setting.read_text() == "8192"


def test_the_janitor_waits_for_the_end_of_its_parent(tmp_path: Path) -> None:
    setting = tmp_path / "kb"
    command = [sys.executable, "-I", "-S", janitor.__file__, f'{{"{setting}": "8"}}']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.read(1)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(ignored)
        assert process.poll() is None and not setting.exists()
        process.communicate(timeout=20)
    assert setting.read_text() == "8"


def test_without_a_group_the_process_is_refused_memory_and_nothing_is_counted() -> None:
    grab = [sys.executable, "-I", "-S", "-c", "b = bytearray(200_000_000)"]
    with confined(None, Limits(100 * MB, ())) as cage:
        done = subprocess.run([*cage.within, *grab], capture_output=True, text=True)
        assert cage.counted() == Counted() and not cage.swap_is_off
    assert done.returncode == 1 and "MemoryError" in done.stderr


def test_a_mapped_file_is_no_memory_of_the_process(tmp_path: Path) -> None:
    """As RLIMIT_AS would have it."""
    file = tmp_path / "model"
    with file.open("wb") as stream:
        stream.truncate(300 * MB)
    mapping = f"import mmap; f = open({str(file)!r}); mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    with confined(None, Limits(100 * MB, ())) as cage:
        done = subprocess.run([*cage.within, sys.executable, "-c", mapping], capture_output=True)
    assert done.returncode == 0, done.stderr


# Version 2, played: plain files stand for the kernel's.

SECOND = Place("cgroup v2", "sys/fs/cgroup/a", "sys/fs/cgroup/a")


def test_a_group_of_version_2_has_no_swap_and_dies_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / SECOND.memory).mkdir(parents=True)
    (folder,) = group._make(SECOND, Limits(512 * MB, (0, 2)), tmp_path)
    assert folder.name.startswith(f"edgegauge-{os.stat('/proc/self/ns/pid').st_ino}-{os.getpid()}-")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "memory.max": "512000000", "memory.swap.max": "0", "memory.oom.group": "1",
        "cpuset.cpus": "0,2",
    }  # fmt: skip


def test_the_counters_of_version_2(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    folder.mkdir()
    for name, text in {
        "memory.peak": "511000000\n",
        "memory.stat": "anon 1\nfile 9000\nshmem 1000\nworkingset_refault_anon 5\n"
        "workingset_refault_file 77\npgmajfault 12\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 1\n",
        "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=900\n"
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\n",
    }.items():
        (folder / name).write_text(text)
    assert group._counted(Tree(tmp_path), "g", SECOND) == Counted(
        peak_bytes=511000000, file_bytes=8000, refaulted_pages=77, major_faults=12, oom_kills=1,
        stalled_s=2.5,
    )  # fmt: skip


def test_the_processes_of_a_delegated_folder_move_into_a_leaf(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("123\n")
    group._make_room(tmp_path)
    assert (tmp_path / "edgegauge-others" / "cgroup.procs").read_text() == "123"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpuset"
