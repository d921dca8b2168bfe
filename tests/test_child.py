"""A conversation with a child: answers, errors, and every way it can end before it answers."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgegauge.errors import EdgeGaugeError, InputError, MeasurementError, RunTimeout
from edgegauge.measure import child
from edgegauge.measure.child import ChildEnded, Message, failure_kind

Module = Callable[[str], str]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Writes a module whose function `work(job, send)` has this body, and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(body: str) -> str:
        head = "import os, sys, time\nfrom edgegauge.errors import *\n"
        head += "from edgegauge.measure.child import commands, serve\n"
        work = "def work(job, send):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "talker.py").write_text(f"{head}{work}\nsys.exit(serve(work))\n")
        return "talker"

    return write


ECHO = """
    send({"phase": "load"})
    send({"ready": job["name"]})
    for command in commands():
        send({"phase": "thinking"})
        send({"twice": 2 * command["n"]})
"""


def test_each_command_has_its_answer(stand_in: Module) -> None:
    heard: list[Message] = []
    with child.converse(stand_in(ECHO), {"name": "é\n"}, timeout_s=60) as conversation:
        assert conversation.hear(timeout_s=60) == {"ready": "é\n"}
        assert conversation.phase == "load"
        for n in range(50):
            answer = conversation.ask({"n": n}, timeout_s=60, heard=heard.append)
            assert answer == {"twice": 2 * n}
    assert heard == [{"phase": "thinking"}] * 50
    assert conversation.phase == "thinking"
    assert not psutil.Process().children()


def test_a_job_may_be_larger_than_a_pipe(stand_in: Module) -> None:
    name = "x" * 1_000_000
    with child.converse(stand_in(ECHO), {"name": name}, timeout_s=60) as conversation:
        assert conversation.hear(timeout_s=60) == {"ready": name}


def failure(module: str, *, timeout_s: float = 60) -> EdgeGaugeError:
    """The error that asking this child raises."""
    with (
        pytest.raises(EdgeGaugeError) as caught,
        child.converse(module, {"name": "x"}, timeout_s=60) as conversation,
    ):
        conversation.hear(timeout_s=60)
        conversation.ask({"n": 1}, timeout_s=timeout_s)
    assert not psutil.Process().children()
    return caught.value


READY = 'send({"ready": 1}); next(commands()); '


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
        ("os.kill(os.getpid(), 15)", "killed", "SIGTERM"),
        ("os.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
        ("raise MemoryError", "out of memory", "MemoryError"),
        ("raise MeasurementError('out of memory: no room')", "out of memory", "no room"),
        ("raise ZeroDivisionError('deep')", "failed", "deep"),
        ("os._exit(3)", "failed", "status 3"),
        ("pass", "failed", "ended without an answer"),
    ],
)
def test_a_child_that_ends_is_an_error_of_its_kind(
    stand_in: Module, body: str, kind: str, words: str
) -> None:
    error = failure(stand_in(READY + body))
    assert isinstance(error, MeasurementError)
    assert words in str(error)
    assert failure_kind(error) == kind


def test_the_status_of_a_dead_child_is_kept(stand_in: Module) -> None:
    error = failure(stand_in(READY + "os.kill(os.getpid(), 9)"))
    assert isinstance(error, ChildEnded) and error.status == -9
    assert "memory runs out" in (error.hint or "")


def test_an_error_of_ours_is_raised_again(stand_in: Module) -> None:
    error = failure(stand_in(READY + "raise InputError('bad file', hint='mend it')"))
    assert isinstance(error, InputError)
    assert (str(error), error.hint) == ("bad file", "mend it")


def test_asking_the_dead_says_how_it_died(stand_in: Module) -> None:
    module = stand_in('send({"ready": 1}); os.kill(os.getpid(), 9)')
    with child.converse(module, {}) as conversation:
        conversation.hear(timeout_s=60)
        psutil.wait_procs(psutil.Process().children(), timeout=10)
        for _ in range(2):
            with pytest.raises(MeasurementError):
                conversation.ask({"long": "x" * 200_000}, timeout_s=60)


def test_a_late_answer_ends_the_child_and_what_it_started(stand_in: Module, tmp_path: Path) -> None:
    module = stand_in(f"""
        import pathlib, subprocess
        send({{"ready": 1}})
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(started.pid))
        time.sleep(600)
    """)
    began = time.monotonic()
    error = failure(module, timeout_s=2)
    assert isinstance(error, RunTimeout) and "stopped after 2 s" in str(error)
    assert failure_kind(error) == "timeout"
    assert time.monotonic() - began < 60
    grandchild = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)
    pytest.fail("what the child started lives on")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
def test_a_stopped_child_cannot_hang_its_parent(stand_in: Module) -> None:
    error = failure(stand_in(READY + "os.kill(os.getpid(), 19); time.sleep(600)"), timeout_s=1)
    assert isinstance(error, RunTimeout)
