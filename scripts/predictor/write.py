"""What the fit found, as src/edgegauge/priors.toml and as the table of the documentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from predictor.evaluate import METHODS, PHASES
from predictor.fit import RUNTIMES, THREAD_SHARPNESS, Problem
from predictor.kernels import REFERENCES, Phase, cost, kernel, types
from predictor.rows import Row

from edgegauge.device import DeviceProfile
from edgegauge.speed import KernelSet

METHOD_TEXT = {"profile": "profile alone", "one row": "with one row"}

KERNELS: tuple[KernelSet, ...] = ("avx512", "avx2", "i8mm", "dotprod", "plain")
CLASSES = (
    "arm-in-order-plain", "arm-in-order", "arm-a72", "arm-a76", "arm-big-little", "apple",
    "x86-avx2", "x86-avx512",
)  # fmt: skip

TODAY = "9999"
"""The date of a build that has all kernels."""

OTHER_MACHINE = 1.6
"""Factor of the 80 % interval by which another runtime's ratio to llama.cpp may differ on a
processor that it was not measured on: what kernel sets make of one weight type in llama.cpp."""


class Constants:
    """Fitted parameters by name."""

    def __init__(self, problem: Problem, x: np.ndarray) -> None:
        self._index, self._x = problem.parameters.index, x

    def __call__(self, *names: str) -> float:
        """The product of these constants; 1 for one that no row involves."""
        return math.exp(sum(self._x[self._index[n]] for n in names if n in self._index))

    def cost(self, kind: str, kernels: KernelSet, phase: Phase) -> float:
        """Of a multiply-add with today's kernel, relative to `REFERENCES`."""
        if kind == "Q4_0" and kernels in REFERENCES:
            return 1.0
        name = f"{phase}/{kernel(kind, kernels, TODAY, phase)}/{kernels}"
        if name in self._index:
            return self(name, f"{phase}/{kind}")
        return cost(kind, kernels, phase) * self(f"{phase}/{kind}")


def document(
    problem: Problem, x: np.ndarray, published: Sequence[Row],
    profiles: dict[str, DeviceProfile], widths: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The content of priors.toml."""
    c = Constants(problem, x)
    return {
        "model": {
            "thread_sharpness": THREAD_SHARPNESS,
            "bandwidth_exponent": c("bandwidth_exponent"), "read_share": c("read_share"),
            "thread": c("thread"),
            **{n: c(n) for n in ("x86_fixed", "x86_mobile", "x86_fixed_clock", "x86_mobile_clock")},
        },
        "class": {n: _class(c, n, problem, published, widths) for n in CLASSES},
        "kernels": {k: _kernels(c, k) for k in KERNELS},
        "runtime": {"llama.cpp": _llama_cpp(), **{r: _runtime(c, problem, r) for r in RUNTIMES}},
        "device": {
            name: _device(c, name, facts, [r for r in published if r.device == name])
            for name, facts in profiles.items()
            if any(r.device == name for r in published)
        },
    }  # fmt: skip


def _class(
    c: Constants, name: str, problem: Problem, rows: Sequence[Row], widths: dict[str, Any]
) -> dict[str, Any]:
    mine = [row for row in rows if row.machine.name == name]
    return {
        "bandwidth_share": c("bandwidth_share", f"bandwidth_share:{name}"),
        "thread_gb_per_s": c("thread", f"thread:{name}"),
        "decode_per_cycle": c("decode", f"core:{name}", f"decode:{name}"),
        "prefill_per_cycle": c("prefill", f"core:{name}", f"prefill:{name}"),
        "layer_cycles": c("layer", f"layer:{name}"),
        "bandwidth_gb_per_s": problem.medians[name],
        **{f"{p}_interval": _interval(widths["profile"][p][name]) for p in PHASES},
        **{f"measured_{p}_interval": _interval(widths["one row"][p][name]) for p in PHASES},
        "evidence": f"{_count(len(mine), 'published measurement')} of "
        f"{_count(len({r.device for r in mine}), 'device')}",
    }


def _kernels(c: Constants, kernels: KernelSet) -> dict[str, Any]:
    """What Q4_0 reaches of a class's rate with these kernels; of each type, the cost against it."""
    found: dict[str, Any] = {}
    for phase in PHASES:
        base = c.cost("Q4_0", kernels, phase)
        attention = c(f"{phase}_attention", f"{phase}_attention:{kernels}")
        found |= {
            phase: {kind: c.cost(kind, kernels, phase) / base for kind in types()},
            f"{phase}_rate": 1 / base, f"{phase}_attention": attention / base,
        }  # fmt: skip
    return found


def _llama_cpp() -> dict[str, Any]:
    return {"layer": 1.0, "decode_attention": 1.0, "prefill_attention": 1.0, "decode": {},
            "prefill": {}, "interval": [1.0, 1.0], "evidence": ""}  # fmt: skip


def _runtime(c: Constants, problem: Problem, runtime: str) -> dict[str, Any]:
    costs = {
        phase: _all_blocks(
            {
                name.split("/", 2)[2]: c(name)
                for name in problem.parameters.index
                if name.startswith(f"{phase}/{runtime}/")
            }
        )
        for phase in PHASES
    }
    return {
        "layer": c(f"layer/{runtime}"),
        **{f"{p}_attention": c(f"{p}_attention/{runtime}") for p in PHASES},
        **costs,
        "interval": _interval(math.log(OTHER_MACHINE)),
        "evidence": "by its ratio to llama.cpp on one x86 machine",
    }


def _all_blocks(costs: dict[str, float]) -> dict[str, float]:
    """Costs of integers in blocks of all lengths: that of the nearest length that was measured."""
    found = dict(sorted(costs.items()))
    for bits in ("INT4", "INT8"):
        known = [int(kind.partition("/")[2]) for kind in costs if kind.startswith(f"{bits}/")]
        for block in (16, 32, 64, 128, 256) if len(known) > 1 else ():
            nearest = min(known, key=lambda k, b=block: abs(math.log(k / b)))
            found[f"{bits}/{block}"] = costs[f"{bits}/{nearest}"]
    return found


def _device(c: Constants, name: str, profile: DeviceProfile, rows: Sequence[Row]) -> dict[str, Any]:
    bandwidth = profile.memory.bandwidth_gb_per_s
    return {
        "name": profile.name, "soc": profile.cpu.soc,
        **({"bandwidth_gb_per_s": bandwidth.value} if bandwidth else {}),
        **_read_rates(profile),
        "bandwidth": c(f"bandwidth@{name}"), "decode": c(f"decode@{name}"),
        "prefill": c(f"prefill@{name}"), "has_prefill": any(r.prefill for r in rows),
        "evidence": _count(len(rows), "published measurement"),
    }  # fmt: skip


def _read_rates(profile: DeviceProfile) -> dict[str, Any]:
    memory = profile.memory
    one, rate = memory.read_1_thread_gb_per_s, memory.read_gb_per_s
    found: dict[str, Any] = {"read_1_thread_gb_per_s": one.value} if one else {}
    if rate is None:
        return found
    by_threads = memory.read_gb_per_s_by_threads or {}
    return found | {"read_gb_per_s": rate.value, "read_gb_per_s_by_threads": by_threads}


def _interval(half: float) -> list[float]:
    return [math.exp(-half), math.exp(half)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def toml(values: dict[str, Any]) -> str:
    """The TOML text of nested tables, numbers to four digits."""
    lines = [
        "# Fitted by scripts/validate_predictor to src/edgegauge/measurements; do not edit.", ""
    ]  # fmt: skip
    for table, content in values.items():
        if any(not isinstance(v, dict) for v in content.values()):
            lines += _table(table, content)
        else:
            for name, inner in content.items():
                lines += _table(f"{table}.{name if '.' not in name else _quoted(name)}", inner)
    return "\n".join(lines).rstrip() + "\n"


def _table(name: str, content: dict[str, Any]) -> list[str]:
    return [f"[{name}]", *(f"{key} = {_value(v)}" for key, v in content.items()), ""]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        inner = ", ".join(f"{_quoted(k)} = {_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return repr(float(f"{value:.4g}"))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def markdown(report: dict[str, Any]) -> str:
    """The error table of the documentation."""
    columns = " | ".join(METHOD_TEXT.values())
    lines = [
        f"| rows | decode: {columns} | bandwidth / size | prefill: {columns} |",
        "|---|---|---|---|---|---|",
    ]
    for line in report["table"]:
        cells = [line["part"]]
        cells += [_cell(line.get(f"decode, {m}")) for m in (*METHODS, "bandwidth / size")]
        cells += [_cell(line.get(f"prefill, {m}")) for m in METHODS]
        lines.append("| " + " | ".join(cells) + " |")
    pairs = [
        f"{v['median']:g} % (median) to {v['p90']:g} % (90th percentile) in {phase} "
        f"({v['rows']} pairs)"
        for phase, v in report["noise_floor"].items()
    ]
    text = "Two sources on the same device, model, recipe and threads differ by "
    lines += ["", f"{text}{' and '.join(pairs)}."]
    held = [
        f"{100 * report['device_coverage'][m][p]:.0f} % ({p}, {METHOD_TEXT[m]})"
        for p in PHASES
        for m in METHODS
    ]
    lines += ["", f"Where each device counts alike, the intervals hold {', '.join(held)}."]
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    text = f"{found['median']:.0f} / {found['p90']:.0f} %"
    if "devices" in found:
        text += f"; {100 * found['coverage']:.0f} % of {found['rows']}, {found['devices']}"
    return text
