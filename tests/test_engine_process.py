"""The processes of engines: none outlives its limit or its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgegauge.engines import process
from edgegauge.errors import ConversionError, RunTimeout


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "print('x' * 100_000 + '\\r 10 %\\r 20 %', flush=True)\n"
        "child.wait()\n"
    )
    heard: list[str] = []
    with pytest.raises(RunTimeout, match="it was stopped after 2 s") as caught:
        process.execute("it", [sys.executable, "-c", script], environment={}, folder=tmp_path,
                        timeout_s=2, heard=heard.append)  # fmt: skip
    assert "20 %" in str(caught.value) and heard == ["20 %"]
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not runs(child))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death")
def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    sleeper = "import os, time; open('child', 'w').write(str(os.getpid())); time.sleep(600)"
    script = (
        "import sys; from pathlib import Path; from edgegauge.engines.process import execute\n"
        f"execute('it', [sys.executable, '-c', {sleeper!r}], environment={{}},"
        f" folder=Path({str(tmp_path)!r}), timeout_s=600, heard=print)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        child = tmp_path / "child"
        wait_until(lambda: child.exists() and child.read_text() != "")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not runs(int(child.read_text())))


def runs(process_id: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def wait_until(true: object) -> None:
    assert callable(true)
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "other")
    with pytest.raises(ConversionError, match="cannot start it: No such file"):
        process.execute("it", [str(tmp_path / "no")], environment={}, folder=tmp_path,
                        timeout_s=9, heard=lambda note: None)  # fmt: skip
