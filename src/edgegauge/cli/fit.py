"""`edgegauge fit`: which models fit a device, predicted before anything is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgegauge import budget as budgets
from edgegauge import catalog
from edgegauge import usage as usages
from edgegauge.budget import Budget
from edgegauge.choose import Verdict, explain, explain_choice
from edgegauge.cli.budget_options import BudgetFlags, budget_options
from edgegauge.cli.output import emit_json, json_option, stdout, table, text_of, warn
from edgegauge.device import load
from edgegauge.errors import EXIT_BROKEN_BUDGET, EXIT_DONE
from edgegauge.figure import Figure
from edgegauge.fit import DEFAULT_RECIPES, FitReport, Subject, fit, published_quality
from edgegauge.predict import DEFAULT_PROMPT_TOKENS, Prediction
from edgegauge.units import format_bytes, format_count

SHOWN_PASSING = 24
"""With more rows than this, only the frontier is listed; --all shows every one."""

SHOWN_FAILURES = 12
"""Models in the second table; --all shows every candidate."""

Row = tuple[Prediction, Verdict]


@click.command("fit")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--device", required=True, metavar="ID|FILE", help="Device profile: id or .toml.")
@click.option(
    "--recipe", "recipes", multiple=True, metavar="ID",
    help=f"Recipe to consider; may be repeated [{', '.join(DEFAULT_RECIPES)}].",
)  # fmt: skip
@click.option(
    "--context", type=click.IntRange(1), metavar="TOKENS",
    help="Room for prompt and answer [2048, or all a model has].",
)  # fmt: skip
@click.option(
    "--prompt-tokens", type=click.IntRange(1), default=DEFAULT_PROMPT_TOKENS, show_default=True,
    metavar="TOKENS", help="Length of the prompt.",
)  # fmt: skip
@click.option(
    "--budget", "budget_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Limits as TOML; the options below override it.",
)  # fmt: skip
@budget_options
@click.option(
    "--usage", default=usages.DEFAULT, show_default=True, metavar="NAME|FILE",
    help="How the model is used, for the battery figures: a shipped usage or your own .toml.",
)  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="List every candidate.")
@json_option
def command(
    models: tuple[str, ...],
    device: str,
    recipes: tuple[str, ...],
    context: int | None,
    prompt_tokens: int,
    budget_file: Path | None,
    limits: BudgetFlags,
    usage: str,
    show_all: bool,
    as_json: bool,
) -> int:
    """Predict which models fit a device, how fast, and for how long on battery.

    MODEL is a catalog id, a Hugging Face folder, a config.json or a GGUF file; without any, the
    whole catalog is considered. Nothing is downloaded or run: every figure is predicted, with an
    80 % interval, and quality is what the publisher of the unquantised weights states.

    Exits with status 3 when nothing meets every limit.
    """
    base = budgets.load(budget_file) if budget_file else Budget()
    budget, metric = limits.apply(base), limits.metric(base)
    report = fit(
        load(device), _subjects(models, metric, context), recipes or DEFAULT_RECIPES, budget,
        metric=metric, prompt_tokens=prompt_tokens, context=context, usage=usages.load(usage),
    )  # fmt: skip
    if as_json:
        emit_json(report.to_json())
    else:
        _show(report, prompt_tokens, show_all)
    if report.choice.recommended and report.budget.quality is None:
        warn("no quality floor is set, so the smallest model wins; --min-quality sets one")
    return EXIT_DONE if report.choice.recommended else EXIT_BROKEN_BUDGET


def _subjects(models: tuple[str, ...], metric: str, context: int | None) -> list[Subject]:
    """The models named, or the catalog without those that are too short for the context."""
    if models:
        # Reading GGUF headers and configs is of no use to a fit over the catalog.
        from edgegauge.find_model import resolve_model

        found = [resolve_model(reference) for reference in models]
        return [
            Subject(f.spec, published_quality(f.entry, metric) if f.entry else None) for f in found
        ]
    entries = list(catalog.load().values())
    short = [e.id for e in entries if context is not None and e.spec.context < context]
    if short:
        warn(f"left out, made for fewer than {context} tokens: {', '.join(short)}")
    return [Subject(e.spec, published_quality(e, metric)) for e in entries if e.id not in short]


def _show(report: FitReport, prompt_tokens: int, show_all: bool) -> None:
    console = stdout()
    device = report.device
    room = format_bytes(device.app_memory_bytes)
    about = escape(f": {device.cpu.soc}, {room} for one application")
    console.print(f"[bold]{escape(device.name)}[/]{about}")
    console.print(f"[dim]{_conditions(report, prompt_tokens)}[/]\n")
    rows = report.rows()
    passing = [row for row in rows if row[1].passes]
    failing = [row for row in rows if not row[1].passes]
    if passing:
        listed = (
            passing if show_all or len(passing) <= SHOWN_PASSING else _frontier(report, passing)
        )
        console.print(_passing_table(report, listed))
        legend = ["> recommended", "* on the frontier"]
        legend += ["? a limit lies within its error"] if any(v.uncertain for _, v in listed) else []
        if len(listed) < len(passing):
            legend.append(f"{len(passing) - len(listed)} more pass: --all")
        console.print(f"[dim]{'   '.join(legend)}[/]")
        if any(prediction.battery for prediction, _ in listed):
            _show_usage(console, report)
        console.print()
    if failing:
        _show_failures(console, failing, show_all)
    console.print(explain_choice(report.choice), soft_wrap=True, markup=False)


def _show_usage(console: Console, report: FitReport) -> None:
    """What the battery figures count, since they mean nothing without it."""
    power = report.device.power
    console.print(escape(f"usage {report.usage.sentence()}"), style="dim", soft_wrap=True)
    if power and not power.idle_w:
        console.print(
            "idle power of this device is not known: all of its power counts as added drain"
            + ("" if report.usage.waiting_w else ", and conversations leave out the reading time"),
            style="dim", soft_wrap=True,
        )  # fmt: skip


def _show_failures(console: Console, failing: list[Row], show_all: bool) -> None:
    """One line per model and first broken limit; models nothing is known of only by name."""
    unknown = [row for row in failing if len(row[1].unknown) == len(row[1].broken)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for prediction, verdict in failing:
        if (prediction, verdict) not in unknown:
            key = prediction.model, verdict.broken[0].limit
            groups.setdefault(key, []).append((prediction, verdict))
    made = table("fails", "recipe", "why")
    made.columns[0].max_width = 24
    recipes = {prediction.recipe for prediction, _ in failing}
    shown = list(groups.values())[: None if show_all else SHOWN_FAILURES]
    for group in shown:
        prediction, verdict = group[0]
        mine = [p.recipe for p, _ in group]
        named = "all" if len(mine) == len(recipes) > 1 else ", ".join(mine)
        why = escape(explain(verdict))
        why = why if len(group) == 1 else f"{prediction.recipe} {why}"
        made.add_row(_name(prediction.model), named, why, style="dim")
    if shown:
        console.print(made)
        if len(shown) < len(groups):
            console.print(f"[dim]and {len(groups) - len(shown)} more: --all[/]")
        console.print()
    if unknown:
        names = ", ".join(dict.fromkeys(p.model for p, _ in unknown))
        console.print(escape(f"Not judged, {explain(unknown[0][1])}: {names}\n"), style="dim")


def _frontier(report: FitReport, rows: list[Row]) -> list[Row]:
    best = report.choice.recommended
    keys = report.choice.frontier | ({best.key} if best else set())
    return [row for row in rows if row[1].candidate.key in keys]


def _conditions(report: FitReport, prompt_tokens: int) -> str:
    """What the figures hold for, and how sure they are."""
    first = report.predictions[0] if report.predictions else None
    threads = f"{first.threads} threads, " if first else ""
    text = f"predicted for llama.cpp, {threads}{prompt_tokens}-token prompt"
    for prediction in report.predictions:
        decode = prediction.decode_tok_per_s
        if decode and decode.low and decode.high:
            low, high = decode.low / decode.value, decode.high / decode.value
            return f"{text}; decode rates within x{low:.2f} to x{high:.2f} (80 %)"
    return text


def _passing_table(report: FitReport, rows: list[Row]) -> Table:
    """Candidates that pass, smallest first; columns without any figure are left out."""
    columns = [c for c in _columns(report.metric) if any(c[1](*row) != "-" for row in rows)]
    made = table(
        "", "model", "recipe", *(n for n, _ in columns), right=tuple(n for n, _ in columns)
    )
    best = report.choice.recommended
    for prediction, verdict in rows:
        key = verdict.candidate.key
        recommended = best is not None and key == best.key
        marks = ">" if recommended else "*" if key in report.choice.frontier else " "
        made.add_row(
            Text(marks + ("?" if verdict.uncertain else "")), _name(prediction.model),
            prediction.recipe, *(cell(prediction, verdict) for _, cell in columns),
            style="bold" if recommended else None,
        )  # fmt: skip
    return made


def _columns(metric: str) -> list[tuple[str, Callable[[Prediction, Verdict], str]]]:
    """Heads and cells; all but the score is predicted, which the line above the table says."""
    return [
        ("file", lambda p, v: format_bytes(p.file_bytes)),
        ("memory", lambda p, v: _bare(p.needed_memory_bytes)),
        ("first\ntoken", lambda p, v: _bare(p.ttft_s)),
        ("decode\ntok/s", lambda p, v: _bare(p.decode_tok_per_s)),
        ("J per\ntoken", lambda p, v: _bare(p.energy_j_per_token)),
        ("tokens\n/charge", lambda p, v: _count(v.candidate.figure("tokens_per_charge"))),
        ("talks\n/charge", lambda p, v: _count(v.candidate.figure("conversations_per_charge"))),
        ("drain\n%/h", lambda p, v: _drain(v.candidate.figure("added_drain_percent_per_hour"))),
        (escape(metric).replace("_", "\n", 1), lambda p, v: text_of(v.candidate.figure("quality"))),
    ]


def _bare(figure: Figure | None) -> str:
    """A figure without the mark and without the unit that its column's head has."""
    text = text_of(figure).removeprefix("~")
    return text.removesuffix(" tok/s").removesuffix(" J/token")


def _count(figure: Figure | None) -> str:
    return "-" if figure is None else format_count(figure.value)


def _drain(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:.2g}"


def _name(model: str) -> Text:
    return Text(model, overflow="ellipsis", no_wrap=True)
