"""What the commands share: the --json option, the consoles, and figures as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgegauge.figure import Figure
from edgegauge.units import format_quantity

Function = TypeVar("Function", bound=Callable[..., Any])

MIN_PIPE_WIDTH = 120
"""Columns of a table that is written to a pipe or file, where no terminal gives a width."""


def json_option(function: Function) -> Function:
    """Add `--json` as the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(
        function
    )


def emit_json(document: Any) -> None:
    """Print the one document of a `--json` call."""
    click.echo(_json(document))


def emit_json_list(name: str, documents: Iterable[Any]) -> None:
    """Print one document, with the list `name` of these; each is printed before the next is made,
    since together they may be larger than the memory."""
    click.echo(f'{{\n"format": 1,\n"{name}": [')
    for index, document in enumerate(documents):
        click.echo(f"{',' if index else ''}{_json(document)}")
    click.echo("]\n}")


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def stdout() -> Console:
    """The console for data; wide enough for tables when piped."""
    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, emoji=False, width=MIN_PIPE_WIDTH)


def stderr() -> Console:
    """The console for talk, progress and warnings."""
    # Names like `termux:battery:` are no emoji.
    return Console(stderr=True, highlight=False, emoji=False)


def warn(message: str) -> None:
    """One warning on stderr."""
    stderr().print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table in the house style; columns named in `right` are right-aligned."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def text_of(figure: Figure | None, *, interval: bool = False) -> str:
    """A figure as people read it: `12.3 tok/s`, `~12.3 tok/s` if predicted, `-` if missing."""
    if figure is None:
        return "-"
    mark = "~" if figure.kind == "predicted" else ""
    text = mark + format_quantity(figure.value, figure.unit)
    if interval and figure.low is not None and figure.high is not None:
        low, high = (format_quantity(v, figure.unit) for v in (figure.low, figure.high))
        text += f" [{low} .. {high}]"
    return text


@contextmanager
def progress(
    description: str, total: float | None = None
) -> Iterator[Callable[[float, str], None]]:
    """A progress line on stderr; yields `advance(done, note)`, silent off a terminal."""
    # Loaded here, since most commands show no progress.
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = stderr()
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(description, total=total)

        def advance(done: float, note: str) -> None:
            bar.update(task, completed=done, description=f"{description}: {note}")

        yield advance
