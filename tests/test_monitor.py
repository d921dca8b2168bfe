"""States during the runs: from files that move, at their period, and cheap."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from played_machine import Move, Power, played, steps

from edgegauge.host.tree import Tree
from edgegauge.measure import host, trust
from edgegauge.measure import monitor as module
from edgegauge.measure.machine import Clock
from edgegauge.measure.monitor import Monitor

FAST = Clock(speed=100)
TEMPERATURE = "sys/class/thermal/thermal_zone0/temp"


class Warming(Tree):
    """A machine that gets one degree hotter with each reading, and costs `took_s` for each."""

    def __init__(self, root: Path, took_s: float = 0.0) -> None:
        super().__init__(root)
        self.readings = 0
        self._took_s = took_s

    def names(self, path: str) -> list[str]:
        return ["thermal_zone0"] if path == "sys/class/thermal" else []

    def text(self, path: str) -> str | None:
        if path != TEMPERATURE:
            return None
        self.readings += 1
        time.sleep(self._took_s)
        return str(1000 * (40 + self.readings))


def test_states_are_read_from_the_start_to_the_end_at_the_period(tmp_path: Path) -> None:
    tree = Warming(tmp_path)
    with Monitor(tree, FAST, period_s=2.0) as monitor:
        while tree.readings < 6:
            time.sleep(0.001)
    times = [state["t_s"] for state in monitor.states]
    assert [s["temperature_c"] for s in monitor.states] == [41.0 + n for n in range(len(times))]
    assert times[0] >= 0 and times == sorted(times)
    # All but the last, which is read at the end, keep the distance.
    assert min(b - a for a, b in pairwise(times[:-1])) >= 1.9
    readings = tree.readings
    time.sleep(0.05)
    assert tree.readings == readings, "nothing is read after the end"


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    with Monitor(Warming(tmp_path), FAST) as monitor:
        pass
    assert all(set(state) == {"t_s", "temperature_c"} for state in monitor.states)


def test_the_shortest_measurement_has_a_state_before_and_after(tmp_path: Path) -> None:
    with Monitor(Warming(tmp_path), Clock()) as monitor:
        pass
    assert len(monitor.states) == 2


def test_a_reading_that_costs_much_is_taken_less_often(tmp_path: Path) -> None:
    with Monitor(Warming(tmp_path, took_s=0.03), Clock()) as slow:
        pass
    assert slow.period_s >= 3.0
    with Monitor(Warming(tmp_path, took_s=0.3), Clock()) as slowest:
        pass
    assert slowest.period_s == module.LONGEST_PERIOD_S
    assert slowest.overhead["reading_s"] >= 0.3


def test_the_end_does_not_wait_for_the_period(tmp_path: Path) -> None:
    with Monitor(Warming(tmp_path), Clock(), period_s=3600) as monitor:
        pass
    assert monitor.overhead["wall_s"] < 60


def test_the_parents_own_time_is_measured(tmp_path: Path) -> None:
    with Monitor(Warming(tmp_path), FAST) as monitor:
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    found = monitor.overhead
    assert found["parent_cpu_s"] >= 0.05
    assert found["share"] == pytest.approx(found["parent_cpu_s"] / found["wall_s"])
    assert 0 < found["reading_s"] < found["wall_s"]


def test_an_error_within_ends_the_thread(tmp_path: Path) -> None:
    monitor = Monitor(Warming(tmp_path), FAST)
    with pytest.raises(KeyboardInterrupt), monitor:
        raise KeyboardInterrupt
    assert monitor.overhead["wall_s"] > 0


class Ticking(Tree):
    """100 ticks pass between two readings: 60 are ours, 10 are other programs', the rest idle."""

    def __init__(self, root: Path, lists_children: bool = True) -> None:
        super().__init__(root)
        self._steps = 0
        self.lists_children = lists_children

    def names(self, path: str) -> list[str]:
        return ["7"] if path == "proc/self/task" else []

    def text(self, path: str) -> str | None:
        if path == "proc/stat":
            self._steps += 1
            return f"cpu {70 * self._steps} 0 0 {30 * self._steps} 0 0 0 0"
        if path == "proc/self/stat":
            return f"7 (python) S 1 1 1 0 -1 0 0 0 0 0 {20 * self._steps} 0 {40 * self._steps} 0"
        return "" if path == "proc/self/task/7/children" and self.lists_children else None


def test_shares_of_the_cpu_time(tmp_path: Path) -> None:
    with Monitor(Ticking(tmp_path), FAST) as monitor:
        pass
    first, last = monitor.states
    assert "own" not in first
    assert (last["own"], last["others"]) == (0.6, 0.1)


def test_no_shares_where_children_would_count_as_other_programs(tmp_path: Path) -> None:
    with Monitor(Ticking(tmp_path, lists_children=False), FAST) as monitor:
        pass
    assert all("others" not in state and "own" not in state for state in monitor.states)


AC, BATTERY = "sys/class/power_supply/ACAD/online", "sys/class/power_supply/BAT0/status"
PI_BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("name", "moves", "text"),
    [
        (
            "laptop-on-mains",
            {
                AC: steps((0, "1"), (20, "0"), (40, "1")),
                BATTERY: steps((0, "Full"), (20, "Discharging"), (40, "Charging")),
            },
            "charger was connected or disconnected",
        ),
        ("raspberry-pi-5", {PI_BITS: steps((0, "0"), (20, "4"), (40, "0"))}, "reported throttling"),
    ],
)
def test_what_came_and_went_between_two_looks_is_found(
    name: str, moves: dict[str, Move], text: str
) -> None:
    tree = played(name, FAST, Power([(0, 9.0)]), moves)
    before = host.state(tree)
    with Monitor(tree, FAST) as monitor:
        time.sleep(FAST.real_s(60))
    after = host.state(tree)
    told: dict[str, Any] = {"cores": 4, "own_cpu_s": 0.0}
    assert not any(f.spoils for f in trust.of_host(before, after, **told))
    (found,) = [f for f in trust.of_host(before, after, during=monitor.states, **told) if f.spoils]
    assert text in found.text
