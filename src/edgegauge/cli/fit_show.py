"""The text of `edgegauge fit` for one device: what passes, what fails and why, the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgegauge.choose import Verdict, explain, explain_choice
from edgegauge.cli.output import stdout, table, text_of
from edgegauge.figure import Figure
from edgegauge.fit import FitReport
from edgegauge.predict import RUNTIME_NAMES, Prediction
from edgegauge.units import format_bytes, format_count

SHOWN_PASSING = 24
"""With more rows than this, each model of the frontier is listed once; --all shows every row."""

PER_CHARGE = ("drain\n%/h", "tokens\n/charge", "talks\n/charge")
DISPENSABLE = ("file", *PER_CHARGE, "J per\ntoken")
"""Columns that a narrow terminal leaves out, the first one first."""

SHOWN_FAILURES = 12
"""Models in the second table; --all shows every candidate."""

Row = tuple[Prediction, Verdict]


def show_device(report: FitReport, show_all: bool) -> None:
    """Print a report; `show_all` lists every candidate."""
    console = stdout()
    device = report.device
    room = format_bytes(device.app_memory_bytes)
    about = escape(f": {device.cpu.soc}, {room} for one application")
    console.print(f"[bold]{escape(device.name)}[/]{about}")
    console.print(f"[dim]{escape(_conditions(report))}[/]\n")
    rows = report.rows()
    passing = [row for row in rows if row[1].passes]
    failing = [row for row in rows if not row[1].passes]
    if passing:
        _show_passing(console, report, passing, show_all)
    if failing:
        passing_models = {prediction.model for prediction, _ in passing}
        _show_failures(console, failing, passing_models, show_all)
    console.print(explain_choice(report.choice), soft_wrap=True, markup=False)


def _conditions(report: FitReport) -> str:
    """What the figures hold for, and how sure they are."""
    if not report.predictions:
        return "nothing to predict"
    prompt = max(p.prompt_tokens for p in report.predictions)
    runtimes: dict[str, str] = {}
    for prediction in report.predictions:
        decode = prediction.decode_tok_per_s
        if decode is not None and prediction.file_format not in runtimes:
            low, high = decode.least / decode.value, decode.most / decode.value
            runtimes[prediction.file_format] = (
                f"{RUNTIME_NAMES[prediction.file_format]} with {prediction.threads} threads "
                f"x{low:.2f} to x{high:.2f}"
            )
    sure = f"; decode rates within (80 %): {', '.join(runtimes.values())}" if runtimes else ""
    return f"predicted for a prompt of {prompt} tokens{sure}"


def _show_passing(console: Console, report: FitReport, passing: list[Row], show_all: bool) -> None:
    everything = show_all or len(passing) <= SHOWN_PASSING
    listed = passing if everything else _frontier(report, passing)
    unlimited = console.options.update(max_width=1000)
    for narrower in range(len(DISPENSABLE) + 1):
        made = _passing_table(report, listed, DISPENSABLE[:narrower])
        if Measurement.get(console, unlimited, made).maximum <= console.width:
            break
    console.print(made)
    legend = ["> recommended", "* on the frontier"]
    legend += ["? a limit lies within its error"] if any(v.uncertain for _, v in listed) else []
    if len(listed) < len(passing):
        legend.append(f"{len(passing) - len(listed)} more pass: --all")
    console.print(f"[dim]{'   '.join(legend)}[/]")
    if any(column.header in PER_CHARGE for column in made.columns):
        _show_usage(console, report)
    console.print()


def _frontier(report: FitReport, rows: list[Row]) -> list[Row]:
    """The smallest candidate on the frontier of each model there, and the recommended one."""
    shown: dict[str, Row] = {}
    for row in rows:
        candidate = row[1].candidate
        if candidate is report.choice.recommended or candidate.key in report.choice.frontier:
            shown.setdefault(candidate.model, row)
    return list(shown.values())


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


def _show_failures(
    console: Console, failing: list[Row], passing_models: set[str], show_all: bool
) -> None:
    """Of each model that passes in no way, the candidate that breaks the fewest limits, or all that
    fail; models nothing is known of only by name."""
    unknown = [row for row in failing if len(row[1].unknown) == len(row[1].broken)]
    known = [row for row in failing if len(row[1].unknown) < len(row[1].broken)]
    shown = known if show_all else _nearest(known, passing_models)[:SHOWN_FAILURES]
    if shown:
        made = table("fails", "stored as", "why")
        made.columns[0].max_width = 24
        for prediction, verdict in shown:
            stored = _stored_as(prediction)
            made.add_row(_name(prediction.model), stored, escape(explain(verdict)), style="dim")
        console.print(made)
        if len(shown) < len(known):
            console.print(f"[dim]{len(known) - len(shown)} more candidates fail: --all[/]")
        console.print()
    if unknown:
        names = ", ".join(dict.fromkeys(p.model for p, _ in unknown))
        console.print(escape(f"Not judged, {explain(unknown[0][1])}: {names}\n"), style="dim")


def _nearest(failing: list[Row], passing_models: set[str]) -> list[Row]:
    best: dict[str, Row] = {}
    for row in sorted(failing, key=lambda row: len(row[1].broken)):
        best.setdefault(row[0].model, row)
    return [
        row for row in failing if best[row[0].model] is row and row[0].model not in passing_models
    ]


def _stored_as(prediction: Prediction) -> str:
    return f"{prediction.file_format} {prediction.recipe}"


def _passing_table(report: FitReport, rows: list[Row], without: Sequence[str]) -> Table:
    """Candidates that pass, smallest first; columns without any figure are left out too."""
    columns = [
        (head, cell)
        for head, cell in _columns(report.metric)
        if head not in without and any(cell(*row) != "-" for row in rows)
    ]
    made = table(
        "", "model", "stored as", *(n for n, _ in columns), right=tuple(n for n, _ in columns)
    )
    best = report.choice.recommended
    for prediction, verdict in rows:
        key = verdict.candidate.key
        recommended = best is not None and key == best.key
        marks = ">" if recommended else "*" if key in report.choice.frontier else " "
        made.add_row(
            Text(marks + ("?" if verdict.uncertain else "")), _name(prediction.model),
            _stored_as(prediction), *(cell(prediction, verdict) for _, cell in columns),
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
