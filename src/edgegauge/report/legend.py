"""A name and a colour for everything that the pictures of a chapter are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle

from edgegauge.report.chapter import Chapter, Subject, subject_of
from edgegauge.report.shown import clean
from edgegauge.report.svg import PALETTE


@dataclass(frozen=True, slots=True)
class Legend:
    """A name and a colour for each subject of a chapter, the same in all of its pictures."""

    names: dict[Subject, str] = field(default_factory=dict)
    colours: dict[Subject, str] = field(default_factory=dict)

    def used(self, subjects: Iterable[Subject]) -> list[tuple[str, str]]:
        """Name and colour of each of these, once."""
        return [(self.names[s], self.colours[s]) for s in dict.fromkeys(subjects)]


def legend_of(chapter: Chapter) -> Legend:
    """Names say of runtime, threads and prompt what differs within the chapter."""
    results = [*chapter.shown, *chapter.results]
    subjects = {subject_of(r): r for r in results}
    several = {
        name: len({getattr(s, name) for s in subjects}) > 1
        for name in ("runtime", "threads", "prompt")
    }
    names = {}
    for subject, result in subjects.items():
        facts, prompt = result.artifact, result.workload.prompt
        parts = [clean(f"{facts.model} {facts.recipe or ''}".strip())]
        parts += [clean(subject.runtime, 24)] if several["runtime"] else []
        counted = f"{subject.threads} thread{'s' * (subject.threads != 1)}"
        parts += [counted] if several["threads"] else []
        parts += [clean(prompt.name, 24) if prompt else "random"] if several["prompt"] else []
        names[subject] = ", ".join(parts)
    return Legend(names, dict(zip(subjects, cycle(PALETTE), strict=False)))
