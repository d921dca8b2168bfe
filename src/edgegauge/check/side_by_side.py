"""A paired comparison of speed as a cell of a gate's report."""

from __future__ import annotations

from functools import partial

from edgegauge.check.outcome import Cell, Check
from edgegauge.check.paired import PairedMetric, compare_paired
from edgegauge.check.targets import Pair
from edgegauge.errors import InputError, MeasurementError
from edgegauge.evaluate.manager import Progress
from edgegauge.result import Workload

DOES = {"decode": "decoding", "prefill": "reading prompts"}


def speed_cell(pair: Pair, progress: Progress) -> Cell:
    """Compare the two sides here and now; one that does not run fails."""
    asked = pair.asked
    workload = Workload(
        prompt_tokens=asked.prompt_tokens,
        generated_tokens=asked.generated_tokens,
        threads=asked.threads,
    )
    try:
        found = compare_paired(
            pair.candidate,
            pair.baseline,
            workload,
            slower_at_most=asked.slower_at_most,
            most_pairs=asked.most_pairs,
            baseline_python=pair.python,
            progress=partial(told, progress, pair.name),
        )
    except (InputError, MeasurementError) as error:
        says = f"they could not be compared: {error}"
        checks = [Check(limit="paired", outcome="fail", required=None, figure=None, says=says)]
    else:
        checks = [_check(metric, asked.slower_at_most) for metric in found.metrics]
    return Cell(subject=pair.name, device=None, checks=checks)


def told(progress: Progress, name: str, done: float, note: str) -> None:
    """Tell what is being done of what."""
    progress(done, f"{name}: {note}")


def _check(metric: PairedMetric, slower_at_most: float) -> Check:
    """One rate; the words are about the time of a token, the figure about the rate."""
    ratio = metric.ratio
    low, time, high = (100 * (1 / x - 1) for x in (ratio.most, ratio.value, ratio.least))
    says = (
        f"{DOES[metric.name]} takes {abs(time):.1f} % {'more' if time > 0 else 'less'} time than "
        f"in the baseline ({low:+.1f} to {high:+.1f} %), {100 * slower_at_most:g} % more allowed; "
        f"{metric.minimum_detectable.value:.1f} % more would be noticed"
    )
    return Check(
        limit=f"paired.{metric.name}", outcome=metric.outcome,
        required=1 / (1 + slower_at_most), figure=ratio, says=says,
    )  # fmt: skip
