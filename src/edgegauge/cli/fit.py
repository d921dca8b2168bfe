"""`edgegauge fit`: which models fit a device, predicted before anything is downloaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgegauge import budget as budgets
from edgegauge import catalog
from edgegauge import usage as usages
from edgegauge.budget import Budget
from edgegauge.cli.advice import advice_on, show_advice, with_advice
from edgegauge.cli.budget_options import BudgetFlags, budget_options
from edgegauge.cli.fit_devices import show_devices
from edgegauge.cli.fit_show import show_device
from edgegauge.cli.output import emit_json, emit_json_list, json_option, warn
from edgegauge.cli.shape import Shaping, shape_options
from edgegauge.device import DeviceProfile, known_ids, load
from edgegauge.errors import EXIT_BROKEN_BUDGET, EXIT_DONE
from edgegauge.fit import (
    FORMATS,
    FitReport,
    Recipes,
    Subject,
    fit,
    published_quality,
    recipes_for,
)
from edgegauge.predict import DEFAULT_PROMPT_TOKENS


@click.command("fit")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--device", "devices", multiple=True, metavar="ID|FILE",
    help="Device profile: id or .toml; may be repeated.",
)  # fmt: skip
@click.option("--all-devices", is_flag=True, help="Every device of `edgegauge devices list`.")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(FORMATS),
    help="Format to consider; may be repeated [all three].",
)  # fmt: skip
@click.option(
    "--recipe", "recipes", multiple=True, metavar="ID",
    help="Recipe to consider; may be repeated [int8 and int4; in GGUF also q4_0].",
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
@click.option(
    "--advice", is_flag=True, help="Say what would make each failing candidate of MODELs pass."
)
@shape_options
@json_option
def command(
    models: tuple[str, ...],
    devices: tuple[str, ...],
    all_devices: bool,
    formats: tuple[str, ...],
    recipes: tuple[str, ...],
    context: int | None,
    prompt_tokens: int,
    budget_file: Path | None,
    limits: BudgetFlags,
    usage: str,
    show_all: bool,
    advice: bool,
    shaping: Shaping,
    as_json: bool,
) -> int:
    """Predict which models fit a device, how fast, and for how long on battery.

    MODEL is a catalog id, a Hugging Face folder, a config.json or a GGUF file; without any, the
    whole catalog is considered. Nothing is downloaded or run: every figure is predicted, with an
    80 % interval, and quality is what the publisher of the unquantised weights states. With several
    devices, a table tells what fits each of them best. Exits with status 3 when nothing meets every
    limit, on one of the devices or more.
    """
    base = budgets.load(budget_file) if budget_file else Budget()
    budget, metric = limits.apply(base), limits.metric(base)
    profiles = _profiles(devices, all_devices)
    several = all_devices or len(profiles) > 1
    _refuse(several, models, advice, shaping)
    if shaping.wanted:
        return shaping.design(
            profiles[0], budget, formats, recipes, context, prompt_tokens, as_json
        )
    stored = _stored(formats, recipes)
    subjects = _subjects(models, metric, context)
    fit_on = partial(
        fit, subjects=subjects, recipes=stored, budget=budget, metric=metric,
        prompt_tokens=prompt_tokens, context=context, usage=usages.load(usage),
    )  # fmt: skip
    if several:
        gc.freeze()  # What is loaded stays: looking for garbage in it took a tenth of the time.
        fits = _tell_devices(map(fit_on, profiles), as_json)
    else:
        advised = subjects if advice else []
        fits = _tell(fit_on(profiles[0]), show_all, as_json, advised, stored)
    if fits and budget.quality is None:
        warn("no quality floor is set, so the smallest model wins; --min-quality sets one")
    return EXIT_DONE if fits else EXIT_BROKEN_BUDGET


def _refuse(several: bool, models: tuple[str, ...], advice: bool, shaping: Shaping) -> None:
    """Complain of options that say nothing together."""
    if shaping.wanted and (several or models):
        raise click.UsageError("--shape takes one device and no MODEL")
    if advice and (several or not models):
        raise click.UsageError("--advice takes one device, and the MODELs by name")


def _profiles(devices: tuple[str, ...], all_devices: bool) -> list[DeviceProfile]:
    """The devices that are meant, each once."""
    if bool(devices) == all_devices:
        raise click.UsageError("name a device with --device, or take all with --all-devices")
    return [load(name) for name in dict.fromkeys(devices or known_ids())]


def _stored(formats: tuple[str, ...], recipes: tuple[str, ...]) -> Recipes:
    """The recipes of each format, what is left out said once."""
    stored, left_out = recipes_for(formats or FORMATS, recipes or None)
    for sentence in left_out:
        warn(f"left out: {sentence}")
    return stored


def _tell(
    report: FitReport, show_all: bool, as_json: bool, advised: list[Subject], stored: Recipes
) -> bool:
    """Show one device, with advice on the subjects that want it; whether anything fits there."""
    found = advice_on(report, advised, stored)
    if as_json:
        emit_json(with_advice(report.to_json(), found))
    else:
        show_device(report, show_all)
        show_advice(report, found)
    return report.choice.recommended is not None


def _tell_devices(reports: Iterator[FitReport], as_json: bool) -> bool:
    """Show several devices; whether something meets every limit on each of them."""
    if not as_json:
        return show_devices(reports)
    fits = []

    def documents() -> Iterator[Any]:
        for report in reports:
            fits.append(report.choice.recommended is not None)
            yield report.to_json()

    emit_json_list("devices", documents())
    return all(fits)


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
