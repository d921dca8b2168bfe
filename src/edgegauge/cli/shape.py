"""`edgegauge fit --shape`: decoder shapes for those who train their own."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from edgegauge.budget import Budget
from edgegauge.cli.output import emit_json, stderr, stdout, table, text_of
from edgegauge.device import DeviceProfile
from edgegauge.document import atomic_write
from edgegauge.errors import EXIT_BROKEN_BUDGET, EXIT_DONE
from edgegauge.fit import within_device
from edgegauge.predict import DEFAULT_CONTEXT
from edgegauge.recipe import resolve
from edgegauge.shapes import DEFAULT_VOCAB, Shape, Wish, config_of, search
from edgegauge.units import format_bytes, format_count

SHOWN = 10
SHOWN_STEP = 0.8
"""A row of the table has at most this share of the parameters of the one above; --json has all."""

OWN_HEAD, SHARED = "own head", "shared"


@dataclass(frozen=True, slots=True)
class Shaping:
    """What the options of this command ask for."""

    wanted: bool
    vocab: int
    config: Path | None

    def design(
        self, device: DeviceProfile, budget: Budget, formats: Sequence[str],
        recipes: Sequence[str], context: int | None, prompt_tokens: int, as_json: bool,
    ) -> int:  # fmt: skip
        """Search, show, and write the config.json of the largest shape; the exit status."""
        if len(formats) > 1 or len(recipes) > 1:
            raise click.UsageError("--shape takes one --format and one --recipe")
        file_format = formats[0] if formats else "gguf"
        wish = Wish(
            recipe=resolve(recipes[0] if recipes else "int4", file_format),
            file_format=file_format, vocab=self.vocab, context=context or DEFAULT_CONTEXT,
            prompt_tokens=prompt_tokens,
        )  # fmt: skip
        return _design(device, budget, wish, config=self.config, as_json=as_json)


def shape_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `--shape`; they reach the command as one argument, `shaping: Shaping`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any, shape: bool, vocab: int | None, write_config: Path | None, **kw: Any
    ) -> Any:
        if not shape and (vocab or write_config):
            raise click.UsageError("--vocab and --write-config are for --shape")
        shaping = Shaping(shape, vocab or DEFAULT_VOCAB, write_config)
        return function(*args, shaping=shaping, **kw)

    decorated: Callable[..., Any] = click.option(
        "--write-config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
        help="With --shape: write the config.json of the largest shape.",
    )(wrapped)  # fmt: skip
    decorated = click.option(
        "--vocab", type=click.IntRange(1, 2**20), metavar="N",
        help=f"With --shape: entries of the vocabulary [{DEFAULT_VOCAB}].",
    )(decorated)  # fmt: skip
    return click.option(
        "--shape", is_flag=True,
        help="For those who train: the largest decoders that meet the budget, without MODELs.",
    )(decorated)  # fmt: skip


def _design(
    device: DeviceProfile, budget: Budget, wish: Wish, *, config: Path | None, as_json: bool
) -> int:
    limits = within_device(budget, device)
    found = search(device, limits, wish)
    others = {
        OWN_HEAD: search(device, limits, replace(wish, tied=False)),
        SHARED: search(device, limits, replace(wish, layer_repeats=2)),
    }
    if as_json:
        emit_json(_document(device, wish, found, others))
    else:
        _show(device, wish, found, others)
    if config is not None and found:
        with atomic_write(config, "w") as stream:
            stream.write(json.dumps(config_of(found[0].spec), indent=1) + "\n")
        stderr().print(f"written: {config}", markup=False, soft_wrap=True)
    return EXIT_DONE if found else EXIT_BROKEN_BUDGET


def _document(
    device: DeviceProfile, wish: Wish, found: list[Shape], others: dict[str, list[Shape]]
) -> dict[str, Any]:
    return {
        "format": 1,
        "device": device.id,
        "recipe": wish.recipe,
        "file_format": wish.file_format,
        "recommended": _shape(found[0]) if found else None,
        "shapes": [_shape(shape) for shape in found],
        "alternatives": {name: _shape(s[0]) if s else None for name, s in others.items()},
    }


def _shape(shape: Shape) -> dict[str, Any]:
    candidate = shape.verdict.candidate
    names = ("file_bytes", "memory_bytes", "ttft_s", "decode_tok_per_s", "prefill_tok_per_s")
    figures = {name: candidate.figure(name) for name in names}
    return {
        "config": config_of(shape.spec),
        "parameters": shape.spec.parameters,
        "block_parameters": shape.spec.body_parameters,
        "uncertain": shape.verdict.uncertain,
        **{name: figure.to_json() if figure else None for name, figure in figures.items()},
    }


def _show(
    device: DeviceProfile, wish: Wish, found: list[Shape], others: dict[str, list[Shape]]
) -> None:
    console = stdout()
    console.print(f"[bold]{escape(device.name)}[/]: decoders at {wish.recipe} ({wish.file_format})")
    console.print(
        f"vocabulary {wish.vocab}, {wish.context} tokens of context, {wish.prompt_tokens}-token "
        "prompt; predicted, most parameters first\n",
        style="dim", soft_wrap=True,
    )  # fmt: skip
    if not found:
        console.print("Nothing fits: no shape of the grid meets every limit.")
        return
    columns = ("layers", "width", "heads", "ffn", "in blocks", "in all", "file", "memory",
               "first token", "decode")  # fmt: skip
    made = table("", *columns, right=columns)
    for index, shape in enumerate(_thinned(found)):
        made.add_row(">" if index == 0 else "", *_cells(shape), style="bold" if not index else None)
    for name, shapes in others.items():
        for shape in shapes[:1]:
            made.add_row(name, *_cells(shape), style="dim")
    console.print(made)
    console.print(
        "\nheads: query/key-value; in blocks: parameters outside embedding and head; own head: "
        "the largest whose head is not the embedding; shared: the largest with each block twice",
        style="dim", soft_wrap=True,
    )  # fmt: skip


def _thinned(shapes: Iterable[Shape]) -> list[Shape]:
    """The first shape and those clearly smaller than the one before."""
    kept: list[Shape] = []
    for shape in shapes:
        size = shape.spec.body_parameters
        if not kept or size <= SHOWN_STEP * kept[-1].spec.body_parameters:
            kept.append(shape)
    return kept[:SHOWN]


def _cells(shape: Shape) -> list[str]:
    spec, prediction = shape.spec, shape.prediction
    shared = f" x{spec.layer_repeats}" if spec.layer_repeats > 1 else ""
    return [
        f"{spec.layers}{shared}",
        str(spec.hidden),
        f"{spec.heads}/{spec.kv_heads}",
        str(spec.intermediate),
        format_count(spec.body_parameters),
        format_count(spec.parameters),
        format_bytes(prediction.file_bytes),
        text_of(prediction.needed_memory_bytes),
        text_of(prediction.ttft_s),
        text_of(prediction.decode_tok_per_s),
    ]
