"""A process of another environment: executed without a shell, followed, and ended in time.

    execute("pip", command, environment=env, folder=work, timeout_s=3600, heard=print)

Its output goes to a file and not to a pipe, so neither a flood nor a grandchild that keeps it open
can hold us up. The process leads a group of its own, which is killed as a whole when time is up or
this process is interrupted; on Linux it also dies with this process.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from edgegauge.errors import ConversionError, RunTimeout

Heard = Callable[[str], None]
"""Called with the last line that the process wrote, about twice a second while that changes."""

POLL_S = 0.5
LAST_WORDS_BYTES = 4000
LAST_LINES = 8
LINE_LETTERS = 300

LEASH = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}, 0, 0, 0)\n"  # 1: PR_SET_PDEATHSIG
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"  # the parent ended before the line above
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)
"""Has the kernel kill the process when its parent ends, then becomes the command; Linux only."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def execute(
    what: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float,
    heard: Heard,
) -> None:
    """Execute a command to its end; `what` names it in errors.

    Raises ConversionError with its last words where it fails, RunTimeout where it takes longer.
    """
    with tempfile.TemporaryFile(dir=folder) as output:
        try:
            process = subprocess.Popen(
                _leashed(command), stdin=subprocess.DEVNULL, stdout=output, cwd=folder,
                stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ConversionError(f"cannot start {what}: {error.strerror}") from None
        try:
            ended = _follow(process, output, time.monotonic() + timeout_s, heard)
        finally:
            _kill(process)
        if not ended:
            said = f"{what} was stopped after {timeout_s:g} s, its limit"
            raise RunTimeout(_with_last_words(said, output))
        if process.returncode:
            raise ConversionError(_with_last_words(f"{what} {_ending(process.returncode)}", output))


def _leashed(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-c", LEASH, str(os.getpid()), *command]


def _follow(
    process: subprocess.Popen[bytes], output: IO[bytes], deadline_s: float, heard: Heard
) -> bool:
    """Wait for the end; False if it did not come in time."""
    last = ""
    while (left_s := deadline_s - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(POLL_S, left_s))
            return True
        words = _last_words(output)
        if words and words[-1] != last:
            last = words[-1]
            heard(last)
    return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group; nothing to do where it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    known = -status in set(signal.Signals)
    return f"was ended by {signal.Signals(-status).name if known else f'signal {-status}'}"


def _with_last_words(said: str, output: IO[bytes]) -> str:
    words = _last_words(output)
    return "\n  ".join([said + (", its last words:" if words else ""), *words])


def _last_words(output: IO[bytes]) -> list[str]:
    """The last lines of what it wrote, without colours; a progress bar counts as its last state."""
    # pread: the process writes at the file's own position, which must not move.
    size = os.fstat(output.fileno()).st_size
    tail = os.pread(output.fileno(), LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
    lines = tail.decode("utf-8", "replace").split("\n")
    shown = (_CONTROL.sub("", line.rstrip("\r").split("\r")[-1]).strip() for line in lines)
    return [line[:LINE_LETTERS] for line in shown if line][-LAST_LINES:]
