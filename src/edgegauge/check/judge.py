"""Judging: everything that a gate asks, the cheapest first, into one report.

    report = judge(Path("gate.toml"))
    report.breaks, report.ordered()

Predictions for every subject on every device, then the quality of the artifacts on disk, then the
comparison with the baseline file, and last what is measured in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgegauge import __version__
from edgegauge.advice import Case, advise
from edgegauge.budget import Budget
from edgegauge.check.baseline import (
    Baseline,
    baseline_path,
    compare,
    exact_of,
    read_baseline,
    write_baseline,
)
from edgegauge.check.gate import BaselineRule, Gate, read_gate
from edgegauge.check.outcome import Cell, Check, Report, budget_checks
from edgegauge.check.predicted import predicted_verdict, room_of
from edgegauge.check.quality import quality_checks
from edgegauge.check.side_by_side import speed_cell, told
from edgegauge.check.subject import Subject
from edgegauge.check.targets import Target, find_targets
from edgegauge.choose import LIMITS
from edgegauge.device import DeviceProfile
from edgegauge.errors import InputError
from edgegauge.evaluate.manager import Progress
from edgegauge.figure import Figure, Kind
from edgegauge.fit import DEFAULT_RECIPES, within_device

MOST_ADVISED = 12
"""Failing cells for which a change is looked for that mends them: each takes many predictions."""


def judge(
    path: Path,
    *,
    update_baseline: bool = False,
    progress: Progress = lambda done, note: None,
) -> Report:
    """Judge what the gate at `path` asks; with `update_baseline` its baseline is written anew
    instead of being compared with.

    Raises InputError for a gate that is wrong or names what is not there, and MissingDependency
    where the runtime that an evaluation or comparison needs is not installed.
    """
    gate = read_gate(path)
    kept = _kept(gate, path, update_baseline)
    found = find_targets(gate, path)
    notes = [f"left out: {sentence}" for sentence in found.left_out]
    judged = [_predicted(target, gate, found.devices) for target in found.targets]
    for each in judged:
        each.evaluate(gate, path.parent, progress)
    if update_baseline and gate.baseline:
        exact = {each.name: exact_of(each.figures, each.memory) for each in judged}
        write_baseline(baseline_path(path, gate.baseline), exact)
    elif kept and gate.baseline:
        notes += dict.fromkeys(_compare(judged, kept, gate.baseline))  # devices often agree
    cells = [cell for each in judged for cell in each.cells()]
    cells += [speed_cell(pair, progress) for pair in found.pairs]
    return Report(
        edgegauge=__version__,
        title=gate.title or path.name,
        gate=str(path),
        cannot_tell=gate.cannot_tell,
        cells=_advised(cells, judged, gate, found.devices),
        notes=notes,
    )


def _kept(gate: Gate, path: Path, update: bool) -> Baseline | None:
    """The baseline to compare with."""
    if gate.baseline is None:
        if update:
            raise InputError(
                f"{path} has no [baseline], so that nothing would be compared with the file",
                hint="add a line [baseline] to the gate",
            )
        return None
    return None if update else read_baseline(baseline_path(path, gate.baseline))


@dataclass(slots=True)
class _Judged:
    """A subject with what is found of it."""

    target: Target
    here: list[Check] = field(default_factory=list)
    """Of the artifact, wherever it runs."""
    there: dict[str, list[Check]] = field(default_factory=dict)
    """By device."""
    figures: dict[str, Figure] = field(default_factory=dict)
    """What a baseline keeps, by its name there."""
    memory: dict[str, Figure] = field(default_factory=dict)
    """By device."""

    @property
    def name(self) -> str:
        return self.target.subject.name

    def evaluate(self, gate: Gate, base: Path, progress: Progress) -> None:
        """Add the quality of an artifact."""
        asked, artifact = self.target.asked.quality or gate.quality, self.target.subject.artifact
        if asked is None or artifact is None:
            return
        told_of = partial(told, progress, self.name)
        checks, figures = quality_checks(artifact, asked, base, told_of)
        self.here += checks
        self.figures |= figures

    def cells(self) -> Iterator[Cell]:
        """One for the artifact and one for each device."""
        if self.here:
            yield Cell(subject=self.name, device=None, checks=self.here)
        for device, checks in self.there.items():
            yield Cell(subject=self.name, device=device, checks=checks)


def _predicted(target: Target, gate: Gate, devices: dict[str, DeviceProfile]) -> _Judged:
    """The subject on each of its devices."""
    judged, subject = _Judged(target), target.subject
    kind: Kind = "measured" if subject.artifact else "predicted"
    judged.figures["tensor_bytes"] = Figure(subject.tensor_bytes, "bytes", kind, "stored tensors")
    if subject.disk_bytes is not None:
        size = Figure(subject.disk_bytes, "bytes", "measured", "size of the files")
        judged.figures["file_bytes"] = size
    for name in target.asked.devices or devices:
        device = devices[name]
        limits = within_device(gate.limits(target.asked, name), device)
        try:
            found = predicted_verdict(
                subject, device, limits, prompt_tokens=gate.prompt_tokens, context=gate.context
            )
        except InputError as error:  # it has no room for the context or the prompt
            judged.there[device.id] = [
                Check(limit="context", outcome="fail", required=None, figure=None, says=str(error))
            ]
            continue
        judged.there[device.id] = budget_checks(found, limits, subject.unpredictable)
        memory = found.candidate.figure("memory_bytes")
        if memory is not None:
            judged.memory[device.id] = memory
    return judged


def _compare(judged: list[_Judged], kept: Baseline, rule: BaselineRule) -> Iterator[str]:
    """Add the comparisons with the baseline; yields what else there is to say of it."""
    if kept.edgegauge != __version__:
        yield (
            f"the baseline is of edgegauge {kept.edgegauge}, and {__version__} may predict "
            "other memory"
        )
    for each in judged:
        was = kept.subjects.get(each.name)
        if was is None:
            yield f"{each.name} is not in the baseline: --update-baseline adds it"
            continue
        before = was.model_dump(exclude_none=True, exclude={"memory_bytes"})
        rows = [
            (name, before[name], now, each.here)
            for name, now in each.figures.items() if name in before
        ] + [
            ("memory_bytes", was.memory_bytes[device], now, each.there[device])
            for device, now in each.memory.items() if device in was.memory_bytes
        ]  # fmt: skip
        for name, value, now, checks in rows:
            check, better = compare(name, value, now, rule)
            checks.append(check)
            if better:
                yield f"{each.name}: {better}; --update-baseline keeps it"
    for name in sorted(kept.subjects.keys() - {each.name for each in judged}):
        yield f"{name} is in the baseline and not in the gate: --update-baseline drops it"


def _advised(
    cells: list[Cell], judged: list[_Judged], gate: Gate, devices: dict[str, DeviceProfile]
) -> list[Cell]:
    """The cells, the first ones that fail with advice."""
    targets = {each.name: each.target for each in judged}
    names = {profile.id: name for name, profile in devices.items()}
    left = MOST_ADVISED
    advised = []
    for cell in cells:
        broken = {c.limit for c in cell.checks if c.outcome == "fail" and c.limit in LIMITS}
        if left and broken and cell.device is not None:
            left -= 1
            name, target = names[cell.device], targets[cell.subject]
            limits = within_device(gate.limits(target.asked, name), devices[name])
            advice = _advice(target.subject, gate, devices[name], limits, broken)
            advised.append(cell.model_copy(update={"advice": advice}))
        else:
            advised.append(cell)
    return advised


def _advice(
    subject: Subject, gate: Gate, device: DeviceProfile, limits: Budget, broken: set[str]
) -> str | None:
    """The single changes after which the subject meets its limits on the device, in words."""
    if subject.spec is None:
        return None
    prompt_tokens, context = room_of(subject, gate.prompt_tokens, gate.context)
    quality = subject.published(limits.quality.metric) if limits.quality else None
    case = Case(
        device=device, spec=subject.spec, recipe=subject.recipe, file_format=subject.file_format,
        context=context, prompt_tokens=prompt_tokens, quality=quality,
    )  # fmt: skip
    if {limit.limit for limit in case.verdict(limits).broken} != broken:
        return None  # the files are larger than their tensors
    changes = [
        advice.change
        for advice in advise(case, limits, DEFAULT_RECIPES[subject.file_format])
        if advice.verdict.passes
    ]
    return f"passes with {' or with '.join(changes)}" if changes else None
