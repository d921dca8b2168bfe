"""A run's control group: its limits, its counters, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from edgegauge.emulate import group, janitor
from edgegauge.emulate.group import Counted, Limits, confined, sweep
from edgegauge.emulate.places import Place
from edgegauge.host.tree import Tree
from edgegauge.units import MB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

Start = Callable[[str], tuple[subprocess.Popen[str], int, Path]]
HOLD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from edgegauge.emulate import group
from edgegauge.emulate.group import Limits, confined, usable_place
from edgegauge.host.tree import Tree
# A shell's background jobs, and all that they start, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
group.RECORDS = Path(sys.argv[2])
place, _ = usable_place(Tree())
settings = {str(group.RECORDS / "read_ahead_kb"): "128"}
with confined(place, Limits(64_000_000, (), settings)) as cage:
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
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for one of the kernel's, alone in a folder that takes the records."""
    monkeypatch.setattr(group, "RECORDS", tmp_path)
    file = tmp_path / "read_ahead_kb"
    file.write_text("8192\n")
    return file


def is_undone(setting: Path) -> bool:
    return setting.read_text().strip() == "8192" and list(setting.parent.iterdir()) == [setting]


@pytest.fixture
def holder(place: Place, setting: Path) -> Iterator[Start]:
    """Starts a process that keeps a child in a group; its child and the group's folder."""
    started = []

    def start(how: str) -> tuple[subprocess.Popen[str], int, Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, how, str(setting.parent)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
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
    assert (counted.oom_kills or 0) >= 1  # version 2 counts the group's death as one more
    assert 90 * MB < (counted.peak_bytes or 0) <= 100 * MB
    assert not Path("/", cage.folder).exists()


def test_a_child_has_the_processors_that_it_was_given(place: Place) -> None:
    first = min(os.sched_getaffinity(0))
    ask = [sys.executable, "-I", "-S", "-c", "import os; print(os.sched_getaffinity(0))"]
    with confined(place, Limits(100 * MB, (first,))) as cage:
        done = subprocess.run([*cage.within, *ask], capture_output=True, text=True)
    assert done.stdout.strip() == f"{{{first}}}"


@pytest.mark.parametrize("how", ["raise", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_however_the_parent_ends(holder: Start, setting: Path, how: str) -> None:
    process, child, folder = holder(how)
    if how != "raise":
        assert folder.exists() and not gone(child) and setting.read_text() == "128"
        process.send_signal(signal.Signals[how])
    assert within(20, lambda: gone(child) and not folder.exists() and is_undone(setting))


def test_what_is_left_where_parent_and_janitor_were_killed_is_undone_by_the_next(
    place: Place, holder: Start, setting: Path
) -> None:
    process, child, folder = holder("wait")
    of_process = psutil.Process(process.pid).children()
    (watching,) = [p for p in of_process if any("janitor" in word for word in p.cmdline())]
    watching.kill()
    process.kill()
    process.wait()
    assert folder.exists() and not gone(child) and setting.read_text() == "128"
    sweep(place, Tree())
    assert gone(child) and not folder.exists() and is_undone(setting)


def test_the_group_of_a_living_process_is_left_alone(
    place: Place, holder: Start, setting: Path
) -> None:
    _, child, folder = holder("wait")
    sweep(place, Tree())
    assert folder.exists() and not gone(child) and setting.read_text() == "128"


def test_settings_are_changed_meanwhile_and_written_back(place: Place, setting: Path) -> None:
    limits = Limits(64 * MB, (), {str(setting): "128"})
    with ExitStack() as last:
        with confined(place, limits):
            assert setting.read_text() == "128"
            # Another run that began meanwhile must not take 128 for what it was before.
            last.enter_context(confined(place, limits))
        assert setting.read_text() == "8192"
    assert is_undone(setting)


def test_a_setting_whose_former_value_cannot_be_kept_is_not_changed(
    place: Place, setting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "RECORDS", setting.parent / "absent")
    with confined(place, Limits(64 * MB, (), {str(setting): "128"})):
        assert setting.read_text() == "8192\n"


def test_the_janitor_waits_for_the_end_of_its_parent(tmp_path: Path) -> None:
    setting, record = tmp_path / "kb", tmp_path / "record"
    record.write_text(f'{{"{setting}": "8"}}')
    command = [sys.executable, "-I", "-S", janitor.__file__, str(record)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.read(1)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(ignored)
        assert process.poll() is None and not setting.exists()
        process.communicate(timeout=20)
    assert setting.read_text() == "8" and not record.exists()


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
