"""How long the cells of a sweep will take: a rough guess, mended by those that are finished.

    pace = Pace()
    pace.seconds(cell)            # from the sizes of the model and the workload alone
    pace.add(other, result)
    pace.seconds(cell)            # as much slower or faster than guessed as cells of like size were

Good for telling people how long to wait, and for nothing else.
"""

from __future__ import annotations

from bisect import bisect, insort
from statistics import median

from edgegauge.measure.worker import LEAST_TIMED_S
from edgegauge.model import ModelSpec
from edgegauge.result import Result, Run
from edgegauge.sweep_cells import Cell
from edgegauge.work import work_of

START_S = 1.5
"""Interpreter and libraries of one child process."""
BYTES_PER_S, PRODUCTS_PER_S = 5e9, 1e10
"""Guessed: weights read, and multiply-adds of one thread."""
CONVERT_S, CONVERTED_PER_S = 5.0, 2e7
"""Guessed: a conversion with its verification, and its parameters per second."""
NEIGHBOURS = 2
"""On each side: finished cells of like size."""


def guess_s(cell: Cell) -> float:
    """Seconds of a cell on a machine that nobody knows."""
    load = cell.workload
    work = work_of(cell.spec, cell.wanted.recipe, cell.wanted.format)
    products_per_s = PRODUCTS_PER_S * load.threads
    prompt_s = load.parallel * (load.depth + load.prompt_tokens) * sum(work.body.values())
    computed_s = load.parallel * sum(work.weights.values()) / products_per_s
    token_s = max(computed_s, work.weight_bytes / BYTES_PER_S)
    round_s = prompt_s / products_per_s + load.generated_tokens * token_s
    timed_s = max(LEAST_TIMED_S, load.repetitions * round_s)
    return load.runs * (START_S + work.weight_bytes / BYTES_PER_S + round_s + timed_s)


def conversion_s(spec: ModelSpec) -> float:
    """Seconds of a conversion, likewise."""
    return CONVERT_S + spec.parameters / CONVERTED_PER_S


def took_s(result: Result) -> float:
    """Seconds that a measurement took: starts, loads, and rounds with the untimed one."""
    return sum(START_S + (run.load_s or 0.0) + _rounds_s(run) for run in result.samples)


def _rounds_s(run: Run) -> float:
    first, last = run.rounds[0], run.rounds[-1]
    begun_s = [round.start_s or 0.0 for round in (first, last)]
    span_s = begun_s[1] - begun_s[0] + last.ttft_s + sum(last.inter_token_s)
    return span_s * (1 + 1 / len(run.rounds))


class Pace:
    """Estimates that learn."""

    def __init__(self) -> None:
        self._finished: list[tuple[float, float]] = []
        """Guess, and how many times as long it took; by guess."""

    def add(self, cell: Cell, result: Result) -> None:
        """Learn from a finished cell."""
        guess = guess_s(cell)
        insort(self._finished, (guess, took_s(result) / guess))

    def seconds(self, cell: Cell) -> float:
        """The estimate for a cell."""
        guess = guess_s(cell)
        place = bisect(self._finished, (guess,))
        near = self._finished[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
        return guess * median(ratio for _, ratio in near) if near else guess
