"""What llama.cpp says while it works: kept from the terminal, parsed for facts and error causes.

llama.cpp has one log callback per process, so there is one capture. Debug lines are dropped: a
model of 30 layers writes thousands of them.

    load_tensors:   CPU_Mapped model buffer size =   138.10 MiB
    -> {"model/CPU_Mapped": 144808345}
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Any

from edgegauge.units import MIB

MAX_LINES = 2000
WARNING, ERROR, CONTINUED = 3, 4, 5
"""llama.cpp's levels since 2024: 1 debug, 2 info, 3 warning, 4 error, 5 rest of the last line."""
DEBUG = 1

_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([0-9.]+) MiB")
_FLASH = re.compile(r"Flash Attention was auto, set to (\w+)|flash_attn\s*=\s*(\w+)")

_MEMORY = re.compile(r"alloc|insufficient memory", re.IGNORECASE)
"""`failed to allocate`, `Cannot allocate memory`, `std::bad_alloc`, `insufficient memory`."""

_lines: deque[tuple[int, str]] = deque(maxlen=MAX_LINES)
_callback: Any = None
"""The C callback; it must outlive every use of the library."""


def capture(library: Any) -> None:
    """Send the log of `library` (the module llama_cpp) here, starting from an empty page."""
    global _callback
    if _callback is None:
        _callback = library.llama_log_callback(_receive)
    _lines.clear()
    library.llama_log_set(_callback, None)


def lines() -> list[str]:
    """Everything said since `capture`, without debug lines."""
    return [text for _, text in _lines]


def complaint() -> str:
    """The error lines since `capture`, the cause first, as one sentence; empty if none."""
    causes = [text for level, text in _lines if level == ERROR]
    if not causes:
        causes = [text for level, text in _lines if level == WARNING][-1:]
    return "; ".join(dict.fromkeys(text.partition(": ")[2] or text for text in causes))


def _receive(level: int, text: bytes, _: Any) -> None:
    if level == DEBUG:
        return
    decoded = text.decode("utf-8", "replace").rstrip("\n")
    if level == CONTINUED:
        level = _lines[-1][0] if _lines else 2
    if decoded.strip(" ."):
        _lines.append((level, decoded))


def about(library: Any) -> dict[str, Any]:
    """Its version as the source of figures, and the instruction sets that it uses."""
    info = library.llama_print_system_info().decode("utf-8", "replace")
    features = [part.split("=")[0].split(":")[-1].strip() for part in info.split("|")]
    llama_version = getattr(library, "llama_version", None)
    release = llama_version().decode() if llama_version else "of unknown version"
    return {
        "source": f"llama.cpp {release} via llama-cpp-python {library.__version__}",
        "features": [name for name in features if name],
    }


def about_session(
    library: Any, model: Any, context: Any, said: list[str], threads: int
) -> dict[str, Any]:
    """Sizes, buffer bytes and instruction sets of a model that is loaded."""
    return {
        **about(library),
        "buffers_bytes": buffer_bytes(said),
        "flash_attention": flash_attention(said),
        "context_tokens": library.llama_n_ctx(context),
        "ubatch_tokens": library.llama_n_ubatch(context),
        "threads": threads,
        "parameters": library.llama_model_n_params(model),
        "tensor_bytes": library.llama_model_size(model),
    }


def is_about_memory(said: str) -> bool:
    """Whether a complaint says that memory could not be had."""
    return bool(_MEMORY.search(said))


def buffer_bytes(said: Iterable[str]) -> dict[str, int]:
    """Bytes of each buffer by `kind/place`, as printed in MiB with two decimals.

    Kinds: model (weights; `CPU_Mapped` is the file, `CPU_REPACK` and `AMX` are private copies), KV,
    compute, output. A place that is named several times (a cache in two parts) is summed, except
    for compute buffers, where the last reservation replaces those before it.
    """
    found: dict[str, float] = {}
    for line in said:
        if match := _BUFFER.search(line):
            place, kind, mebibytes = match.groups()
            key = f"{kind}/{place}"
            before = 0.0 if kind == "compute" else found.get(key, 0.0)
            found[key] = before + float(mebibytes)
    return {key: round(value * MIB) for key, value in found.items()}


def flash_attention(said: Iterable[str]) -> str | None:
    """`enabled` or `disabled` as llama.cpp decided, None where it did not say."""
    answer = None
    for line in said:
        if match := _FLASH.search(line):
            answer = match[1] or match[2] or answer
    return answer
