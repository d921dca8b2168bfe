"""When is a token rate steady, and what was lost until then? Pure: from rates and their times.

The unit is the round: rounds do the same work, tokens of one round do not (decoding slows as the
context grows), so the slope is that of a line through the rates of whole rounds. A rate is steady
once at least `least_s` have passed and the slope over the last `window_s` (and `LEAST_ROUNDS`
rounds) is less than `slope_percent_per_min` of their mean.

    burst     median rate of the first 30 s, or of what came before the first throttling
    plateau   mean rate of that last window; its interval is the order-statistic one of the median,
              widened to hold the mean
    settled   the first moment from which the running median of five rates stays within 5 % of it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression, median

from edgegauge.figure import Figure
from edgegauge.measure.statistics import centre
from edgegauge.result import Sustained

BURST_S = 30.0
LEAST_ROUNDS = 6
RUNNING = 5
WITHIN = 0.05


@dataclass(frozen=True, slots=True)
class Rate:
    """Decoding in one round."""

    t_s: float
    """When it was half done, from the beginning of the first round."""
    tok_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedOptions:
    """When a rate counts as steady, and when to give up."""

    least_s: float = 600.0
    window_s: float = 120.0
    slope_percent_per_min: float = 1.0
    most_s: float = 3600.0


def last_window(rates: Sequence[Rate], window_s: float) -> list[Rate]:
    """The rounds of the last so many seconds, and at least `LEAST_ROUNDS` where there are."""
    since_s = rates[-1].t_s - window_s if rates else 0.0
    recent = sum(rate.t_s >= since_s for rate in rates)
    return list(rates[-max(recent, LEAST_ROUNDS) :])


def slope_percent_per_min(rates: Sequence[Rate]) -> float | None:
    """Of the least-squares line, in percent of the mean rate; None for too few rounds."""
    if len(rates) < LEAST_ROUNDS:
        return None
    values = [rate.tok_per_s for rate in rates]
    line = linear_regression([rate.t_s / 60 for rate in rates], values)
    return 100 * line.slope / fmean(values)


def is_steady(rates: Sequence[Rate], options: SustainedOptions) -> bool:
    """Whether what was seen so far ends in a plateau."""
    if not rates or rates[-1].t_s < options.least_s:
        return False
    slope = slope_percent_per_min(last_window(rates, options.window_s))
    return slope is not None and abs(slope) < options.slope_percent_per_min


def summary(
    rates: Sequence[Rate],
    options: SustainedOptions,
    source: str,
    *,
    throttled_at_s: float | None = None,
    throttled: bool | None = None,
    peak_temperature_c: float | None = None,
) -> Sustained:
    """The figures of at least one round; without a plateau where the rate was never steady."""
    burst = _burst(rates, throttled_at_s, source)
    plateau, settled_s = None, None
    if is_steady(rates, options):
        plateau = _plateau(last_window(rates, options.window_s), source)
        settled_s = _settled_s(rates, plateau.value)
    return Sustained(
        burst_tok_per_s=burst,
        plateau_tok_per_s=plateau,
        drop_percent=plateau and _drop(burst, plateau, source),
        time_to_plateau_s=settled_s,
        peak_temperature_c=peak_temperature_c,
        throttled=throttled,
    )


def _burst(rates: Sequence[Rate], throttled_at_s: float | None, source: str) -> Figure:
    end_s = BURST_S if throttled_at_s is None else min(BURST_S, throttled_at_s)
    first = [rate.tok_per_s for rate in rates if rate.t_s < end_s] or [rates[0].tok_per_s]
    found = centre(first)
    return Figure(found.value, "tok/s", "measured", source, found.low, found.high)


def _plateau(rates: Sequence[Rate], source: str) -> Figure:
    values = [rate.tok_per_s for rate in rates]
    mean, middle = fmean(values), centre(values)
    low, high = min(mean, middle.low), max(mean, middle.high)
    return Figure(mean, "tok/s", "measured", source, low, high)


def _drop(burst: Figure, plateau: Figure, source: str) -> Figure:
    """Percent of the burst rate that is lost; negative where the rate rose."""
    low = 100 * (1 - plateau.most / burst.least)
    high = 100 * (1 - plateau.least / burst.most)
    return Figure(100 * (1 - plateau.value / burst.value), "%", "measured", source, low, high)


def _settled_s(rates: Sequence[Rate], plateau: float) -> float:
    """When the running median came to stay near the plateau; 0 where it always was."""
    settled_s = rates[-1].t_s
    for end in range(len(rates), 0, -1):
        around = rates[max(0, end - RUNNING) : end]
        if abs(median(rate.tok_per_s for rate in around) / plateau - 1) > WITHIN:
            return settled_s
        settled_s = around[len(around) // 2].t_s
    return 0.0
