"""What spoils a measurement, and what is only worth saying."""

from __future__ import annotations

from typing import Any

import pytest

from edgegauge.measure import trust
from edgegauge.measure.finding import Finding
from edgegauge.measure.memory_outcome import outcome
from edgegauge.measure.statistics import centre
from edgegauge.result import Phase, Round, Run
from edgegauge.units import MIB

QUIET: dict[str, Any] = {
    "governor": "performance",
    "throttle_count": 5,
    "pi_throttled": 0x50000,
    "cooling": 0,
    "temperature_c": 60.0,
    "swapped_in_pages": 100,
    "load_1min": 0.1,
    "busiest": None,
    "cpu_ticks": {"busy": 1000, "steal": 0, "all": 5000},
    "power_source": "mains",
    "battery_saver": False,
    "turbo_off": "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
    "clock_offsets": [1.7e9, 10.0],
}
LATER = QUIET | {"cpu_ticks": {"busy": 1220, "steal": 0, "all": 6000}}
"""1000 ticks later, 220 of them busy; the children took 2 s = 200 ticks of 10 ms."""
MOMENT: dict[str, Any] = {"mhz": [1500.0, 2400.0], "own": 0.5, "others": 0.01}


def of_host(
    before: dict[str, Any],
    after: dict[str, Any],
    during: list[dict[str, Any]] | None = None,
    sustained: bool = False,
) -> list[Finding]:
    found = trust.of_host(
        before, after, cores=4, own_cpu_s=2.0, during=during or [], sustained=sustained
    )
    return list(found)


def a_run(
    swap: int | None = 0, faults: int | None = 0, rounds: int = 6, gap_s: float = 0.01
) -> Run:
    phase = Phase(
        rss_bytes=1, anonymous_bytes=1, file_bytes=MIB, swap_bytes=swap, peak_rss_bytes=None
    )
    timed = Round(prefill_s=0.1, ttft_s=0.1, inter_token_s=[gap_s, gap_s])
    return Run(load_s=0.1, rounds=[timed] * rounds, phases={"load": phase}, major_faults=faults)


def runs_of(*rates: float) -> list[Run]:
    return [a_run(gap_s=1 / rate) for rate in rates]


def test_a_quiet_machine_gives_no_finding() -> None:
    assert of_host(QUIET, LATER, [MOMENT] * 20) == []
    assert list(trust.of_runs([a_run()], {"decode": centre([10.0] * 6)})) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"throttle_count": 7}, "throttled for heat 2 times"),
        ({"cooling": 2}, "lowered the processor's clock for heat (cooling step 2)"),
        ({"pi_throttled": 0x50004}, "reported throttling (seen, bits 0x4)"),
        ({"pi_throttled": 0xD0000}, "reported soft temperature limit (since the start"),
        ({"swapped_in_pages": 5000}, "swapped in 4900 pages"),
        ({"power_source": "battery"}, "charger was connected or disconnected"),
    ],
)
def test_the_machine_spoils_a_measurement(change: dict[str, Any], text: str) -> None:
    (finding,) = of_host(QUIET, LATER | change)
    assert finding.spoils and text in finding.text and finding.mend


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ({"pi_throttled": 0x50001}, "reported under-voltage"),
        ({"cooling": 1}, "cooling step 1"),
        ({"power_source": "battery"}, "charger was connected or disconnected"),
    ],
)
def test_what_came_and_went_during_the_runs_spoils_too(moment: dict[str, Any], text: str) -> None:
    (finding,) = of_host(QUIET, LATER, [MOMENT, MOMENT | moment, MOMENT])
    assert finding.spoils and text in finding.text and finding.mend


def test_a_pi_names_its_power_supply_as_the_cause_of_under_voltage() -> None:
    (weak,) = of_host(QUIET, LATER, [{"pi_throttled": 0x50001}])
    (hot,) = of_host(QUIET, LATER, [{"pi_throttled": 0x50004}])
    assert "power supply" in (weak.mend or "") and "cool" in (hot.mend or "")


def test_bits_since_boot_that_were_set_before_are_no_evidence() -> None:
    sticky = {"pi_throttled": 0xF0000}
    assert of_host(QUIET | sticky, LATER | sticky, [sticky] * 5) == []


def test_a_clock_that_falls_under_load_spoils() -> None:
    slow = MOMENT | {"mhz": [1200.0, 1500.0]}
    (finding,) = of_host(QUIET, LATER, [MOMENT] * 3 + [slow] * 30)
    assert finding.spoils and "from 2400 to 1500 MHz" in finding.text
    assert finding.mend == QUIET["turbo_off"], "one command that mends it"


def test_a_clock_that_falls_between_two_runs_is_no_finding() -> None:
    idle = MOMENT | {"mhz": [800.0, 800.0], "own": 0.0}
    brief = MOMENT | {"mhz": [800.0, 900.0]}
    assert of_host(QUIET, LATER, [MOMENT] * 8 + [idle] * 8 + [brief] * 2 + [MOMENT] * 8) == []


def test_a_sustained_measurement_looks_for_throttling() -> None:
    hot = LATER | {"throttle_count": 9}
    assert not any(f.spoils for f in of_host(QUIET, hot, sustained=True))
    assert any(f.spoils for f in of_host(QUIET, hot))
    swapped = hot | {"swapped_in_pages": 5000}
    assert any(f.spoils for f in of_host(QUIET, swapped, sustained=True))


def test_heat_without_throttling_is_said() -> None:
    (finding,) = of_host(QUIET, LATER, [{"temperature_c": 94.0}])
    assert "reached 94 °C" in finding.text and not finding.spoils


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"governor": "powersave"}, {}, "governor is powersave"),
        ({"load_1min": 3.0}, {}, "load average 3.0"),
        ({"busiest": {"name": "backup", "share": 0.9}}, {}, "backup used 90 % of a CPU"),
        ({"power_source": "battery"}, {"power_source": "battery"}, "running on battery"),
        ({"battery_saver": True}, {}, "power-saving profile is on"),
        ({}, {"cpu_ticks": {"busy": 1720, "steal": 0, "all": 6000}}, "used 52 % of the CPU time"),
        ({}, {"cpu_ticks": {"busy": 1220, "steal": 100, "all": 6000}}, "hypervisor gave 10 %"),
        ({}, {"clock_offsets": [1.7e9 + 3600, 10.0]}, "wall clock was stepped by +3600.0 s"),
    ],
)
def test_a_disturbance_is_said(before: dict[str, Any], after: dict[str, Any], text: str) -> None:
    (finding,) = of_host(QUIET | before, LATER | after)
    assert text in finding.text and not finding.spoils


def test_a_machine_that_slept_spoils() -> None:
    (finding,) = of_host(QUIET, LATER | {"clock_offsets": [1.7e9 + 30, 40.0]})
    assert finding.spoils and "slept for 30.0 s" in finding.text


def test_others_spoil_only_where_no_cpu_is_left_for_us() -> None:
    full = {"cpu_ticks": {"busy": 1950, "steal": 0, "all": 6000}}
    (finding,) = of_host(QUIET, LATER | full)
    assert finding.spoils and "used 75 %" in finding.text


def test_a_short_burst_of_others_is_said() -> None:
    (finding,) = of_host(QUIET, LATER, [MOMENT, MOMENT | {"others": 0.6}])
    assert "used 2 % of the CPU time during the runs, up to 60 % for a while" in finding.text
    assert not finding.spoils


def test_what_a_machine_does_not_tell_is_no_finding() -> None:
    unknown = dict.fromkeys(QUIET)
    assert of_host(unknown, unknown, [{"t_s": 0.0}] * 5) == []
    assert of_host({}, {}) == []


def test_every_finding_of_a_ruined_measurement_names_what_mends_it() -> None:
    worst = {
        "governor": "powersave", "throttle_count": 1000, "pi_throttled": 0xF000F, "cooling": 3,
        "swapped_in_pages": 10**6, "power_source": "battery", "battery_saver": True,
        "cpu_ticks": {"busy": 1950, "steal": 50, "all": 6000},
        "busiest": {"name": "x", "share": 1.0}, "load_1min": 40.0,
    }  # fmt: skip
    found = of_host(QUIET | {"load_1min": 40.0, "governor": "powersave"}, QUIET | worst)
    assert len(found) >= 9
    assert [f.text for f in found if not f.mend] == []


def test_a_swapped_or_thrashing_child_spoils() -> None:
    steady = {"decode": centre([10.0] * 6)}
    (swapped,) = trust.of_runs([a_run(swap=4096), a_run()], steady)
    assert swapped.spoils and "4096 bytes" in swapped.text
    (thrashed,) = trust.of_runs([a_run(), a_run(faults=900)], steady)
    assert thrashed.spoils and "900 pages" in thrashed.text
    assert list(trust.of_runs([a_run(swap=None, faults=None)], steady)) == []
    (reread,) = trust.of_runs([a_run()], steady, refaulted_pages=10_000)
    assert reread.spoils and "10000 pages" in reread.text


@pytest.mark.parametrize(
    ("run", "refaulted_pages", "expected"),
    [
        (a_run(), None, "fits"),
        (a_run(faults=10), 0, "fits"),
        (a_run(faults=13), 0, "thrashes"),
        (a_run(faults=13, rounds=60), 0, "fits"),
        (a_run(swap=4096), None, "thrashes"),
        (a_run(), 2 * MIB // 4096, "fits"),
        (a_run(), 3 * MIB // 4096, "thrashes"),
        (a_run(swap=None, faults=None), None, None),
    ],
)
def test_the_outcome_of_memory(run: Run, refaulted_pages: int | None, expected: str | None) -> None:
    assert outcome([run], refaulted_pages=refaulted_pages) == expected


def test_scatter_of_few_runs_spoils_and_one_outlier_does_not() -> None:
    steady = {"decode": centre([10.0] * 8 + [2.0])}
    assert list(trust.of_runs([a_run()], steady)) == []
    wild = {"decode": centre([10.0, 12.0, 8.0, 11.0, 9.0, 13.0])}
    (finding,) = trust.of_runs([a_run()], wild)
    assert finding.spoils and "decode scatters by" in finding.text


def test_scatter_of_prefill_is_said() -> None:
    wild = {"prefill": centre([10.0, 12.0, 8.0, 11.0, 9.0, 13.0])}
    (finding,) = trust.of_runs([a_run()], wild)
    assert "prefill scatters by" in finding.text and not finding.spoils


def test_runs_that_disagree_spoil_and_name_how_many_would_do() -> None:
    rates = {"decode": centre([10.0] * 18)}
    assert list(trust.of_runs(runs_of(10.0, 10.01, 10.02, 9.99), rates)) == []
    (finding,) = trust.of_runs(runs_of(10.0, 10.4, 9.6, 10.1), rates)
    assert finding.spoils and "two calls may differ by more than 2 %" in finding.text
    assert finding.mend and "--runs " in finding.mend
    assert int(finding.mend.split("--runs ")[1]) > 4


def test_few_rounds_are_said_to_be_few() -> None:
    (finding,) = trust.of_runs([a_run(rounds=2)], {"decode": centre([10.0, 10.0])})
    assert "only 2 rounds" in finding.text and not finding.spoils
