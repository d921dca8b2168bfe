"""Taking turns: others wait and say for whom; what lies in the place is not trusted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgegauge.errors import MeasurementError
from edgegauge.measure import turn as module
from edgegauge.measure.turn import turn

HOLDER = """
import sys
from edgegauge.measure.turn import turn
sys.argv = ["/opt/bin/edgegauge", "measure", "secret.gguf"]
with turn():
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock file of this test."""
    path = tmp_path / "lock"
    monkeypatch.setenv(module.VARIABLE, str(path))
    return path


@contextmanager
def another_process() -> Iterator[subprocess.Popen[str]]:
    """A process that has the turn until it reads a line."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe, text=True) as it:
        assert it.stdout
        assert it.stdout.readline() == "mine\n"
        try:
            yield it
        finally:
            it.kill()


def refuse(sentence: str) -> None:
    raise AssertionError(f"should not have waited: {sentence}")


def take_turn_behind(holder: subprocess.Popen[str], end: str) -> list[str]:
    """What is said while waiting for the holder, which goes away only when that was said."""
    said: list[str] = []

    def waiting(sentence: str) -> None:
        said.append(sentence)
        assert holder.stdin
        if end == "kill":
            holder.kill()
        else:
            holder.stdin.write("\n")
            holder.stdin.flush()

    with turn(waiting):
        said.append("mine")
        holder.wait()
    return said


@pytest.mark.parametrize("end", ["line", "kill"])
def test_a_process_waits_for_another_and_says_for_whom(end: str, place: Path) -> None:
    with another_process() as holder:
        said = take_turn_behind(holder, end)
    name = f"process {holder.pid}, edgegauge measure"  # and not what it measures
    assert said == [f"waiting for another measurement on this machine: {name}", "mine"]
    with turn(refuse):
        assert place.read_text().startswith(f"process {os.getpid()}, ")
    assert place.read_text() == ""


def test_the_log_says_it_where_nobody_else_does(caplog: pytest.LogCaptureFixture) -> None:
    with another_process() as holder:
        threading.Timer(0.2, holder.kill).start()
        with turn():
            pass
    assert f"process {holder.pid}" in caplog.text


def test_threads_of_one_process_take_turns_but_one_never_waits_for_itself() -> None:
    order: list[str] = []
    waits = threading.Event()

    def other() -> None:
        with turn(lambda sentence: waits.set()):
            order.append("other")

    with turn(refuse):
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(10)
        time.sleep(0.2)  # enough for the other one, if it did not wait
        with turn(refuse):
            order.append("inner")
        order.append("outer")
    thread.join()
    assert order == ["inner", "outer", "other"]


def test_it_is_given_back_after_an_error_and_by_a_decorated_function() -> None:
    @turn(refuse)
    def failing() -> None:
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            failing()
    thread = threading.Thread(target=lambda: turn(refuse).__enter__())
    thread.start()
    thread.join()


def test_a_child_does_not_keep_the_turn_of_its_dead_parent() -> None:
    child = "import subprocess, sys; subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL)"
    code = HOLDER.replace('print("mine"', f'exec("{child}"); print("mine"')
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as holder:  # fmt: skip
        assert holder.stdout
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        try:
            with turn(refuse):
                pass
        finally:
            os.killpg(holder.pid, 9)


def test_without_a_shared_folder_it_is_in_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(module.VARIABLE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module, "SHARED", tmp_path / "absent")
    with turn(refuse):
        assert (tmp_path / "edgegauge.lock").exists()


def test_the_file_is_for_all_users_whatever_the_umask(place: Path) -> None:
    mask = os.umask(0o077)
    try:
        with turn(refuse):
            assert stat.S_IMODE(place.stat().st_mode) == 0o666
    finally:
        os.umask(mask)


def test_a_file_that_is_removed_meanwhile_is_made_anew(place: Path) -> None:
    with another_process() as holder:

        def waiting(sentence: str) -> None:
            place.unlink()
            holder.kill()

        with turn(waiting):
            assert place.read_text().startswith(f"process {os.getpid()}")


def test_a_name_from_others_is_cut_and_cleaned(place: Path) -> None:
    with another_process() as holder:
        place.write_bytes(b"\x1b[2J\r\n\xffpid 1" + b"x" * 10_000)
        said = take_turn_behind(holder, "kill")[0]
    assert said.isprintable() and len(said) < 300 and "pid 1xxx" in said


@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "pipe", "no folder"])
def test_what_is_no_lock_file_is_refused_and_left_alone(kind: str, place: Path) -> None:
    victim = place.with_name("victim")
    victim.write_text("precious")
    if kind == "symlink":
        place.symlink_to(victim)
    elif kind == "hard link":
        place.hardlink_to(victim)
    elif kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        os.environ[module.VARIABLE] = str(place / "deeper" / "lock")
    with pytest.raises(MeasurementError, match=r"cannot lock .*lock") as caught, turn(refuse):
        pass
    assert caught.value.hint and module.VARIABLE in caught.value.hint
    assert victim.read_text() == "precious"
