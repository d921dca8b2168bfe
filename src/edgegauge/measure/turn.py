"""The turn to measure: two measurements never at once on one machine.

    with turn():
        ...                     # no other thread, process or user measures meanwhile

Whoever measures holds a lock on one file of the machine: `/tmp/edgegauge.lock`, which all users
share, or the file that EDGEGAUGE_LOCK names (containers that see one mounted file take turns too).
The kernel drops the lock with the process that holds it, however that ends; what the file says is
only the holder's name for those who wait. Child processes do not inherit it: one that outlives its
parent would keep others waiting for a name that is gone. Where the system has no flock (Windows),
nobody waits.

Anybody may have made the file, or something else in its place, and may have written anything into
it: a link or a device is refused, and the name is cut and freed of control characters.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgegauge.errors import MeasurementError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

VARIABLE = "EDGEGAUGE_LOCK"
SHARED = Path("/tmp")
"""Before TMPDIR, which each user may have an own one of. Android has no /tmp, and one user."""
NAME_BYTES = 200
LOG = logging.getLogger(__name__)

_thread = threading.local()


@contextmanager
def turn(waiting: Callable[[str], None] = LOG.warning) -> Iterator[None]:
    """Hold this machine's turn to measure; also a decorator.

    `waiting` is told once, in a sentence, whom this call has to wait for. A thread that has the
    turn already goes on at once. Raises MeasurementError where the file cannot be locked.
    """
    if fcntl is None or getattr(_thread, "has_turn", False):
        yield
        return
    descriptor = _locked(_place(), waiting)
    try:
        _name(descriptor, f"process {os.getpid()}, {_command()}")
        _thread.has_turn = True
        yield
    finally:
        _thread.has_turn = False
        _name(descriptor, "")
        os.close(descriptor)  # which unlocks it


def _place() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    folder = SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir())
    return folder / "edgegauge.lock"


def _locked(path: Path, waiting: Callable[[str], None]) -> int:
    """A descriptor of the file at `path` that holds its lock."""
    try:
        while True:
            descriptor = _opened(path)
            try:
                _lock(descriptor, path, waiting)
                if _is_at(path, descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # somebody removed it meanwhile, and others lock a new one
    except OSError as error:
        raise _refused(path, error.strerror or "") from None


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    # Without O_CREAT first: Linux may refuse that for another user's file in /tmp.
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # another process was faster
        return os.open(path, flags)
    os.fchmod(descriptor, 0o666)  # for all users, whatever the umask
    return descriptor


def _lock(descriptor: int, path: Path, waiting: Callable[[str], None]) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise _refused(path, "it is no plain file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        name = os.pread(descriptor, NAME_BYTES, 0).decode("utf-8", "replace")
        shown = "".join(c for c in name if c.isprintable()) or "a process that gives no name"
        waiting(f"waiting for another measurement on this machine: {shown}")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _name(descriptor: int, holder: str) -> None:
    with suppress(OSError):  # a full disk is no reason not to measure
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode("utf-8", "replace"), 0)


def _command() -> str:
    """The program and its command, without arguments, which others need not read."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])


def _refused(path: Path, reason: str) -> MeasurementError:
    return MeasurementError(
        f"cannot lock {path}, by which measurements take turns: {reason}",
        hint=f"remove it, or name another file that all who measure here share: {VARIABLE}=FILE",
    )
