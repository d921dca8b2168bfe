"""Documents: files from outside that must have an exact shape (profiles, budgets, results).

A `Document` is a frozen pydantic model that refuses unknown keys. Reading one either succeeds or
raises `InputError` with every problem at once, each as `key.path: problem, got VALUE @ file`.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgegauge.errors import InputError

MAX_DOCUMENT_BYTES = 256 * 1024**2
"""A text document larger than this is refused unread: nothing legitimate comes near it."""

T = TypeVar("T", bound="Document")


class Document(BaseModel):
    """Base of all file schemas: immutable, no unknown keys, no NaN. A validator is built when a
    file is first read with it: most commands read few of the kinds there are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def read_toml(path: Path, schema: type[T]) -> T:
    """The TOML file at `path` as a `schema`; raises InputError with all problems."""
    return parse(_decode(path, lambda text: tomllib.loads(text)), schema, str(path))


def read_json(path: Path, schema: type[T]) -> T:
    """The JSON file at `path` as a `schema`; raises InputError with all problems."""
    return parse(read_json_object(path), schema, str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, unchecked beyond being an object; raises InputError."""
    value = _decode(path, _finite_json)
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {type(value).__name__} @ {path}")
    return value


def read_rows(path: Path) -> list[Any]:
    """The values of a JSON array, or of JSON lines, unchecked; raises InputError."""
    rows: list[Any] = _decode(path, _rows)
    return rows


def _rows(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        value = _finite_json(text)
        return value if isinstance(value, list) else [value]
    return [_finite_json(line) for line in text.splitlines() if line.strip()]


def _finite_json(text: str) -> Any:
    """The value of a JSON text without NaN and infinities, which could not be written again."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def parse(value: Any, schema: type[T], where: str) -> T:
    """`value` as a `schema`; `where` names its origin in the error."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = [f"{_describe(e)} @ {where}" for e in error.errors(include_url=False)]
        noun = "problem" if len(problems) == 1 else "problems"
        raise InputError(f"{len(problems)} {noun} in {where}", problems) from None


def _describe(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{path}: required, but missing"
    if kind == "extra_forbidden":
        return f"{path}: unknown key"
    if kind == "value_error":  # our own validators, which say what they got
        return f"{path}: {context['error']}"
    if kind in _LIMITS and len(context) == 1:
        limit = next(iter(context.values()))
        shown = f"{limit:g}" if isinstance(limit, float) else limit
        message = f"must be {_LIMITS[kind]} {shown}"
    else:
        message = re.sub(r"^(Input|String|List) should", "must", str(error["msg"]))
    return f"{path}: {message[0].lower()}{message[1:]}, got {_shown(error['input'])}"


_LIMITS = {
    "greater_than": ">",
    "greater_than_equal": ">=",
    "less_than": "<",
    "less_than_equal": "<=",
}
"""Pydantic's kinds of error that read better as a comparison."""


def _shown(value: Any) -> str:
    try:
        got = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, endless nesting
        return "a value too long to print"
    return got if len(got) < 80 else got[:77] + "..."


def _decode(path: Path, decode: Callable[[str], Any]) -> Any:
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InputError(f"larger than {MAX_DOCUMENT_BYTES} bytes, so not read @ {path}")
        return decode(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid {path.suffix.lstrip('.').upper()}: {error} @ {path}") from None


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it onto `path` when the block ends well.

    A killed process leaves the old file or the new one, never half of either.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
