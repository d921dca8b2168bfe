"""Charts to SVG that may stand inside a page: no script, no links, no clashing ids, and titles.

Every colour of the palette becomes a class, so that a style sheet may repaint a picture for a dark
page; without one, the colours of the light page stay.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import vl_convert

INK, MUTED, FAINT, GRID = "#1f2329", "#5f6873", "#98a1ab", "#e6e8eb"
SURFACE, ACCENT, WARN = "#fefefe", "#0f766e", "#b4472f"
PALETTE = ["#2f6fdb", "#d2662a", "#8a56c9", "#3f9142", "#c23b78", "#a07d12", "#2795ab", "#727b86"]
"""Telling colours, each legible on white and on near black."""

ROLES = {
    INK: "ink", MUTED: "muted", FAINT: "faint", GRID: "grid", SURFACE: "surface",
    ACCENT: "accent", WARN: "warn",
}  # fmt: skip
"""What a colour is for; the class is `f-<role>` where it fills and `s-<role>` where it strokes."""

NAMESPACE = "http://www.w3.org/2000/svg"
REFERENCE = re.compile(r"url\(#([^)]+)\)")
ALLOWED = {"svg", "g", "path", "rect", "line", "text", "tspan", "defs", "clipPath", "title", "desc"}


def draw(chart: Any, *, name: str, label: str) -> str:
    """The chart as an `<svg>` element whose ids begin with `name`; `label` is read to the blind.

    Every text in it must have passed `shown.clean`: a NUL ends the process inside vl-convert.
    """
    # Validating takes longer than drawing, and the charts are ours, not a user's.
    spec = chart.to_dict(validate=False)
    version = "_".join(spec["$schema"].rsplit("/v", 1)[1].split(".")[:2])
    text = vl_convert.vegalite_to_svg(spec, vl_version=version)
    return _rewrite(text, name, label)


def _rewrite(text: str, name: str, label: str) -> str:
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(f"{{{NAMESPACE}}}") not in ALLOWED:
                parent.remove(child)
    for element in root.iter():
        _rewrite_element(element, name)
    for attribute in ("width", "height", "class"):
        root.attrib.pop(attribute, None)
    root.attrib.update({"role": "img", "aria-label": label})
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite_element(element: ElementTree.Element, name: str) -> None:
    """Own ids, colour classes, and a title where the chart described a mark."""
    attributes = element.attrib
    described = attributes.pop("aria-label", None)
    for key in [k for k in attributes if k.startswith(("aria-", "role", "{"))]:
        del attributes[key]
    if described and attributes.get("d"):
        title = ElementTree.Element(f"{{{NAMESPACE}}}title")
        title.text = described
        element.insert(0, title)
    attributes.pop("class", None)
    roles = [
        f"{short}-{ROLES[colour]}"
        for short, colour in (("f", attributes.get("fill")), ("s", attributes.get("stroke")))
        if colour in ROLES
    ]
    if roles:
        attributes["class"] = " ".join(roles)
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    for key, value in attributes.items():
        if "url(#" in value:
            attributes[key] = REFERENCE.sub(rf"url(#{name}-\1)", value)
