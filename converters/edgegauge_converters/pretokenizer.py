"""Which of llama.cpp's text splitters a tokenizer is, told from its structure and not its name.

A byte-level BPE tokenizer cuts the text with regular expressions first; a GGUF file holds only the
name of a fixed splitter (`tokenizer.ggml.pre`, names and rules in llama.cpp's `llama-vocab.cpp`).
A tokenizer that none of them reproduces is an error: a near miss would degrade every answer.
"""

from __future__ import annotations

from typing import Any

from edgegauge.errors import InputError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_DIGITS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_AFTER_DIGITS}"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_AFTER_DIGITS}"

Step = tuple[str, Any]
"""One splitting step: ("split", regex), ("digits", one by one?) or ("bytes", GPT-2's regex?)."""

BYTE_LEVEL: dict[tuple[tuple[Step, ...], bool], str] = {
    ((("bytes", True),), False): "gpt-2",
    ((("digits", True), ("bytes", True)), False): "smollm",
    ((("split", _QWEN2), ("bytes", False)), False): "qwen2",
    ((("split", _LLAMA3), ("bytes", False)), True): "llama-bpe",
    ((("split", _LLAMA3), ("bytes", False)), False): "smaug-bpe",
}
"""llama.cpp's name by (steps, whether a whole word in the vocabulary needs no merges)."""


def byte_level_name(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool, where: str) -> str:
    """llama.cpp's name of this splitter; InputError says what was found where it has none."""
    steps = tuple(_step(part) for part in _flatten(pre_tokenizer))
    name = BYTE_LEVEL.get((steps, ignore_merges))
    if name is None:
        found = ", ".join(f"{kind} {detail!r}"[:200] for kind, detail in steps) or "nothing"
        raise InputError(
            f"pre_tokenizer: llama.cpp has no splitter known here for: {found}"
            f" (ignore_merges {ignore_merges}) @ {where}",
            hint=f"supported: {', '.join(BYTE_LEVEL.values())}",
        )
    return name


def is_byte_level(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether the text is turned into GPT-2's byte alphabet."""
    return any(part.get("type") == "ByteLevel" for part in _flatten(pre_tokenizer))


def _flatten(part: dict[str, Any] | None, key: str = "pretokenizers") -> list[dict[str, Any]]:
    """The steps of a `Sequence`, or the one step, or none; nested sequences are opened."""
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(key)
    steps = inner if isinstance(inner, list) else []
    return [step for p in steps if isinstance(p, dict) for step in _flatten(p, key)]


def _step(part: dict[str, Any]) -> Step:
    kind = part.get("type")
    pattern = part.get("pattern")
    if kind == "Split" and isinstance(pattern, dict) and "Regex" in pattern:
        if part.get("behavior") == "Isolated" and not part.get("invert"):
            return ("split", pattern["Regex"])
    elif kind == "Digits":
        return ("digits", bool(part.get("individual_digits")))
    elif kind == "ByteLevel" and not part.get("add_prefix_space"):
        return ("bytes", bool(part.get("use_regex", True)))
    return (str(kind), str(part))


def space_prefix(
    normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None, where: str
) -> tuple[bool, list[str]]:
    """Whether a SentencePiece-style tokenizer puts a space before the text; and what differs.

    Known are the three published forms: a normalizer that prepends and replaces (Llama 2), a
    `Metaspace` step (newer Llama 2 files), and replacement only (Gemma).
    """
    prefix, warnings = False, []
    for part in _flatten(normalizer, "normalizers"):
        if part.get("type") == "Prepend" and part.get("prepend") == "▁":
            prefix = True
        elif part.get("type") == "Replace" and part.get("content") == "▁":
            continue
        else:
            warnings.append(unapplied(part))
    for part in _flatten(pre_tokenizer):
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme") or (
                "always" if part.get("add_prefix_space", True) else "never"
            )
            prefix = scheme != "never"
            if prefix:
                warnings.append(
                    "llama.cpp puts a space before text that begins with one and, unlike this "
                    "tokenizer, after special tokens too"
                )
        elif part.get("type") != "Split" or part.get("pattern") != {"String": " "}:
            raise InputError(f"pre_tokenizer: not known here: {str(part)[:200]} @ {where}")
    return prefix, warnings


def byte_level_normalizer(normalizer: dict[str, Any] | None) -> list[str]:
    """Warnings on normalizers that a GGUF file cannot name; NFC changes almost no real text."""
    parts = _flatten(normalizer, "normalizers")
    return [unapplied(part) for part in parts if part.get("type") != "NFC"]


def unapplied(part: dict[str, Any]) -> str:
    """The warning on a text normalizer that llama.cpp does not apply."""
    return f"llama.cpp does not apply this tokenizer's {str(part.get('type'))[:40]} normalizer"
