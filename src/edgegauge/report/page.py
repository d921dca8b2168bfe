"""The report: one HTML page without scripts, network or other files, from result files alone.

    write_page(gather([Path("results")]), Path("report.html"))

Everything that came from outside is escaped by the template engine, and the page forbids itself to
load or execute anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegauge import __version__
from edgegauge.document import atomic_write
from edgegauge.errors import MissingDependency
from edgegauge.report.chapter import Chapter
from edgegauge.report.shown import clean, limits_of
from edgegauge.report.summary import DevicePrediction, RunSummary


def write_page(chapters: RunSummary | Sequence[Chapter], path: Path) -> None:
    """Write the page of one summary, or of chapters under each other, atomically.

    Raises MissingDependency without the `report` extra.
    """
    page = render([Chapter(chapters)] if isinstance(chapters, RunSummary) else chapters)
    with atomic_write(path, "w") as stream:
        stream.write(page)


def render(chapters: Sequence[Chapter]) -> str:
    """The page as text; raises MissingDependency without the `report` extra."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        from edgegauge.report import view
    except ImportError:
        raise MissingDependency("the HTML report", "report") from None
    environment = Environment(
        loader=PackageLoader("edgegauge", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    notes = view.Notes()
    sections = [_section(c, f"s{i}", notes) for i, c in enumerate(chapters)]
    template = environment.get_template("template.html.j2")
    return template.render(sections=sections, sources=notes.sources, version=__version__)


def _section(chapter: Chapter, name: str, notes: Any) -> dict[str, Any]:
    """One chapter, as the template wants it."""
    from edgegauge.report import scatter, sections, view

    summary = chapter.summary
    judged = bool(limits_of(summary.budget))
    pictures = [
        (caption, _markup(svg))
        for caption, svg in (
            ("Size against quality", scatter.size_and_quality(summary, f"{name}-size")),
            ("Latency against quality", scatter.latency_and_quality(summary, f"{name}-latency")),
        )
        if svg
    ]
    key = scatter.key_of(summary)
    return {
        "name": name,
        "title": summary.title,
        "created": summary.created.replace("T", " ")[:16],
        "host": clean(str(summary.host.get("cpu_model") or ""), 80),
        "explanation": summary.explanation,
        "recommended": summary.recommended,
        "judged": judged,
        "trustworthy": summary.trustworthy,
        "chips": view.chips_of(summary.budget, summary.measured),
        "tiles": view.tiles_of(summary),
        "pictures": pictures,
        "colours": [(clean(model), colour) for model, colour in key.colours.items()],
        "shapes": [(clean(recipe), shape) for recipe, shape in key.shapes.items() if recipe],
        "table": view.table_of(summary.measured, summary.recommended, judged, notes),
        "devices": [_device(p, f"{name}-d{i}", notes) for i, p in enumerate(summary.predicted)],
        "blocks": [_block(b) for b in sections.blocks_of(chapter, notes, name)],
        "failed": sections.failures_of(chapter),
        "warnings": summary.warnings,
        "energy_notes": summary.energy_notes,
        "host_facts": view.host_facts(summary),
        "workload_facts": view.workload_facts(summary),
    }


def _block(block: Any) -> dict[str, Any]:
    """A section of raw data, with its pictures as markup."""
    pictures = [(p, _markup(p.svg)) for p in block.pictures]
    return {"block": block, "pictures": pictures}


def _device(prediction: DevicePrediction, name: str, notes: Any) -> dict[str, Any]:
    """One device, as the template wants it."""
    from edgegauge.report import bars, view

    picture = bars.device_picture(prediction, name)
    return {
        "device": prediction.device,
        "explanation": prediction.explanation,
        "recommended": prediction.recommended,
        "chips": view.chips_of(prediction.budget, prediction.candidates),
        "counted": view.counted(prediction),
        "picture": _markup(picture) if picture else None,
        "drawn": len(bars.device_rows(prediction)),
        "table": view.table_of(prediction.candidates, prediction.recommended, True, notes),
    }


def _markup(svg: str) -> Any:
    """An SVG that `svg.draw` has rebuilt from allowed elements, exempt from escaping."""
    from markupsafe import Markup

    return Markup(svg)
