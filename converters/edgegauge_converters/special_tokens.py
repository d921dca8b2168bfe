"""Special tokens of a model folder: which ids begin, end and pad, and the chat template.

Four files may speak of them: `tokenizer_config.json`, `special_tokens_map.json`,
`generation_config.json` and `config.json`. The tokenizer's files name texts, the others ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegauge.document import read_json_object
from edgegauge.errors import InputError

MAX_TEMPLATE_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids by role (bos, eos, eot, unk, pad); a role without a token is absent."""

    ids: dict[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str | list[dict[str, str]] | None


def read_special_tokens(
    folder: Path, ids: dict[str, int], post_processor: dict[str, Any] | None
) -> SpecialTokens:
    """Special tokens of `folder`, whose tokenizer gives these `ids` to texts; raises InputError."""
    tokenizer = _optional(folder / "tokenizer_config.json")
    named = {**_optional(folder / "special_tokens_map.json"), **tokenizer}
    generation = _optional(folder / "generation_config.json")
    config = _optional(folder / "config.json")
    roles: dict[str, int] = {}
    for role in ("bos", "unk", "pad"):
        text = _text(named.get(f"{role}_token"))
        listed = _ids(generation.get(f"{role}_token_id")) or _ids(config.get(f"{role}_token_id"))
        if text in ids:
            roles[role] = ids[text]
        elif listed:
            roles[role] = listed[0]
    template = _chat_template(folder, tokenizer)
    ends = _ids(generation.get("eos_token_id")) or _ids(config.get("eos_token_id"))
    roles |= _ends(ids.get(_text(named.get("eos_token")) or ""), ends, ids, template)
    limit = max(ids.values(), default=-1)
    roles = {role: number for role, number in roles.items() if number <= limit}
    first, last = _template_ends(post_processor)
    add_bos, add_eos = tokenizer.get("add_bos_token"), tokenizer.get("add_eos_token")
    # An explicit setting is newer than the post-processor: saving a tokenizer keeps the old one.
    return SpecialTokens(
        ids=roles,
        add_bos="bos" in roles
        and (add_bos if isinstance(add_bos, bool) else ids.get(first or "") == roles["bos"]),
        add_eos="eos" in roles
        and (add_eos if isinstance(add_eos, bool) else ids.get(last or "") == roles["eos"]),
        chat_template=template,
    )


def _ends(
    named: int | None, listed: list[int], ids: dict[str, int], template: Any
) -> dict[str, int]:
    """`eos`, and `eot` where another token of those that end generation ends a chat turn.

    The tokenizer's own token wins if generation stops at it; an instruct model whose tokenizer
    still names the base model's end is told from its `generation_config.json`.
    """
    if named is None and not listed:
        return {}
    eos = named if named is not None and (named in listed or not listed) else listed[0]
    texts = {number: text for text, number in ids.items()}
    turn = [n for n in listed if n != eos and n in texts and texts[n] in str(template or "")]
    return {"eos": eos, "eot": turn[0]} if turn else {"eos": eos}


def _template_ends(post_processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The special texts that a `TemplateProcessing` step puts before and after a single text."""
    if post_processor is None:
        return None, None
    if post_processor.get("type") == "Sequence":
        steps = post_processor.get("processors")
        found = [_template_ends(s) for s in steps if isinstance(s, dict)] if isinstance(
            steps, list
        ) else []  # fmt: skip
        return next((pair for pair in found if any(pair)), (None, None))
    single = post_processor.get("single")
    if post_processor.get("type") != "TemplateProcessing" or not isinstance(single, list):
        return None, None
    items = [item.get("SpecialToken") if isinstance(item, dict) else None for item in single]
    texts = [item.get("id") if isinstance(item, dict) else None for item in items]
    texts = [text if isinstance(text, str) else None for text in texts]
    return (texts[0], texts[-1]) if len(texts) > 1 else (None, None)


def _chat_template(folder: Path, tokenizer: dict[str, Any]) -> str | list[dict[str, str]] | None:
    """The Jinja template, or several by name; a file of its own is newer than the config's key."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            with path.open(encoding="utf-8") as stream:  # one more tells that it is too long
                template: Any = stream.read(MAX_TEMPLATE_CHARACTERS + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {error}") from None
    else:
        template = tokenizer.get("chat_template")
    if isinstance(template, list):
        pairs = [t for t in template if isinstance(t, dict)]
        template = [{k: t[k] for k in ("name", "template")} for t in pairs if _is_named(t)]
    elif not isinstance(template, str):
        return None
    if len(str(template)) > MAX_TEMPLATE_CHARACTERS:
        raise InputError(
            f"chat_template: longer than {MAX_TEMPLATE_CHARACTERS} characters @ {folder}"
        )
    return template or None


def _is_named(template: dict[str, Any]) -> bool:
    return isinstance(template.get("name"), str) and isinstance(template.get("template"), str)


def _text(value: Any) -> str | None:
    """A token's text, which the files write bare or as {"content": text, ...}."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _ids(value: Any) -> list[int]:
    """Ids from one id or a list of them."""
    listed = value if isinstance(value, list) else [value]
    return [n for n in listed if type(n) is int and n >= 0]


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}
