"""A text that prompts are cut from, as `--prompt FILE` names it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgegauge.errors import InputError
from edgegauge.result import PromptSource
from edgegauge.units import MIB, format_bytes

MOST_BYTES = 16 * MIB
"""A million tokens of English are about 5 MB."""


def read_prompt(path: Path) -> tuple[PromptSource, str]:
    """The text of a UTF-8 file and what a result says of it; InputError for anything else."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start} @ {path}") from None
    if len(raw) > MOST_BYTES:
        raise InputError(f"larger than {format_bytes(MOST_BYTES)}, so not read @ {path}")
    if not text.strip():
        raise InputError(f"no text @ {path}")
    return PromptSource(name=path.name, sha256=hashlib.sha256(raw).hexdigest()), text
