"""One artifact against another of the same vocabulary: the cost of quantisation between them.

    found = compare_with(small, original, text=Path("notes.txt"))

The rule: the text is cut into windows of WINDOW tokens, each after the model's beginning token
where it has one, and both artifacts give their distributions after every token of it, in their own
runtimes. The divergence is KL(other || artifact): the nats lost by believing the artifact where the
other is right. After each window both continue greedily; the tokens that the continuations have in
common from their start are counted. Without a text, the built-in one is used.

Intervals of means take windows as independent samples of text like this one (delta method).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.document import Document, parse
from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate import builtin_text
from edgegauge.evaluate.agreement import Comparison, common_prefix
from edgegauge.evaluate.intervals import ratio_half_width
from edgegauge.evaluate.task import read_text
from edgegauge.figure import Figure
from edgegauge.measure import child
from edgegauge.measure.facts import artifact_facts, digest_of
from edgegauge.measure.host import default_threads
from edgegauge.measure.runtimes import Session, runtime_for
from edgegauge.result import ArtifactFacts, Tool
from edgegauge.verification import Agreement

MODULE = "edgegauge.evaluate.against"
WINDOW = 128
GREEDY = 32
"""Tokens that both continue a window with."""
MOST_WINDOWS = 64
"""Of a long text, the first so many windows, unless a limit says otherwise."""
ROWS = 16

Progress = Callable[[float, str], None]


class ComparedWindow(Document):
    """One window: how many positions, and what is summed over them."""

    positions: int = Field(gt=0)
    kl: float
    """Nats."""
    same: int = Field(ge=0)
    greedy_prefix: int = Field(ge=0)


class AgainstResult(Document):
    """An artifact against another one."""

    format: Literal[1] = 1
    tool: Tool
    other_runtime: str
    artifact: ArtifactFacts
    other: ArtifactFacts
    text: str
    agreement: Agreement
    greedy_prefix: Figure
    """Mean tokens in common, of GREEDY."""
    windows: list[ComparedWindow]
    seconds: float = Field(ge=0)
    created: str


def compare_with(
    artifact: Artifact,
    other: Artifact,
    *,
    text: Path | None = None,
    limit: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda done, note: None,
) -> AgainstResult:
    """How far the artifact is from the other, on `text` or the built-in one.

    `limit` keeps the first windows. Raises InputError where the two have not one vocabulary.
    """
    started = time.monotonic()
    given = read_text(text) if text else None
    runtimes = [runtime_for(a.file_format) for a in (artifact, other)]
    versions = [runtime.version() for runtime in runtimes]
    job = {
        "paths": [str(artifact.path.absolute()), str(other.path.absolute())],
        "formats": [artifact.file_format, other.file_format],
        "text": given.content if given else builtin_text.PASSAGE,
        "windows": limit or MOST_WINDOWS,
        "threads": threads or default_threads(),
    }
    digests = [digest_of(a) for a in (artifact, other)]
    answer = _in_child(job, progress)
    facts = [
        artifact_facts(a, digest, found)
        for a, digest, found in zip((artifact, other), digests, answer["facts"], strict=True)
    ]
    windows = [parse(w, ComparedWindow, "the child") for w in answer["windows"]]
    name = given.name if given else builtin_text.NAME
    source = f"{sum(w.positions for w in windows)} positions of {name}"
    agreement = parse(answer["agreement"], Agreement, "the child")
    return AgainstResult(
        tool=Tool(edgegauge=__version__, runtime=runtimes[0].name, runtime_version=versions[0]),
        other_runtime=f"{runtimes[1].name} {versions[1]}",
        artifact=facts[0],
        other=facts[1],
        text=name,
        agreement=_with_intervals(agreement, windows, source),
        greedy_prefix=_mean(
            [w.greedy_prefix for w in windows], [1] * len(windows), source, (0, GREEDY)
        ),
        windows=windows,
        seconds=time.monotonic() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _with_intervals(found: Agreement, windows: list[ComparedWindow], source: str) -> Agreement:
    """The means with intervals over windows, in place of those over positions."""
    counts = [w.positions for w in windows]
    kl = _mean([w.kl for w in windows], counts, source, (0, None))
    same = _mean([w.same for w in windows], counts, source, (0, 1))
    change = {"kl_mean": Figure(kl.value, "nat", "measured", source, kl.low, kl.high)}
    return found.model_copy(update=change | {"same_choice": same})


def _mean(
    sums: Sequence[float], counts: Sequence[int], source: str, ends: tuple[float, float | None]
) -> Figure:
    """sum(sums) / sum(counts) with its interval, which stays within `ends`."""
    value = sum(sums) / sum(counts)
    half = ratio_half_width(sums, counts)
    if half is None:
        return Figure(value, "1", "measured", source)
    high = value + half if ends[1] is None else min(ends[1], value + half)
    return Figure(value, "1", "measured", source, max(ends[0], value - half), high)


def _in_child(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    with child.start(MODULE, job) as messages:
        for message in messages:
            if "progress" not in message:
                return message
            progress(*message["progress"])
    raise MeasurementError("the runtime's process ended without a result")


def work(job: dict[str, Any], send: child.Send) -> None:
    """In the child: both artifacts side by side, window after window."""
    with ExitStack() as stack:
        opened: list[list[Session]] = [[], []]
        for path, file_format, sessions in zip(job["paths"], job["formats"], opened, strict=True):
            # Scoring may need another graph than generating.
            for scores in (True, False):
                session = runtime_for(file_format).open(
                    Path(path), threads=job["threads"], context=WINDOW + GREEDY, all_logits=scores
                )
                sessions.append(stack.enter_context(closing(session)))
        windows = list(islice(_windows([s[0] for s in opened], job["text"]), job["windows"]))
        if not windows:
            raise InputError("the text is too short: it has no token")
        total = Comparison()
        compared = []
        for number, window in enumerate(windows, 1):
            compared.append(_compare(opened, window, total))
            send({"progress": [number / len(windows), f"{number} of {len(windows)} windows"]})
        facts = [sessions[0].facts() for sessions in opened]
    agreement = total.agreement(f"{len(total.kl)} positions")
    send({"facts": facts, "windows": compared, "agreement": agreement.model_dump(mode="json")})


def _windows(sessions: Sequence[Session], text: str) -> Iterator[list[int]]:
    """The text in windows of tokens; InputError where the artifacts do not read it alike."""
    artifact, other = sessions
    begin = artifact.tokenize("")[:1]
    tokens = artifact.tokenize(text, special=False)
    if artifact.vocab != other.vocab or tokens != other.tokenize(text, special=False):
        raise InputError(
            "the artifacts have not one vocabulary, so their distributions do not compare",
            hint="compare their bits per byte on a text: evaluate ARTIFACT --text FILE",
        )
    size = WINDOW - len(begin)
    for start in range(0, len(tokens), size):
        yield begin + tokens[start : start + size]


def _compare(
    opened: Sequence[Sequence[Session]], window: list[int], total: Comparison
) -> dict[str, Any]:
    """One window, added to the total; the fields of `ComparedWindow`."""
    import numpy as np

    (artifact, generates), (other, other_generates) = opened
    before = len(total.kl)
    rows = zip(other.logits(window), artifact.logits(window), strict=True)
    while piece := list(islice(rows, ROWS)):
        total.add(*(np.stack(side) for side in zip(*piece, strict=True)))
    said, expected = (
        session.generate([window], GREEDY, frozenset())[0]
        for session in (generates, other_generates)
    )
    return {
        "positions": len(total.kl) - before,
        "kl": sum(total.kl[before:]),
        "same": sum(total.same[before:]),
        "greedy_prefix": common_prefix(said, expected),
    }


if __name__ == "__main__":
    sys.exit(child.serve(work))
