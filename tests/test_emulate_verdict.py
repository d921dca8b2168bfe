"""From what was counted to a verdict, and the search for the memory at which it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from edgegauge.artifact import Artifact
from edgegauge.device import load
from edgegauge.emulate import boundary
from edgegauge.emulate.boundary import FIRST_TIMEOUT_S, TOLERANCE, find_boundary
from edgegauge.emulate.emulator import Emulator
from edgegauge.emulate.group import Counted
from edgegauge.emulate.places import Place
from edgegauge.emulate.verdict import Observed, verdict_of
from edgegauge.errors import InputError, MeasurementError
from edgegauge.host.tree import Tree
from edgegauge.memory import Outcome
from edgegauge.result import Failure, Phase, Round, Run, Workload
from edgegauge.units import MB

FILE_BYTES = 400 * MB
PHASE = Phase(
    rss_bytes=300 * MB, anonymous_bytes=100 * MB, file_bytes=200 * MB, swap_bytes=0,
    peak_rss_bytes=300 * MB,
)  # fmt: skip
RUN = Run(
    load_s=1.0,
    phases={"decode": PHASE},
    rounds=[Round(prefill_s=0.1, ttft_s=0.1, inter_token_s=[0.1] * 99)],
    peak_rss_bytes=300 * MB,
    major_faults=0,
)
"""A hundred passes over the weights."""
LATE = Failure(run=0, phase="decode", kind="timeout", reason="stopped after 60 s")


def seen(ended: Run | Failure = RUN, **counted: Any) -> Observed:
    return Observed(ended=ended, counted=Counted(**counted), seconds=2.0, whole=True)


def verdict(*runs: Observed, grouped: bool = True, memory: int = 512 * MB) -> tuple[Any, str]:
    return verdict_of(runs, memory_bytes=memory, file_bytes=FILE_BYTES, grouped=grouped)


def test_runs_that_end_without_faults_fit_whatever_was_re_read_while_loading() -> None:
    found, reason = verdict(seen(), seen(refaulted_pages=10**6))
    assert found == "fits" and reason.startswith("0 major faults")


@pytest.mark.parametrize(("faults", "expected"), [(20, "fits"), (21, "thrashes")])
def test_more_faults_than_code_explains_thrash(faults: int, expected: str) -> None:
    run = RUN.model_copy(update={"major_faults": faults})
    found, reason = verdict(seen(), seen(run))
    assert found == expected
    assert reason.startswith(f"{faults / 100:.3g} major faults by token")


def test_swap_is_thrashing() -> None:
    swapped = PHASE.model_copy(update={"swap_bytes": 4096})
    assert verdict(seen(RUN.model_copy(update={"phases": {"decode": swapped}})))[0] == "thrashes"


@pytest.mark.parametrize("kind", ["killed", "failed", "timeout"])
def test_a_run_that_the_kernel_killed_for_memory_says_so_whatever_else_ran(kind: Any) -> None:
    killed = Failure(run=1, phase="load", kind=kind, reason="?")
    found, reason = verdict(seen(), seen(killed, oom_kills=1))
    assert found == "out of memory" and "in the phase 'load'" in reason


def test_a_refused_allocation_is_out_of_memory_too() -> None:
    refused = Failure(run=0, phase="load", kind="out of memory", reason="MemoryError")
    assert verdict(seen(refused), grouped=False) == ("out of memory", "MemoryError")


def test_a_run_that_is_late_thrashes_only_if_it_re_read_the_file() -> None:
    once, pages = seen(LATE, refaulted_pages=0), FILE_BYTES // 4096
    assert verdict(replace(once, counted=Counted(refaulted_pages=pages)))[0] is None
    found, reason = verdict(replace(once, counted=Counted(refaulted_pages=2 * pages)))
    assert found == "thrashes" and reason == "re-read 800.0 MB before it was stopped"


def test_a_crash_tells_nothing() -> None:
    crash = Failure(run=0, phase="load", kind="crashed", reason="SIGSEGV")
    assert verdict(seen(), seen(crash))[0] is None


def test_without_a_group_only_what_was_resident_tells() -> None:
    assert verdict(seen(), grouped=False)[0] == "fits"
    found, reason = verdict(seen(), grouped=False, memory=200 * MB)
    assert found is None and "300.0 MB were resident" in reason and "cannot" not in reason


class FakeEmulator:
    """Knows from which limit on a run fits, and from which it lives."""

    def __init__(self, path: Path, *, fits: float, lives: float, seconds: float = 1.0) -> None:
        path.write_bytes(bytes(1000))
        self.place: Place | None = Place("cgroup v1", "memory", None)
        self.artifact = Artifact(path, None)
        self.profile = load("raspberry-pi-5-8gb")
        self.features: list[str] = []
        self.tree = Tree(path.parent)
        self.libraries_bytes = 0
        self.fits, self.lives, self.seconds = fits, lives, seconds
        self.tried: list[tuple[int, float]] = []

    def observe(self, job: Any, index: int, memory_bytes: int, *, timeout_s: float) -> Observed:
        self.tried.append((memory_bytes, timeout_s))
        return replace(seen(), seconds=self.seconds)

    def verdict(self, runs: Any, memory_bytes: int) -> tuple[Outcome | None, str]:
        if memory_bytes >= self.fits:
            return "fits", ""
        return ("thrashes" if memory_bytes >= self.lives else "out of memory"), ""


@pytest.fixture
def search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:  # of (fake, guess of what fits) -> boundary and what was said
    monkeypatch.setattr(boundary, "runtime_for", lambda file_format: None)
    monkeypatch.setattr(boundary.worker, "job", lambda *of: {"workload": {}})

    def run(guess: float, **limits: Any) -> tuple[FakeEmulator, Any, list[str]]:
        fake, said = FakeEmulator(tmp_path / "model.gguf", **limits), list[str]()
        (tmp_path / "model.gguf").write_bytes(b"")
        with (tmp_path / "model.gguf").open("wb") as stream:
            stream.truncate(round(guess))
        found = find_boundary(cast("Emulator", fake), Workload(threads=1), say=said.append)
        return fake, found, said

    return run


@pytest.mark.parametrize("guess", [60e6, 99e6, 100e6, 101e6, 180e6])
def test_both_limits_are_found_from_any_guess(search: Any, guess: float) -> None:
    fake, found, said = search(guess, fits=100e6, lives=70e6)
    for figure, true in ((found.fits_bytes, 100e6), (found.survives_bytes, 70e6)):
        assert figure.low < true <= figure.high == figure.value
        assert figure.high <= TOLERANCE * figure.low + 1
        assert (figure.kind, figure.source) == ("emulated", "cgroup v1, bisection")
    limits = [limit for limit, _ in fake.tried]
    assert len(set(limits)) == len(limits) == len(said) == found.trials <= 40
    assert said[0].endswith(" MB: fits") or guess < 80e6


def test_a_trial_may_take_three_times_as_long_as_one_that_fits(search: Any) -> None:
    fake, _, _ = search(100e6, fits=100e6, lives=70e6, seconds=20.0)
    timeouts = [timeout for _, timeout in fake.tried]
    assert timeouts[0] == FIRST_TIMEOUT_S and set(timeouts[1:]) == {60.0}


def test_a_limit_above_what_the_host_has_is_not_searched_for(search: Any, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 120000 kB\nMemAvailable: 120000 kB\n")
    _, found, _ = search(100e6, fits=400e6, lives=70e6)
    assert found.fits_bytes is None
    assert found.survives_bytes.value == pytest.approx(70e6, rel=0.01)


def test_a_search_that_leads_nowhere_ends_with_an_error(search: Any) -> None:
    with pytest.raises(MeasurementError, match="no limit in which it does not fit"):
        search(30e6, fits=0, lives=0)


def test_a_search_needs_a_control_group(tmp_path: Path) -> None:
    fake = FakeEmulator(tmp_path / "model.gguf", fits=1, lives=1)
    fake.place = None
    with pytest.raises(InputError, match="control group only"):
        find_boundary(cast("Emulator", fake), Workload(threads=1))
