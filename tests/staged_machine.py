"""`edgegauge measure` on a recorded machine, whose power follows what the command is doing.

    stage = Stage(idle=2.5, prefill=6.0, decode=5.0)
    act = stage.run(monkeypatch, capsys, "termux-phone", artifact, tmp_path / "r.json", speed=500)
    act.result.energy[0].windows ; act.status ; act.out ; act.err
    act.tree.true_joules(window.start_s, window.end_s)

Everything is real, the child process included, but for the files and the clock of the machine. The
command says which phase it is about to begin (its progress): a second of the machine's clock later,
within the lead before the window, the power is that of the phase. `stage.during` makes files that
change when a phase begins for the first time, so that an event does not depend on timing.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from played_machine import Move, PlayedTree, Power, played, shown
from rich.console import Console
from stand_in_runtime import StandInRuntime

from edgegauge.cli import main, measure_show
from edgegauge.cli import measure as cli_measure
from edgegauge.document import read_json
from edgegauge.energy import Window
from edgegauge.measure import manager
from edgegauge.measure.machine import Clock, Machine
from edgegauge.result import Result

WIDTH = 100
"""Columns of the terminal."""
SETTLE_S = 1.0
QUICK = [
    "--prompt-tokens", "4", "--generated-tokens", "8", "--threads", "1", "--runs", "1",
    "--most-runs", "1", "--repetitions", "1",
]  # fmt: skip
ATTEMPTS = 3
"""On a busy machine a reader comes too late at such a speed, and a result says that rightly: there
was a gap. It is played again, at a third of the speed."""


@dataclass(frozen=True, slots=True)
class Act:
    """What became of one call of the command."""

    result: Result
    status: int
    out: str
    err: str
    tree: PlayedTree

    def true_joules(self, window: Window) -> float:
        """By the power of the stage, between the ends of the window."""
        return self.tree.true_joules(window.start_s, window.end_s)


class PhasePower(Power):
    """Watts by phase, with a ripple over them."""

    def __init__(self, idle_w: float, ripple_w: float) -> None:
        super().__init__([(0.0, idle_w)], ripple_w=ripple_w, ripple_s=7.0)
        self._lock = threading.Lock()

    def turn(self, t_s: float, watts: float) -> None:
        """Another power from then on; that time is still to come."""
        with self._lock:
            self._steps = [*self._steps, (t_s, watts)]

    def watts(self, t_s: float) -> float:
        with self._lock:
            return super().watts(t_s)

    def joules(self, t_s: float) -> float:
        with self._lock:
            return super().joules(t_s)


class Stage:
    """The watts of each phase, and the events."""

    def __init__(self, *, idle: float, prefill: float, decode: float, ripple: float = 0.2) -> None:
        self._watts = {"idle": idle, "prefill": prefill, "decode": decode}
        self._ripple = ripple
        self._begun: dict[str, float] = {}
        self._power = PhasePower(idle, ripple)

    def during(self, phase: str, before: str | Move | None, after: str | Move | None) -> Move:
        """A file that changes `SETTLE_S` after this phase was said to begin; None: it is absent.

        A phase is `prefill`, `idle after`, ... of the energy run, or a note like `run 1 of 1`.
        """

        def text(t_s: float) -> str | None:
            now = after if t_s >= self._begun.get(phase, math.inf) else before
            if not isinstance(now, str):
                return None if now is None else now(t_s)
            return shown(now, self._power)(t_s)

        return text

    def run(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        name: str,
        artifact: Path,
        output: Path,
        *options: str,
        speed: float,
        moves: Mapping[str, str | Move | None] | None = None,
        stand_in: bool = True,
    ) -> Act:
        """Measure; more slowly where the machine of the tests could not keep up."""
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        if stand_in:
            monkeypatch.setattr(manager, "runtime_for", lambda file_format: StandInRuntime())
        console = Console(highlight=False, emoji=False, width=WIDTH)
        monkeypatch.setattr(measure_show, "stdout", lambda: console)
        for attempt in range(ATTEMPTS):
            act = self._once(
                monkeypatch, capsys, Clock(speed=speed / 3**attempt), name, moves or {},
                [str(artifact), *QUICK, "-o", str(output), *options],
            )  # fmt: skip
            if not _late(act.result):
                break
        return act

    def _once(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        clock: Clock,
        name: str,
        moves: Mapping[str, str | Move | None],
        arguments: list[str],
    ) -> Act:
        self._begun.clear()
        self._power = PhasePower(self._watts["idle"], self._ripple)
        tree = played(name, clock, self._power, moves)
        monkeypatch.setattr(cli_measure, "Machine", lambda: Machine(tree, clock))
        monkeypatch.setattr(cli_measure, "progress", self._following(tree))
        with pytest.raises(SystemExit) as caught:
            main(["measure", *arguments])
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int) and "-o" in arguments, err
        path = Path(arguments[arguments.index("-o") + 1])
        return Act(read_json(path, Result), caught.value.code, out, err, tree)

    def _following(self, tree: PlayedTree) -> Callable[..., object]:
        """A progress that turns the power."""

        def advance(done: float, note: str) -> None:
            phase = note.removeprefix("energy: ").partition(" for ")[0]
            at_s = tree.clock.now_s() - tree.born_s + SETTLE_S
            if phase != note:
                self._power.turn(at_s, self._watts[phase.partition(" ")[0]])
            self._begun.setdefault(phase, at_s)

        @contextmanager
        def progress(description: str, total: float | None = None) -> Iterator[object]:
            yield advance

        return progress


def _late(result: Result) -> bool:
    reasons = [w.reason or "" for energy in result.energy for w in energy.windows]
    return any("a gap of" in reason or "was not read for" in reason for reason in reasons)
