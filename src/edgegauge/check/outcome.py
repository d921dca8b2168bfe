"""Outcomes of a gate: each limit of each subject, and the report that holds them all.

A check passes, fails, or nobody can tell: the limit lies inside the interval of a prediction or a
measurement. Memory, size and quality are hard, so that their value alone decides. A figure that is
missing meets no limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from edgegauge.budget import Budget
from edgegauge.choose import LIMITS, Verdict, required_by
from edgegauge.document import Document
from edgegauge.figure import Figure
from edgegauge.units import format_quantity

Outcome = Literal["pass", "fail", "cannot tell"]

OUTCOMES: tuple[Outcome, ...] = ("fail", "cannot tell", "pass")
"""The worst first, as they are shown."""

HARD = ("memory", "file_size", "quality")
"""Limits of a budget that a value meets or breaks, whatever its interval."""


class Check(Document):
    """One limit."""

    limit: str
    """A key of the budget, or what else was checked: `context`, `exact_match`, `bits_per_byte`,
    `baseline.NAME`, `paired.NAME`; `quality` or `paired` where something did not run."""
    outcome: Outcome
    required: float | None
    """In the figure's unit; None where the check is no comparison of two numbers."""
    figure: Figure | None
    says: str
    """What was seen and what is allowed or required, in words."""


class Cell(Document):
    """A subject, on a device or wherever it is (device None), with its checks."""

    subject: str
    device: str | None
    checks: list[Check]
    advice: str | None = None
    """What would make it pass, where that was looked for and is a single change."""

    @property
    def name(self) -> str:
        """The subject, and where it is judged."""
        return f"{self.subject} on {self.device}" if self.device else self.subject

    @property
    def outcome(self) -> Outcome:
        """That of the worst check."""
        return worst(check.outcome for check in self.checks)

    @property
    def explanation(self) -> str:
        """Why it fails or is uncertain: the checks of that outcome. What is unknown is a reason
        only where nothing known is, as in `choose.explain`. A comparison says what it would have
        noticed also where it passes."""
        reasons = [check for check in self.checks if check.outcome == self.outcome]
        if self.outcome == "pass":
            compared = (check.says for check in reasons if check.limit.startswith("paired."))
            return "; ".join(compared) or "meets every limit"
        known = [check for check in reasons if check.figure is not None]
        return "; ".join(check.says for check in known or reasons)


class Report(Document):
    """What a gate found; cells in the order of the gate."""

    format: Literal[1] = 1
    edgegauge: str
    title: str
    gate: str
    """The gate file, as it was named."""
    cannot_tell: Literal["passes", "breaks"]
    cells: list[Cell]
    notes: list[str]
    """What is better than the baseline, or not in it."""

    @property
    def breaks(self) -> bool:
        """Whether the gate is broken."""
        outcome = worst(cell.outcome for cell in self.cells)
        return outcome == "fail" or (outcome == "cannot tell" and self.cannot_tell == "breaks")

    @property
    def next_steps(self) -> list[str]:
        """What to do about what fails, and about what nobody can tell."""
        checks = [(cell, check) for cell in self.cells for check in cell.checks]
        failing = [(cell, check.limit) for cell, check in checks if check.outcome == "fail"]
        steps = []
        if any(limit in LIMITS and not cell.advice for cell, limit in failing):
            steps.append("edgegauge fit --device DEVICE MODEL --advice: what each change would do")
        if any(limit.startswith("baseline.") for _, limit in failing):
            steps.append(
                f"edgegauge check {self.gate} --update-baseline: keep the new figures, if they are "
                "wanted"
            )
        if any(check.outcome == "cannot tell" and cell.device for cell, check in checks):
            steps.append(
                "edgegauge devices calibrate, on a device that nobody can tell of: narrower "
                "intervals in its profile"
            )
        return steps

    def to_json(self) -> dict[str, Any]:
        """The document of `edgegauge check --json`: outcomes and the verdict beside the checks."""
        document = self.model_dump(mode="json") | {"breaks": self.breaks, "summary": self.summary}
        for written, cell in zip(document["cells"], self.cells, strict=True):
            written["outcome"] = cell.outcome
        return document

    def ordered(self) -> list[Cell]:
        """The cells, those that fail first."""
        return sorted(self.cells, key=lambda cell: OUTCOMES.index(cell.outcome))

    @property
    def summary(self) -> str:
        """`2 of 12 fail, nobody can tell of 1: the gate is broken`."""
        found = [cell.outcome for cell in self.cells]
        fails, unknown = found.count("fail"), found.count("cannot tell")
        told = (
            f"{fails} of {len(found)} fail"
            if fails
            else f"{len(found) - unknown} of {len(found)} pass"
        )
        doubt = f", nobody can tell of {unknown}" if unknown else ""
        return f"{told}{doubt}: the gate {'is broken' if self.breaks else 'holds'}"


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of several outcomes; of none, a pass."""
    return min(outcomes, key=OUTCOMES.index, default="pass")


def budget_checks(judged: Verdict, limits: Budget, unpredictable: str | None) -> list[Check]:
    """A check for each limit; `unpredictable` says why figures are missing, if one reason does."""
    broken = {limit.limit for limit in judged.broken}
    checks = []
    for limit, required in required_by(limits):
        figure = judged.candidate.figure(limit.figure)
        says = limit.describe(required, figure, judged.metric)
        outcome: Outcome = "fail" if limit.name in broken else "pass"
        if figure is None and unpredictable and limit.name != "quality":
            says += f": {unpredictable}"
        elif figure is not None and limit.name in judged.uncertain and limit.name not in HARD:
            outcome = "cannot tell"
            low, high = (format_quantity(v, figure.unit) for v in (figure.least, figure.most))
            says += f", but may be anything from {low} to {high}"
        checks.append(Check(
            limit=limit.name, outcome=outcome, required=required, figure=figure, says=says,
        ))  # fmt: skip
    return checks
