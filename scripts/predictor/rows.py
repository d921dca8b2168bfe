"""The published measurements as the fit uses them: with machine and work worked out."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from predictor.files import spec_of, work_of_file
from predictor.kernels import Phase, kernel

from edgegauge.device import DeviceProfile
from edgegauge.speed import PARTS, KernelSet, Machine, machine_of
from edgegauge.work import Work, work_of

FOLDER = Path(__file__).resolve().parents[2] / "src" / "edgegauge" / "measurements"

CUT_SINCE = "2025-11"
"""When llama.cpp began to cut matrices into more parts than threads (pull request 16833)."""

OWN_MACHINE, OWN_DATE = "own-x86-vm", "2026-11"

PHASES: tuple[Phase, ...] = ("decode", "prefill")


@dataclass(frozen=True)
class Row:
    """One published measurement of a file on a device."""

    device: str
    machine: Machine
    engine: str
    work: Work
    model: str
    recipe: str
    kernels: dict[Phase, dict[str, str]]
    """Weight type -> the kernel that multiplied it (`kernels.kernel`)."""
    tokens: int
    """Of the prompt."""
    prefill: float | None
    """Tokens per second."""
    depth: int
    decode: float | None
    source: str
    parts: int = PARTS
    """Into which each thread's share of a matrix was cut."""
    limited: bool = False
    """Whether the build uses less than the processor has."""
    later: bool = False
    """Whether it was found after the first collection."""

    @property
    def replaced(self) -> bool:
        """Whether most of the weights ran through other kernels than a user of today has."""
        most = max(self.work.body, key=lambda kind: self.work.body[kind])
        speeds: dict[Phase, float | None] = {"decode": self.decode, "prefill": self.prefill}
        used = [self.kernels[phase][most] for phase, speed in speeds.items() if speed]
        return self.limited or any(name.endswith("~") for name in used)


def profiles() -> dict[str, DeviceProfile]:
    """The measured devices: only what a profile states, nothing that a model's speed tells."""
    with (FOLDER / "devices.csv").open(newline="") as stream:
        return {entry["device"]: _profile(entry) for entry in csv.DictReader(stream)}


def _profile(entry: dict[str, str]) -> DeviceProfile:
    source = entry["source"]
    memory: dict[str, object] = {
        "ram_gb": {"value": 8.0, "source": source}, "app_gb": {"value": 8.0, "source": source},
    }  # fmt: skip
    if entry["bandwidth_gb_per_s"]:
        memory["bandwidth_gb_per_s"] = {
            "value": float(entry["bandwidth_gb_per_s"]), "source": source,
        }  # fmt: skip
    if entry["read_gb_per_s"]:
        rate, *others = entry["read_gb_per_s"].split()
        memory["read_gb_per_s"] = {"value": float(rate), "source": source}
        memory["read_gb_per_s_by_threads"] = {
            threads: float(value) for threads, value in (o.split(":") for o in others)
        }
    if entry["read_1_thread_gb_per_s"]:
        one = {"value": float(entry["read_1_thread_gb_per_s"]), "source": source}
        memory["read_1_thread_gb_per_s"] = one
    cpu = {
        "soc": entry["soc"], "core_class": entry["core_class"], "source": source,
        "features": entry["features"].split(),
        "clusters": [_cluster(text) for text in entry["clusters"].split()],
        "small_cluster": entry["small_cluster"] == "yes",
    }  # fmt: skip
    if entry["l3_cache_mb"]:
        cpu["l3_cache_mb"] = float(entry["l3_cache_mb"])
    return DeviceProfile.model_validate(
        {"id": entry["device"], "name": entry["name"], "kind": entry["kind"], "os": "linux",
         "cpu": cpu, "memory": memory}
    )  # fmt: skip


def _cluster(text: str) -> dict[str, object]:
    count, _, rest = text.partition("x")
    ghz, _, core = rest.partition(":")
    return {"core": core or "core", "count": int(count), "ghz": float(ghz)}


def read_rows() -> list[Row]:
    """Every measurement of the package's file."""
    known = profiles()
    with (FOLDER / "rows.csv").open(newline="") as stream:
        return [_row(entry, known[entry["device"]]) for entry in csv.DictReader(stream)]


def _row(entry: dict[str, str], profile: DeviceProfile) -> Row:
    machine = machine_of(profile, int(entry["threads"] or profile.cpu.fast_cores))
    if entry["kernels"]:  # The build was for less than the processor has.
        machine = replace(machine, kernels=cast(KernelSet, entry["kernels"]))
    work = work_of_file(entry["model"], entry["recipe"])
    number = {k: float(entry[k]) if entry[k] else None for k in entry if k.endswith("_per_s")}
    return Row(
        entry["device"], machine, entry["engine"], work, entry["model"], entry["recipe"],
        kernels_of(work, machine, entry["date"]),
        int(entry["prompt_tokens"] or 0), number["prefill_tok_per_s"],
        int(entry["depth"] or 0), number["decode_tok_per_s"], entry["source"],
        PARTS if entry["date"] >= CUT_SINCE else 1,
        limited=bool(entry["kernels"]), later=bool(entry["later"]),
    )  # fmt: skip


def own_rows() -> list[Row]:
    """What we measured on the one machine at hand: the same models on all runtimes."""
    profile = profiles()[OWN_MACHINE]
    with (FOLDER / "own.csv").open(newline="") as stream:
        return [_own_row(entry, profile) for entry in csv.DictReader(stream)]


def _own_row(entry: dict[str, str], profile: DeviceProfile) -> Row:
    work = work_of(spec_of(entry["model"]), entry["recipe"], entry["format"])
    machine = machine_of(profile, int(entry["threads"]))
    return Row(
        profile.id, machine, entry["runtime"], work,
        entry["model"], entry["recipe"], kernels_of(work, machine, OWN_DATE),
        int(entry["prompt_tokens"]), float(entry["prefill_tok_per_s"]), int(entry["depth"]),
        float(entry["decode_tok_per_s"]), "edgegauge measure",
    )  # fmt: skip


def kernels_of(work: Work, machine: Machine, date: str) -> dict[Phase, dict[str, str]]:
    """What multiplied each weight type on a machine at that time."""
    return {
        phase: {kind: kernel(kind, machine.kernels, date, phase) for kind in work.weights}
        for phase in PHASES
    }


def left_out() -> Counter[str]:
    """Reason -> published rows that are not in the file."""
    with (FOLDER / "left_out.csv").open(newline="") as stream:
        return Counter({e["reason"]: int(e["rows"]) for e in csv.DictReader(stream)})
