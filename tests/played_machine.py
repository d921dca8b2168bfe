"""A recorded machine whose files move: what its meters show follows from a known true power.

    clock = HandClock()                                  # or Clock(speed=100)
    power = Power([(0, 5.0), (60, 12.0)])                # 5 W, and 12 W from second 60 on
    tree = played("intel-psys", clock, power)
    machine = Machine(tree, clock)
    tree.true_joules(start_s, end_s)                     # exact, between two times of the clock

A recording is a text file of data/machines/played (see data/machines/README.md); a word in it of
the form `@{counter start=5 range=1000}` is computed anew at each reading, from the time since the
machine was started. `moves` replaces whole files: a function of that time which returns the text,
None (absent) or raises PermissionError; `steps` and `shown` make such functions. `@{refused}` is
a file that this user may not read.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Clock

PLAYED = Path(__file__).parent / "data" / "machines" / "played"
WORD = re.compile(r"@\{(\w+)((?: +\w+=[^\s}]+)*)\}")

Move = Callable[[float], str | None]
"""Contents of a file at a time in seconds since the machine was started."""


@dataclass(frozen=True, slots=True)
class HandClock(Clock):
    """A clock that moves only when someone waits: windows of hours pass at once, exactly."""

    hand: list[float] = field(default_factory=lambda: [1000.0])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now_s(self) -> float:
        return self.hand[0]

    def wait(self, seconds: float) -> None:
        with self.lock:
            self.hand[0] += max(0.0, seconds)


class Power:
    """True watts by time: steps `(from second, W)`, and a sine of `ripple_w` over them."""

    def __init__(
        self, steps: Sequence[tuple[float, float]], ripple_w: float = 0.0, ripple_s: float = 1.0
    ) -> None:
        self._steps = sorted(steps)
        self._ripple_w, self._turn = ripple_w, 2 * math.pi / ripple_s

    def watts(self, t_s: float) -> float:
        before = [w for start, w in self._steps if start <= t_s]
        return (before or [self._steps[0][1]])[-1] + self._ripple_w * math.sin(self._turn * t_s)

    def joules(self, t_s: float) -> float:
        """Exact energy from second 0 to `t_s`."""
        total = self._ripple_w / self._turn * (1 - math.cos(self._turn * t_s))
        ends = [start for start, _ in self._steps[1:]] + [math.inf]
        for n, ((start, watts), end) in enumerate(zip(self._steps, ends, strict=True)):
            total += watts * max(0.0, min(end, t_s) - (start if n else 0.0))
        return total


def counter(
    power: Power,
    t_s: float,
    *,
    start: float = 0,
    unit: float = 1e-6,
    quantum: float = 1,
    range: float | None = None,
    tick: float = 0.0,
    share: float = 1,
    add_w: float = 0,
    volts: float = 1,
    sign: int = 1,
) -> str:
    """A whole number of `unit` joules (of coulombs, given `volts`), in steps of `quantum` units.

    It grows from `start` (falls, given `sign=-1`) by `share` of the power plus `add_w`, is taken at
    each `tick` seconds, and starts anew after `range` units.
    """
    at = math.floor(t_s / tick) * tick if tick else t_s
    units = start + sign * (share * power.joules(at) + add_w * at) / volts / unit
    whole = math.floor(units / quantum) * quantum
    return str(int(whole % range if range else whole))


def gauge(
    power: Power,
    t_s: float,
    *,
    unit: float = 1e-6,
    quantum: float = 0,
    period: float = 0.0,
    average: float = 0.0,
    share: float = 1,
    add_w: float = 0,
    volts: float = 1,
    sign: int = 1,
    digits: int = 0,
    below: float = 0,
) -> str:
    """The power (the current, given `volts`) in `unit`, rounded to `quantum` units and `digits`.

    It is taken each `period` seconds: at that moment, or the mean of `average` seconds before it.
    A magnitude under `below` is shown times 1000, as Termux:API does under 1000.
    """
    at = math.floor(t_s / period) * period if period else t_s
    watts = power.watts(at)
    if average:
        watts = (power.joules(at) - power.joules(at - average)) / average
    value = sign * (share * watts + add_w) / volts / unit
    value = round(value / quantum) * quantum if quantum else value
    value *= 1000 if abs(value) < below else 1
    return f"{value:.{int(digits)}f}"


def elapsed(power: Power, t_s: float, *, start: float = 0, per_s: float = 1) -> str:
    """A whole number that grows by `per_s` each second: ticks of a CPU, an uptime."""
    return str(int(start + per_s * t_s))


def refused(power: Power, t_s: float) -> str:
    """A file that this user may not read."""
    raise PermissionError


WORDS: dict[str, Callable[..., str]] = {
    "counter": counter,
    "gauge": gauge,
    "elapsed": elapsed,
    "refused": refused,
}


def shown(template: str, power: Power) -> Move:
    """Text whose `@{...}` words are computed."""
    parts = [
        (m[1], {k: float(v) for k, v in (w.split("=") for w in m[2].split())})
        for m in WORD.finditer(template)
    ]
    texts = re.split(r"@\{[^}]*\}", template)

    def text(t_s: float) -> str:
        words = [WORDS[name](power, t_s, **values) for name, values in parts]
        return "".join(a + b for a, b in zip(texts, [*words, ""], strict=True))

    return text


def steps(*changes: tuple[float, str | Move | None]) -> Move:
    """A file by time: `(0, "Discharging"), (60, "Charging")`; None: it vanishes; or another move.

    The first entry holds from the start.
    """

    def text(t_s: float) -> str | None:
        now = [what for start, what in changes if start <= t_s][-1]
        return now(t_s) if callable(now) else now

    return text


class PlayedTree(Tree):
    """A tree whose files are functions of the time since it was made; safe for many threads."""

    def __init__(self, files: Mapping[str, str | Move], clock: Clock, power: Power) -> None:
        super().__init__(Path("/nowhere"))
        self.clock, self.power, self.born_s = clock, power, clock.now_s()
        self._files = {
            path.lstrip("/"): shown(what, power) if isinstance(what, str) else what
            for path, what in files.items()
        }

    def true_joules(self, start_s: float, end_s: float) -> float:
        """Exact energy between two times of the clock."""
        return self.power.joules(end_s - self.born_s) - self.power.joules(start_s - self.born_s)

    def _now(self, path: str) -> str | None:
        """Raw contents; None where absent. Raises PermissionError."""
        move = self._files.get(path)
        return None if move is None else move(self.clock.now_s() - self.born_s)

    def text(self, path: str) -> str | None:
        try:
            raw = self._now(path)
        except PermissionError:
            return None
        return None if raw is None else raw.strip("\0 \n\t\r")

    def refused(self, path: str) -> bool:
        try:
            self._now(path)
        except PermissionError:
            return True
        return False

    def names(self, path: str) -> list[str]:
        if self.refused(path):
            return []
        below = path.rstrip("/") + "/"
        there = [p for p in self._files if p.startswith(below) and self.exists(p)]
        return sorted({p.removeprefix(below).partition("/")[0] for p in there})

    def exists(self, path: str) -> bool:
        try:
            return self._now(path) is not None or bool(self.names(path))
        except PermissionError:
            return True


def files_of(name: str) -> dict[str, str]:
    """The files of a recording of data/machines/played, by path without the leading slash."""
    text = (PLAYED / f"{name}.txt").read_text()
    parts = re.split(r"^==> /(.+) <==\n", text, flags=re.M)
    return {
        path: content.rstrip("\n").replace("\\0", "\0")
        for path, content in zip(parts[1::2], parts[2::2], strict=True)
    }


def played(
    name: str,
    clock: Clock,
    power: Power,
    moves: Mapping[str, str | Move | None] | None = None,
) -> PlayedTree:
    """A recorded machine under that power; `moves` replaces files, adds them, or (None) removes."""
    files: dict[str, str | Move | None] = {**files_of(name), **(moves or {})}
    return PlayedTree({p: what for p, what in files.items() if what is not None}, clock, power)
