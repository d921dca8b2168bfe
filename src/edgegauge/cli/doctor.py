"""`edgegauge doctor`: what is installed, readable and trustworthy here, and what mends each gap."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click
import psutil

from edgegauge.cli.output import emit_json, json_option, stdout, table

State = Literal["ok", "absent", "unsure"]
MARKS = {"ok": "[green]ok[/]", "absent": "[red]absent[/]", "unsure": "[yellow]unsure[/]"}

EXTRAS = {
    "gguf": (
        "convert, measure and evaluate GGUF files",
        ("numpy", "gguf", "llama_cpp"),
    ),
    "report": ("the HTML report", ("altair", "jinja2", "vl_convert")),
    "hub": ("models by hf:owner/name", ("huggingface_hub",)),
}
"""Extra: what it is for, and the modules it brings."""

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `mend` is the command that closes the gap, if there is one."""

    name: str
    state: State
    found: str
    mend: str | None = None


def checks() -> Iterator[Check]:
    """Every check, in the order a user needs them."""
    for extra, (purpose, modules) in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        found = f"missing: {', '.join(missing)}" if missing else purpose
        mend = f'pip install "edgegauge[{extra}]"' if missing else None
        yield Check(f"extra {extra}", "absent" if missing else "ok", found, mend)
    yield _llama_cpp()
    yield _memory_phases()
    yield _governor()
    yield _swap()
    yield _load()


def _llama_cpp() -> Check:
    try:
        return Check("runtime llama.cpp", "ok", f"llama-cpp-python {version('llama-cpp-python')}")
    except PackageNotFoundError:
        mend = 'pip install "edgegauge[gguf]"'
        return Check("runtime llama.cpp", "absent", "llama-cpp-python is not installed", mend)


def _memory_phases() -> Check:
    if os.access("/proc/self/clear_refs", os.W_OK) and os.access(
        "/proc/self/smaps_rollup", os.R_OK
    ):
        return Check("peak memory by phase", "ok", "VmHWM can be reset, smaps_rollup is readable")
    found = "no resettable VmHWM here: peaks are of the whole process"
    return Check("peak memory by phase", "unsure", found)


def _governor() -> Check:
    try:
        governor = GOVERNOR.read_text().strip()
    except OSError:
        return Check("cpu governor", "unsure", "not visible (virtual machine or not Linux)")
    if governor == "performance":
        return Check("cpu governor", "ok", governor)
    mend = "sudo cpupower frequency-set -g performance"
    return Check(
        "cpu governor", "unsure", f"{governor}: short runs may be timed at low clocks", mend
    )


def _swap() -> Check:
    used = psutil.swap_memory().used
    if used < 64 * 1024**2:
        return Check("swap", "ok", "not in use")
    mend = "close other programs, then: sudo swapoff -a && sudo swapon -a"
    return Check("swap", "unsure", f"{used >> 20} MiB in use: a run may page", mend)


def _load() -> Check:
    load = os.getloadavg()[0]
    if load < 0.5:
        return Check("other load", "ok", f"load average {load:.2f}")
    return Check("other load", "unsure", f"load average {load:.2f}: timings will be noisy")


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what is installed, readable and trustworthy here, and what mends each gap."""
    found = list(checks())
    if as_json:
        emit_json({"format": 1, "checks": [asdict(c) for c in found]})
        return
    rows = table("check", "state", "found", "to mend it")
    for check in found:
        rows.add_row(check.name, MARKS[check.state], check.found, check.mend or "")
    stdout().print(rows)
