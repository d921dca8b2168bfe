"""What spoils a measurement, and what is only worth saying."""

from __future__ import annotations

from typing import Any

import pytest

from edgegauge.measure import trust
from edgegauge.measure.statistics import centre
from edgegauge.result import Phase, Round, Run

QUIET: dict[str, Any] = {
    "governor": "performance",
    "throttle_count": 5,
    "pi_throttled": 0x50000,
    "swapped_in_pages": 100,
    "load_1min": 0.1,
    "cpu_ticks": {"busy": 1000, "steal": 0, "all": 5000},
    "power_source": "mains",
}
LATER = QUIET | {"cpu_ticks": {"busy": 1220, "steal": 0, "all": 6000}}
"""1000 ticks later, 220 of them busy; the children took 2 s = 200 ticks of 10 ms."""


def of_host(before: dict[str, Any], after: dict[str, Any]) -> list[trust.Finding]:
    return list(trust.of_host(before, after, cores=4, own_cpu_s=2.0))


def a_run(swap: int | None = 0, faults: int | None = 0, rounds: int = 6) -> Run:
    phase = Phase(
        rss_bytes=1, anonymous_bytes=1, file_bytes=0, swap_bytes=swap, peak_rss_bytes=None
    )
    timed = Round(prefill_s=0.1, ttft_s=0.1, inter_token_s=[0.01, 0.01])
    return Run(load_s=0.1, rounds=[timed] * rounds, phases={"load": phase}, major_faults=faults)


def test_a_quiet_machine_gives_no_finding() -> None:
    assert of_host(QUIET, LATER) == []
    assert list(trust.of_runs([a_run()], {"decode": centre([10.0] * 6)})) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"throttle_count": 7}, "throttled for heat 2 times"),
        ({"pi_throttled": 0x50004}, "throttled now (get_throttled 0x50004)"),
        ({"pi_throttled": 0xD0000}, "throttled meanwhile"),
        ({"swapped_in_pages": 5000}, "swapped in 4900 pages"),
    ],
)
def test_the_machine_spoils_a_measurement(change: dict[str, Any], text: str) -> None:
    (finding,) = of_host(QUIET, LATER | change)
    assert finding.spoils and text in finding.text and finding.mend


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"governor": "powersave"}, {}, "governor is powersave"),
        ({"load_1min": 3.0}, {}, "load average 3.0"),
        ({}, {"power_source": "battery"}, "running on battery"),
        ({}, {"cpu_ticks": {"busy": 1720, "steal": 0, "all": 6000}}, "used 52 % of the CPU time"),
        ({}, {"cpu_ticks": {"busy": 1220, "steal": 100, "all": 6000}}, "hypervisor gave 10 %"),
    ],
)
def test_a_disturbance_is_said(before: dict[str, Any], after: dict[str, Any], text: str) -> None:
    (finding,) = of_host(QUIET | before, LATER | after)
    assert text in finding.text and not finding.spoils


def test_what_a_machine_does_not_tell_is_no_finding() -> None:
    unknown = dict.fromkeys(QUIET)
    assert of_host(unknown, unknown) == []


def test_a_swapped_or_thrashing_child_spoils() -> None:
    steady = {"decode": centre([10.0] * 6)}
    (swapped,) = trust.of_runs([a_run(swap=4096), a_run()], steady)
    assert swapped.spoils and "4096 bytes" in swapped.text
    (thrashed,) = trust.of_runs([a_run(), a_run(faults=900)], steady)
    assert thrashed.spoils and "900 pages" in thrashed.text
    assert list(trust.of_runs([a_run(swap=None, faults=None)], steady)) == []


def test_scatter_spoils_and_one_outlier_does_not() -> None:
    steady = {"decode": centre([10.0] * 8 + [2.0])}
    assert list(trust.of_runs([a_run()], steady)) == []
    wild = {"decode": centre([10.0, 12.0, 8.0, 11.0, 9.0, 13.0])}
    (finding,) = trust.of_runs([a_run()], wild)
    assert finding.spoils and "decode scatters by" in finding.text


def test_few_rounds_are_said_to_be_few() -> None:
    (finding,) = trust.of_runs([a_run(rounds=2)], {"decode": centre([10.0, 10.0])})
    assert "only 2 rounds" in finding.text and not finding.spoils
