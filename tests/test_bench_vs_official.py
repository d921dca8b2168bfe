"""bench_vs_official: what it reads from the tools, the ratios it makes, and its verdict."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

REPORT = """
--------------------------------------------------
Prefill speed:        592.10 tokens/s
Decode speed:          61.25 tokens/s
Init time:            0.3443 s
"""


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).parents[1] / "scripts" / "bench_vs_official"
    loader = SourceFileLoader("bench_vs_official", str(path))
    spec = spec_from_loader("bench_vs_official", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_rates_that_tools_print(script: Any) -> None:
    assert script.reported(REPORT) == (592.1, 61.25)
    assert script.printed("1 1\n500 60\n700 50\n600 70\n") == (600, 60)


def test_ratios_are_of_neighbours(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine slows down to a tenth: medians of both sides hide what the pairs show.
    said = iter(["200 20", "100 10", "20 2", "10 1", "100 10", "50 5"])
    monkeypatch.setattr(script, "output", lambda command: next(said))
    read = lambda text: tuple(map(float, text.split()))  # noqa: E731
    found = script.rates_of("x", [["ours"], ["official"]], read, 3)
    for phase in ("prefill", "decode"):
        assert found[phase]["ratio"] == pytest.approx(2)
        assert found[phase]["low"] == pytest.approx(2)


def cost(seconds: float, peak: float) -> SimpleNamespace:
    return SimpleNamespace(seconds=seconds, peak_bytes=peak)


@pytest.mark.parametrize(
    "seconds,peak,high,fine",
    [(30, 400, 1.0, True), (29, 400, 1.0, False), (30, 390, 1.0, False), (30, 400, 0.99, False)],
)
def test_the_verdict(script: Any, seconds: float, peak: float, high: float, fine: bool) -> None:
    conversion = script.conversion_of([(cost(2, 100), cost(seconds, peak))])
    rates = [{"prefill": {"high": 2.0}, "decode": {"high": high}}]
    assert script.fine(conversion, rates, 15, 4) is fine


def test_a_conversion_that_is_not_repeated(script: Any) -> None:
    conversion = script.conversion_of([(cost(2, 100), None)])
    assert conversion == {"seconds": 2, "peak_bytes": 100}
    rates = [{"prefill": {"high": 2.0}, "decode": {"high": 1.0}}]
    assert script.fine(conversion, rates, 15, 4)
