"""`edgegauge models`: the catalog, and what a model folder, config.json or GGUF file describes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from edgegauge import catalog
from edgegauge.catalog import CatalogEntry
from edgegauge.cli.output import emit_json, json_option, stdout, table, warn
from edgegauge.errors import InputError
from edgegauge.find_model import is_gguf, resolve_model
from edgegauge.gguf_header import label, label_note, spec_from_header, storage
from edgegauge.gguf_reader import GgufHeader, read_header
from edgegauge.model import ModelSpec
from edgegauge.units import KIB, format_bytes

CONTEXTS = (512, 2048, 4096, 8192, 32768)
"""Tokens for which `show` gives the cache, as far as the model reaches."""

GENERAL = ("name", "finetune", "size_label", "license", "quantized_by")
"""Keys under `general.` of a GGUF file that `show` repeats."""

ID_WIDTH = 23
WIDE = 98
"""Columns of a terminal from which the list has room for shapes and caches."""


@click.group("models")
def command() -> None:
    """The model catalog; also reads a Hugging Face folder, config.json or GGUF header."""


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the catalog, smallest model first."""
    entries = catalog.load().values()
    if as_json:
        emit_json({"format": 1, "models": [_entry_document(e) for e in entries]})
        return
    console = stdout()
    wide = console.width >= WIDE
    numbers = ("params", "context", *(("layers x\nhidden", "KV KiB/\ntoken") if wide else ()))
    rows = table("id", *numbers, "quality", "licence", right=numbers)
    rows.columns[0].min_width, rows.columns[0].max_width = ID_WIDTH, ID_WIDTH
    for entry in entries:
        spec, score = entry.spec, entry.headline
        rows.add_row(
            entry.id,
            count_of(spec.parameters),
            str(entry.context),
            *((f"{_layers(spec)} x {spec.hidden}", _kv_text(spec)) if wide else ()),
            f"{score.benchmark} {score.value:g}",
            _short_licence(entry),
        )
    console.print(rows)
    console.print(
        "\nquality: published, in percent; avg8 is the mean of eight zero-shot tasks, TinyStories "
        "a loss. KV: growth of the f16 cache. licence: * restricts use, ? not found. "
        "Terms and sources: edgegauge models show ID"
    )


@command.command("show")
@click.argument("reference", metavar="MODEL")
@json_option
def show_model(reference: str, as_json: bool) -> None:
    """Show one model: MODEL is a catalog id, a model folder, a config.json or a GGUF file."""
    if is_gguf(reference):
        _show_gguf(read_header(Path(reference)), as_json)
        return
    found = resolve_model(reference)
    if as_json:
        known = _entry_document(found.entry) if found.entry else _spec_document(found.spec)
        emit_json({"format": 1, "kind": found.kind} | known)
        return
    console = stdout()
    if found.entry:
        entry = found.entry
        console.print(f"[bold]{entry.name}[/] ({entry.id}), {entry.variant}, {entry.released}")
    else:
        console.print(f"[bold]{escape(found.spec.id)}[/] ({found.kind} {escape(reference)})")
    _print_facts(console, [*(_identity(found.entry) if found.entry else []), *_shape(found.spec)])
    if found.entry:
        _print_scores(console, found.entry)


def count_of(parameters: int) -> str:
    """`134.5M`, `1.24B`, `0.26M`: parameters as people write them."""
    if parameters >= 10**9:
        return f"{parameters / 10**9:.2f}B"
    return f"{parameters / 10**6:.{1 if parameters >= 10**7 else 2}f}M"


def _layers(spec: ModelSpec) -> str:
    return f"{spec.layers}" if spec.layer_repeats == 1 else f"{spec.layers}(x{spec.layer_repeats})"


def _kv_text(spec: ModelSpec) -> str:
    return f"{spec.kv_bytes_per_token / KIB:g}"


def _short_licence(entry: CatalogEntry) -> str:
    """The first words of the licence, marked where it restricts or is not known."""
    if entry.licence.name is None:
        return "?"
    first, *rest = entry.licence.name.split()
    words = " ".join([first, *(word for word in rest[:1] if len(word) < 10)])
    return f"{words}*" if entry.licence.restriction else words


def _spec_document(spec: ModelSpec) -> dict[str, Any]:
    """A spec with the figures that follow from it."""
    return {
        "id": spec.id,
        "parameters": spec.parameters,
        "parameter_split": {
            "embedding": spec.embedding_parameters,
            "body": spec.body_parameters,
            "head": spec.head_parameters,
        },
        "kv_bytes_per_token": spec.kv_bytes_per_token,
        "kv_cache_bytes": {str(c): round(spec.kv_cache_bytes(c)) for c in _contexts(spec)},
        "spec": spec.model_dump(mode="json"),
    }


def _entry_document(entry: CatalogEntry) -> dict[str, Any]:
    """A catalog entry as its file says it, with the figures that follow from the spec."""
    facts = entry.model_dump(mode="json", exclude={"format", "id", "architecture"})
    return _spec_document(entry.spec) | facts


def _contexts(spec: ModelSpec) -> list[int]:
    return sorted({*(c for c in CONTEXTS if c < spec.context), spec.context})


def _print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    rows = table("", "")
    rows.show_header = False
    for name, text in facts:
        rows.add_row(name, text)
    console.print(rows)


def _identity(entry: CatalogEntry) -> Iterator[tuple[str, str]]:
    """What the catalog knows beyond the architecture."""
    yield "weights", entry.weights or (f"hf:{entry.hub}" if entry.hub else "hub name not confirmed")
    yield "licence", entry.licence.name or "not found: look before you ship"
    if entry.licence.restriction:
        yield "", entry.licence.restriction
    yield "context", f"{entry.context} tokens"
    yield "facts from", entry.source
    if entry.notes:
        yield "note", entry.notes


def _shape(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """The architecture and what follows from it."""
    yield "family", spec.family
    yield "blocks", f"{_layers(spec)} of width {spec.hidden}, inner {spec.intermediate}"
    yield "heads", f"{spec.heads} query, {spec.kv_heads} key/value, {spec.head_dim} wide"
    head = "tied to the embedding" if spec.tied else "of its own"
    yield "vocabulary", f"{spec.vocab} tokens, output head {head}"
    yield "positions", _positions(spec)
    if spec.sliding_window is not None:
        yield "window", f"{spec.sliding_window} tokens; one block in {spec.global_every} sees all"
    split = f"embedding {spec.embedding_parameters:,} + body {spec.body_parameters:,}"
    split += "" if spec.tied else f" + head {spec.head_parameters:,}"
    yield "parameters", f"{spec.parameters:,} = {split}"
    sizes = [f"{format_bytes(spec.kv_cache_bytes(c))} at {c}" for c in _contexts(spec)]
    yield "cache (f16)", f"{', '.join(sizes)} tokens"


def _positions(spec: ModelSpec) -> str:
    text = f"up to {spec.context}, rotary with base {spec.rope_theta:.10g}"
    if spec.rope_local_theta is not None:
        text += f" ({spec.rope_local_theta:.10g} in local blocks)"
    if spec.rope_scaling is not None:
        text += f", {spec.rope_scaling.kind} scaling by {spec.rope_scaling.factor:g}"
    return text


def _print_scores(console: Console, entry: CatalogEntry) -> None:
    rows = table("benchmark", "shots", "value", "metric", "source", right=("shots", "value"))
    for score in entry.scores:
        shots = "?" if score.shots is None else str(score.shots)
        rows.add_row(score.benchmark, shots, f"{score.value:g}", score.metric, score.source)
    console.print("\n[bold]Published quality[/]")
    console.print(rows)


def _show_gguf(header: GgufHeader, as_json: bool) -> None:
    """A GGUF file, also one whose architecture has no spec here."""
    try:
        spec, reason = spec_from_header(header), None
    except InputError as error:
        spec, reason = None, str(error)
    if as_json:
        emit_json(_gguf_document(header, spec, reason))
        return
    console = stdout()
    console.print(f"[bold]{escape(header.path.name)}[/] (GGUF version {header.version})")
    if spec is not None:
        _print_facts(console, _shape(spec))
    stored = storage(header)
    rows = table("type", "tensors", "weights", "bytes", right=("tensors", "weights", "bytes"))
    for kind in stored.types:
        rows.add_row(kind.type, str(kind.tensors), f"{kind.elements:,}", format_bytes(kind.bytes))
    console.print(
        f"\n[bold]Stored[/] as {label(header) or 'no known type'}: "
        f"{format_bytes(stored.tensor_bytes)}, {stored.effective_bits:.2f} bits per weight"
    )
    console.print(rows)
    if note := label_note(header):
        warn(note)
    if reason:
        warn(f"no spec: {reason}")


def _gguf_document(
    header: GgufHeader, spec: ModelSpec | None, reason: str | None
) -> dict[str, Any]:
    stored = storage(header)
    general = {k: header.metadata.get(f"general.{k}") for k in GENERAL}
    return {
        "format": 1,
        "kind": "gguf",
        **(_spec_document(spec) if spec else {"id": header.path.stem.lower(), "spec": None}),
        "reason": reason,
        "gguf_version": header.version,
        "general": {k: v for k, v in general.items() if isinstance(v, str)},
        "label": label(header),
        "label_note": label_note(header),
        "tensor_bytes": stored.tensor_bytes,
        "effective_bits": stored.effective_bits,
        "types": {
            t.type: {"tensors": t.tensors, "elements": t.elements, "bytes": t.bytes}
            for t in stored.types
        },
    }
