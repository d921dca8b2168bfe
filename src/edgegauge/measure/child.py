"""A child process that does one job and answers in messages; native code may crash in it.

    with start("edgegauge.evaluate", job) as messages:
        for message in messages: ...

    with converse("edgegauge.measure.block_worker", job) as conversation:
        conversation.hear(timeout_s=60)                       # it has loaded
        conversation.ask({"do": "idle", "seconds": 60}, timeout_s=130)

The job is one line of JSON on the child's stdin, and so is each later command; each line that it
writes through `serve` is one message. An `EdgeGaugeError` in the child is raised again here; a
crash, a kill, garbage or a silent end becomes `ChildEnded` or `MeasurementError` with the last
words of its stderr, and a late answer `RunTimeout`. The parent blocks in a read meanwhile.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Literal

from edgegauge import errors
from edgegauge.errors import EdgeGaugeError, MeasurementError, RunTimeout

Message = dict[str, Any]
Send = Callable[[Message], None]
FailureKind = Literal["killed", "crashed", "out of memory", "timeout", "failed"]

LAST_WORDS_BYTES = 2000
PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
KILLED, TERMINATED = -9, -15
"""Statuses of a process that somebody ended, as opposed to a crash of its own."""
NO_MEMORY = (
    "MemoryError", "bad_alloc", "out of memory", "failed to allocate", "alloc_buffer",
    "Cannot allocate memory",
)  # fmt: skip
"""What Python, C++, ggml and the C library say where an allocation or a mapping is refused."""
HINTS: dict[FailureKind, str | None] = {
    "killed": "the system kills a process when memory runs out: try a smaller artifact",
    "crashed": "a crash inside the runtime: check the artifact's hash, or try another recipe",
    "out of memory": "use a smaller artifact, fewer bits or a shorter context, or free memory",
    "timeout": "allow more with --timeout, or ask for fewer tokens",
    "failed": None,
}
"""What mends each kind of failure."""


class ChildEnded(MeasurementError):
    """The child is gone; `status` is its exit status, or less a signal's number."""

    def __init__(self, message: str, hint: str | None = None, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


def failure_kind(error: EdgeGaugeError) -> FailureKind:
    """How a child failed, from the error that came of it.

    A process that the kernel killed for memory looks like one that somebody killed: `killed`.
    """
    if isinstance(error, RunTimeout):
        return "timeout"
    if any(words.lower() in str(error).lower() for words in NO_MEMORY):
        return "out of memory"
    if isinstance(error, ChildEnded) and error.status < 0:
        return "killed" if error.status in (KILLED, TERMINATED) else "crashed"
    return "failed"


@contextmanager
def start(
    module: str,
    job: Message,
    *,
    timeout_s: float | None = None,
    python: str = sys.executable,
    within: Sequence[str] = (),
) -> Iterator[Iterator[Message]]:
    """Run `python -m module` on `job`; yields its messages as they come, and ends it at the end.

    `timeout_s` limits the whole job. `python` is the interpreter, of another environment perhaps.
    `within` is a command put before the child's, which it executes in the same process in the end.
    """
    with _spawned(module, python, within) as conversation, conversation.limited(timeout_s):
        conversation.tell(job, last=True)
        yield conversation.rest()


@contextmanager
def converse(
    module: str,
    job: Message,
    *,
    timeout_s: float | None = None,
    python: str = sys.executable,
    within: Sequence[str] = (),
) -> Iterator[Conversation]:
    """Run `python -m module` on `job` and keep its stdin open for commands; options as of `start`.

    `timeout_s` limits writing the job; each `ask` and `hear` has a limit of its own.
    """
    with _spawned(module, python, within) as conversation:
        with conversation.limited(timeout_s):
            conversation.tell(job)
        yield conversation


@contextmanager
def _spawned(module: str, python: str, within: Sequence[str]) -> Iterator[Conversation]:
    # -P: a file of the working directory must not shadow a library.
    command = [*within, python, "-P", "-m", module, str(os.getpid())]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=stderr, start_new_session=True
        ) as process,
    ):
        try:
            yield Conversation(process, stderr)
        finally:
            _kill(process)
            with contextlib.suppress(BrokenPipeError):  # a command that was never read
                assert process.stdin
                process.stdin.close()


class Conversation:
    """The parent's side of a child that answers one message per command.

    Messages `{"phase": NAME}` in between are no answers; the last name is kept in `phase`.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self.phase = "start"
        self._process = process
        self._stderr = stderr
        self._late_s: float | None = None

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def ask(
        self,
        command: Message,
        *,
        timeout_s: float | None,
        heard: Callable[[Message], object] = lambda message: None,
    ) -> Message:
        """Send a command and wait for its answer; the child is stopped when that is late.

        `heard` is called at once with each phase that the child enters meanwhile.
        """
        with self.limited(timeout_s):
            self.tell(command)
            return self._answer(heard)

    def hear(self, *, timeout_s: float | None) -> Message:
        """Wait for an answer to what was said before: to the job, after `converse`."""
        with self.limited(timeout_s):
            return self._answer(lambda message: None)

    def tell(self, message: Message, *, last: bool = False) -> None:
        """Send one line; after the `last` one the child reads the end of its input."""
        assert self._process.stdin  # a pipe
        with contextlib.suppress(BrokenPipeError):  # it is dead: the next read says how it ended
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            if last:
                self._process.stdin.close()

    def rest(self) -> Iterator[Message]:
        """Every message until the child ends, which it must do with status 0."""
        while (message := self._next()) is not None:
            yield message

    @contextmanager
    def limited(self, timeout_s: float | None) -> Iterator[None]:
        """Stop the child, and all it started, when this block takes longer than that."""
        if timeout_s is None:
            yield
            return

        def stop() -> None:
            self._late_s = timeout_s
            _kill(self._process)

        timer = threading.Timer(timeout_s, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _answer(self, heard: Callable[[Message], object]) -> Message:
        while (message := self._next()) is not None:
            if "phase" not in message:
                return message
            heard(message)
        raise ChildEnded("the runtime's process ended without an answer")

    def _next(self) -> Message | None:
        """The next message; None where the child ended well."""
        assert self._process.stdout  # a pipe
        line = self._process.stdout.readline()
        if line and self._late_s is None:
            message = _message(line)
            if "error" in message:
                raise _error(message["error"])
            self.phase = str(message.get("phase", self.phase))
            return message
        status = self._process.wait()
        if self._late_s is not None:
            raise RunTimeout(f"stopped after {self._late_s:g} s, its limit")
        if status:
            raise ChildEnded(_cause(status, self._stderr), hint=_hint(status), status=status)
        return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and all it started; its group exists until it is waited for."""
    if process.returncode is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


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
    if status >= 0:
        return None
    return HINTS["killed" if status == KILLED else "crashed"]


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

        job = json.loads(sys.stdin.readline())
        try:
            work(job, send)
        except EdgeGaugeError as error:
            described = {"type": type(error).__name__, "message": str(error), "hint": error.hint}
            send({"error": described})
    return 0


def commands() -> Iterator[Message]:
    """In the child: what the parent says after the job, until it has no more to say."""
    for line in sys.stdin:
        yield json.loads(line)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that happens (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
