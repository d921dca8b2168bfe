"""Parts of a consumption from two models under one meter, computed from known powers."""

from __future__ import annotations

from typing import Any

import pytest
from changed_profiles import spec_of
from sample_results import energy_of

from edgegauge.calibration_power import UNSEEN, Metered, power_of
from edgegauge.energy import Energy, Window
from edgegauge.errors import MeasurementError
from edgegauge.figure import Figure
from edgegauge.result import Workload
from edgegauge.work import work_of

LARGE, SMALL = work_of(spec_of("smollm2-135m"), "q8_0"), work_of(spec_of("stories260k"), "q8_0")
LOAD = Workload(prompt_tokens=100, generated_tokens=64, threads=4)


def watts(value: float, error: float = 0.01) -> Figure:
    return Figure(value, "W", "measured", "a meter", value - 2 * error, value + 2 * error)


def metered(work: Any, rate: float, error: float = 0.01, **powers: float) -> Metered:
    """60 s of each phase at `rate` tokens per second (prompts: ten times as many)."""
    found: dict[str, Any] = {f"{name}_w": watts(w, error) for name, w in powers.items()}
    found |= {n: None for n in ("prefill_w", "decode_w") if n not in found}
    windows = [
        Window(phase=phase, start_s=at, end_s=at + 60, tokens=int(60 * each), joules=1.0)
        for at, phase, each in ((0.0, "decode", rate), (60.0, "prefill", 10 * rate))
    ]
    energy: Energy = energy_of(whole_device=True, covers=["the device"]).model_copy(
        update={"windows": windows, "reason": None, **found}
    )
    source = energy.source.model_copy(update={"calibration_share": 0.0})
    return Metered(energy.model_copy(update={"source": source}), work, LOAD, cache_bytes=2e6)


IDLE = {"idle_before": 2.0, "idle_after": 2.0}


def test_the_parts_make_the_powers_again():
    large = metered(LARGE, 50, **IDLE, decode=7.0, prefill=11.0)
    small = metered(SMALL, 50, **IDLE, decode=4.0)
    found = power_of(large, small, threads=4, measured="today")
    assert found.decode_nj_per_byte is not None and found.prefill_w_per_thread is not None
    byte = found.decode_nj_per_byte * 1e-9
    for each, decode_w in ((large, 7.0), (small, 4.0)):
        again = 2 + 4 * found.decode_w_per_thread + byte * each.decode_bytes_per_s
        assert again == pytest.approx(decode_w, rel=1e-3)
    prompt = 2 + 4 * found.prefill_w_per_thread + byte * large.prefill_bytes_per_s
    assert prompt == pytest.approx(11, rel=1e-3)
    assert found.idle_w == 2 and found.covers == "the device" and found.whole_device
    assert found.error == pytest.approx(UNSEEN, abs=0.01)  # a sure meter leaves what is not seen
    assert "measured on this machine on today with 4 threads" in found.source


@pytest.mark.parametrize(
    "small",
    [
        None,
        metered(SMALL, 50, **IDLE, decode=7.0),  # no less than the large one
        metered(SMALL, 50, 0.5, **IDLE, decode=6.5),  # less, but not surely
        metered(LARGE, 40, **IDLE, decode=5.0),  # it reads as much
        metered(SMALL, 50, **IDLE),  # the meter was lost
    ],
)
def test_bytes_that_are_not_told_apart_stay_with_the_threads(small: Metered | None):
    large = metered(LARGE, 50, **IDLE, decode=7.0)
    found = power_of(large, small, threads=4, measured="today")
    assert found.decode_nj_per_byte is None and found.prefill_w_per_thread is None
    assert found.decode_w_per_thread == pytest.approx(5 / 4)


def test_threads_never_draw_less_than_nothing():
    small = metered(SMALL, 50, idle_before=2.0, decode=1.0)
    large = metered(LARGE, 50, idle_before=2.0, decode=7.0)
    found = power_of(large, small, threads=4, measured="today")
    assert found.decode_nj_per_byte is None and found.decode_w_per_thread > 0


def test_a_meter_that_does_not_see_the_load_gives_no_parts():
    same = metered(LARGE, 50, **IDLE, decode=2.01)
    with pytest.raises(MeasurementError, match="cannot tell apart"):
        power_of(same, None, threads=4, measured="today")
    nothing = metered(LARGE, 50, **IDLE)
    with pytest.raises(MeasurementError, match=nothing.energy.source.id):
        power_of(nothing, None, threads=4, measured="today")


def test_a_scale_that_is_not_sure_widens_the_error_and_separates_all_the_same():
    large, small = (
        metered(LARGE, 50, 0.2, **IDLE, decode=7.0), metered(SMALL, 50, 0.1, **IDLE, decode=6.5)
    )  # fmt: skip

    def rough(each: Metered) -> Metered:
        source = each.energy.source.model_copy(update={"calibration_share": 0.1})
        wide = each.energy.decode_w
        assert wide is not None
        more = watts(wide.value, 0.1 * wide.value + 0.001)
        energy = each.energy.model_copy(update={"source": source, "decode_w": more})
        return Metered(energy, each.work, each.workload, each.cache_bytes)

    found = power_of(rough(large), rough(small), threads=4, measured="today")
    assert found.decode_nj_per_byte is not None
    assert found.error > 0.15
