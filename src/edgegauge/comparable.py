"""Whether two results may be compared: what must agree, and what a reader is told where it differs.

    differences(a, b)       # ["workload.threads: 2 and 4"]: not comparable
    notes(a, b)             # ["kernel: 6.1.0 and 6.6.2"]: comparable, but good to know

The artifact and the runtime may differ: they are what people compare. What a result does not tell,
as one imported from another tool, cannot be checked; the notes say so. The processor must be known.
"""

from __future__ import annotations

from typing import Any

from edgegauge.graph_result import GraphResult
from edgegauge.result import PromptSource, Result

Measured = Result | GraphResult

HOST_CHECKED = ("machine", "cores_usable", "cpu_quota")
HOST_NOTED = ("name", "os", "kernel", "python", "virtual", "container", "memory_limit")
STATE_NOTED = ("governor", "power_source")
WORKLOAD_CHECKED = ("mode", "prompt_tokens", "generated_tokens", "depth", "threads", "parallel")


def differences(a: Result, b: Result) -> list[str]:
    """What keeps the two from being compared, each as `key: value in a and value in b`."""
    found = _of_host(a.host, b.host)
    for key in WORKLOAD_CHECKED:
        ours, theirs = getattr(a.workload, key), getattr(b.workload, key)
        if ours != theirs:
            found.append(_said(f"workload.{key}", ours, theirs))
    return found + _of_text("prompt", a.workload.prompt, b.workload.prompt, "random tokens")


def graph_differences(a: GraphResult, b: GraphResult) -> list[str]:
    """The same for graphs: machine, threads, and what the inputs were."""
    found = _of_host(a.host, b.host)
    if a.workload.threads != b.workload.threads:
        found.append(_said("workload.threads", a.workload.threads, b.workload.threads))
    if a.graph.inputs != b.graph.inputs or a.workload.shapes != b.workload.shapes:
        shown = [f"{r.graph.inputs} {r.workload.shapes or ''}".strip() for r in (a, b)]
        found.append(_said("inputs", *shown))
    return found + _of_text("text", a.workload.text, b.workload.text, "random values")


def _of_host(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    found = []
    cpus = [host.get("cpu_model") for host in (ours, theirs)]
    if None in cpus or cpus[0] != cpus[1]:
        found.append(_said("host.cpu_model", *cpus))
    # Absent means that the processor did all the work.
    if ours.get("accelerator") != theirs.get("accelerator"):
        found.append(_said("host.accelerator", ours.get("accelerator"), theirs.get("accelerator")))
    for key in HOST_CHECKED:
        if key in ours and key in theirs and ours[key] != theirs[key]:
            found.append(_said(f"host.{key}", ours[key], theirs[key]))
    return found


def _of_text(
    key: str, ours: PromptSource | None, theirs: PromptSource | None, otherwise: str
) -> list[str]:
    texts = (ours, theirs)
    if len({text.sha256 if text else None for text in texts}) == 1:
        return []
    return [_said(f"workload.{key}", *(text.name if text else otherwise for text in texts))]


def notes(a: Measured, b: Measured) -> list[str]:
    """What differs besides, what cannot be checked, and what each result warns of."""
    found = [
        _said(name, x, y)
        for name, x, y in (
            ("artifact", _artifact(a), _artifact(b)),
            ("runtime", _runtime(a), _runtime(b)),
            ("edgegauge", a.tool.edgegauge, b.tool.edgegauge),
        )
        if x != y
    ]
    for key in HOST_NOTED:
        if key in a.host and key in b.host and a.host[key] != b.host[key]:
            found.append(_said(key, a.host[key], b.host[key]))
    states = [_state(r) for r in (a, b)]
    found += [
        _said(key, states[0].get(key), states[1].get(key))
        for key in STATE_NOTED
        if all(states) and states[0].get(key) != states[1].get(key)
    ]
    for label, result in (("A", a), ("B", b)):
        unknown = [key for key in HOST_CHECKED if key not in result.host]
        if unknown:
            found.append(f"{label} does not tell, so not checked: {', '.join(unknown)}")
        if not result.trustworthy:
            found.append(f"{label} is not trustworthy: {_first(result.warnings)}")
        elif isinstance(result, Result) and result.imported:
            found += [f"{label}: {warning}" for warning in result.warnings]
    return found


def _first(warnings: list[str]) -> str:
    if not warnings:
        return "it does not say why"
    more = len(warnings) - 1
    return warnings[0] + (f" (and {more} more warning{'s' * (more > 1)})" if more else "")


def decode_depth(result: Result) -> int:
    """Tokens in the context when decoding begins."""
    for test in result.imported:
        if test.test == "decode":
            return test.depth
    return result.workload.depth + result.workload.prompt_tokens


def _said(key: str, ours: Any, theirs: Any) -> str:
    return f"{key}: {_value(ours)} and {_value(theirs)}"


def _value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def _artifact(result: Measured) -> str:
    facts = result.artifact if isinstance(result, Result) else result.graph
    digest = f", SHA-256 {facts.sha256[:12]}" if facts.sha256 else ""
    return f"{facts.name} ({facts.format}, {facts.file_bytes} bytes{digest})"


def _runtime(result: Measured) -> str:
    return f"{result.tool.runtime} {result.tool.runtime_version}"


def _state(result: Measured) -> dict[str, Any]:
    before = result.host.get("before")
    return before if isinstance(before, dict) else {}
