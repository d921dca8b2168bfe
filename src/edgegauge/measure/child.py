"""A child process that does one job and answers in messages; native code may crash in it.

    with start("edgegauge.evaluate", job) as messages:
        for message in messages: ...

The job is one JSON document on the child's stdin; each line it writes through `answering()` is one
message. An `EdgeGaugeError` in the child is raised again here; a crash, a kill, garbage or a silent
end becomes `MeasurementError` with the last words of its stderr, and a late one `RunTimeout`.
The child leads a process group of its own, which is killed as a whole, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from edgegauge import errors
from edgegauge.errors import EdgeGaugeError, MeasurementError, RunTimeout

Message = dict[str, Any]
Send = Callable[[Message], None]

LAST_WORDS_BYTES = 2000
PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""


@contextmanager
def start(
    module: str, job: Message, *, timeout_s: float | None = None
) -> Iterator[Iterator[Message]]:
    """Run `python -m module` on `job`; yields its messages as they come, and ends it at the end."""
    # -P: a file of the working directory must not shadow a library.
    command = [sys.executable, "-P", "-m", module, str(os.getpid())]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=stderr, start_new_session=True
        ) as process,
    ):
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout_s or 0, stop)
        if timeout_s is not None:
            timer.start()
        try:
            yield _messages(process, job, stderr, late, timeout_s)
        finally:
            timer.cancel()
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and all it started; its group exists until it is waited for."""
    if process.returncode is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _messages(
    process: subprocess.Popen[bytes],
    job: Message,
    stderr: IO[bytes],
    late: threading.Event,
    timeout_s: float | None,
) -> Iterator[Message]:
    assert process.stdin and process.stdout  # both are pipes
    with contextlib.suppress(BrokenPipeError):  # it died at once: the status below says how
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
    for line in process.stdout:
        message = _message(line)
        if "error" in message:
            raise _error(message["error"])
        yield message
    status = process.wait()
    if late.is_set():
        raise RunTimeout(f"stopped after {timeout_s:g} s, its limit")
    if status:
        raise MeasurementError(_cause(status, stderr), hint=_hint(status))


def _message(line: bytes) -> Message:
    """The message in a line; MeasurementError for anything else."""
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("error", {}), dict):
        shown = line[:80].decode("utf-8", "replace").strip()
        raise MeasurementError(f"the runtime's process sent something that is no message: {shown}")
    return message


def _error(described: Message) -> EdgeGaugeError:
    """The error that the child raised, or its nearest relative."""
    kind = getattr(errors, str(described.get("type")), None)
    message, hint = str(described.get("message")), described.get("hint")
    if kind in (errors.InputError, MeasurementError, errors.ConversionError, RunTimeout):
        made: EdgeGaugeError = kind(message, hint=hint)
        return made
    return EdgeGaugeError(message, hint=hint)


def _cause(status: int, stderr: IO[bytes]) -> str:
    """How the child ended, and the last it said."""
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
    words = stderr.read().decode("utf-8", "replace").strip().splitlines()[-5:]
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        ended = f"the runtime's process was ended by {name}"
    else:
        ended = f"the runtime's process ended with status {status}"
    return "\n  ".join([ended + (", its last words:" if words else ""), *words])


def _hint(status: int) -> str | None:
    if status == -signal.SIGKILL:
        return "the system kills a process when memory runs out: try a smaller artifact"
    if status < 0:
        return "a crash inside the runtime: check the artifact's hash, or try another recipe"
    return None


def serve(work: Callable[[Message, Send], None]) -> int:
    """The child's main: read the job, do `work(job, send)`, report a known error as a message.

    Whatever a native library prints to stdout goes to stderr instead.
    """
    if len(sys.argv) > 1:
        _die_with(int(sys.argv[1]))
    with open(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def send(message: Message) -> None:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

        job = json.load(sys.stdin)
        try:
            work(job, send)
        except EdgeGaugeError as error:
            described = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
            send({"error": described})
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
