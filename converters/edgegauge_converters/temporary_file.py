"""Writing a large artifact: under a temporary name, locked, hashed on the way, renamed at the end.

A file appears under its final name complete or not at all. What a killed process left behind is
recognised by its lock being free and removed by the next one that writes the same artifact.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from edgegauge.artifact import manifest_path
from edgegauge.errors import ConversionError
from edgegauge.units import format_bytes

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there, which serves the same end
    fcntl = None  # type: ignore[assignment]

READ_BYTES = 2**20


class HashedFile:
    """A stream that is written in order and knows its SHA-256."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self.path = stream, path
        self._hash = hashlib.sha256()
        self.bytes = 0

    def adopt(self) -> None:
        """Take what others wrote to the file so far into account, and go on after it."""
        while piece := self._stream.read(READ_BYTES):
            self._count(piece)

    def write(self, piece: Any) -> None:
        """Append contiguous bytes."""
        view = memoryview(piece).cast("B")
        self._stream.write(view)
        self._count(view)

    def pad(self, alignment: int) -> None:
        """Append zeros up to a multiple of `alignment`."""
        self.write(bytes(-self.bytes % alignment))

    def sha256(self) -> str:
        """Hex digest of everything so far."""
        return self._hash.hexdigest()

    def _count(self, piece: bytes | memoryview) -> None:
        self._hash.update(piece)
        self.bytes += len(piece)


@contextmanager
def writing(final: Path, expected_bytes: int) -> Iterator[HashedFile]:
    """A file that gets the name `final` if the block ends well, and else is removed.

    Raises ConversionError, also for the OSError of a full disk, and before anything is written if
    `expected_bytes` are not free.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(final)
        _check_space(final.parent, expected_bytes)
        with _temporary(final) as file:
            yield file
    except OSError as error:
        raise ConversionError(
            f"cannot write {final}: {error.strerror}",
            hint=f"about {format_bytes(expected_bytes)} are needed there; -o DIR chooses another",
        ) from error


@contextmanager
def _temporary(final: Path) -> Iterator[HashedFile]:
    number, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
    path = Path(name)
    try:
        with open(number, "r+b", buffering=0) as stream:
            _lock(stream)
            yield HashedFile(stream, path)
            os.fsync(stream.fileno())
        os.chmod(path, 0o666 & ~_umask())
        # The manifest of an older artifact must not stand beside the new one.
        manifest_path(final).unlink(missing_ok=True)
        os.replace(path, final)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _remove_stale(final: Path) -> None:
    for path in final.parent.glob(f".{final.name}.*.tmp"):
        with suppress(OSError), path.open("r+b") as stream:
            _lock(stream)  # an OSError here: a conversion is writing it now
            path.unlink()


def _lock(stream: IO[bytes]) -> None:
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_space(folder: Path, expected_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < expected_bytes:
        raise ConversionError(
            f"{folder} has {format_bytes(free)} free, the artifact needs "
            f"{format_bytes(expected_bytes)}",
            hint="free some space, or choose another folder with -o DIR",
        )


def _umask() -> int:
    """The process umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
