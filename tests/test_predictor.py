"""The fit of the speed prediction: its data, its formulas, its kernels and what it claims."""

from __future__ import annotations

import importlib
import json
import math
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from loaded_script import loaded_script

from edgegauge.speed import PARTS, class_speed

ROOT = Path(__file__).parents[1]
np = pytest.importorskip("numpy")


def script() -> ModuleType:
    return loaded_script("validate_predictor")


@cache
def rows():
    return script().read_rows()


@cache
def problem():
    return script().Problem(rows())


@cache
def report() -> dict:
    return json.loads((ROOT / "scripts/predictor/report.json").read_text())


def test_every_published_row_is_used_or_has_a_reason_why_not():
    # The A53 row is from another source than those that were gone through: first 1,665 and 164
    # rows, later 84 of one board, 315 of ARM and 230 of x86.
    other, first, later = 1, 1665 + 164, 84 + 315 + 230
    assert len(rows()) - other + sum(script().left_out().values()) == first + later
    for row in rows():
        assert row.decode or (row.prefill and row.tokens)
        assert len(row.source) > 5


def test_the_fit_uses_the_formulas_of_the_package():
    """Predictions in vector form are those of ClassSpeed with the same constants, where matrices
    are cut as they are today."""
    published = script().Problem([replace(row, parts=PARTS) for row in rows()])
    x = published.centres + np.random.default_rng(1).normal(0, 0.3, len(published.centres)) * (
        published.spreads
    )
    x[[i for name, i in published.parameters.index.items() if "@" in name]] = 0
    module = script()
    widths = report()["half_widths"]
    constants = module.write.document(published, x, rows(), module.profiles(), widths)
    predicted, _ = published.logs(x)
    checked = 0
    for at, row in enumerate(rows()):
        if row.engine != "llama.cpp":
            continue
        speed = class_speed(row.machine, constants=constants)
        if of_today(row, "decode"):
            seconds = speed.decode_s(row.work, row.depth)
            assert 1 / seconds == pytest.approx(math.exp(predicted[0, at]), rel=1e-4)
            checked += 1
        if row.tokens and of_today(row, "prefill"):
            seconds = speed.prefill_s(row.work, row.tokens)
            assert row.tokens / seconds == pytest.approx(math.exp(predicted[1, at]), rel=1e-4)
            checked += 1
    assert checked > 500


def of_today(row, phase) -> bool:
    return all(name == kind for kind, name in row.kernels[phase].items())


def test_kernels_are_those_of_the_time_and_cost_what_was_counted():
    kernels = importlib.import_module("predictor.kernels")
    kernel, cost = kernels.kernel, kernels.cost
    assert kernel("Q4_K", "avx2", "2025-02", "decode") == "Q4_K~"
    assert kernel("Q4_K", "avx2", "2025-03", "decode") == "Q4_K"
    # Nothing is reordered without a dot product, and decoding is not what tiles are for.
    assert kernel("Q4_0", "plain", "2023", "decode") == "Q4_0"
    assert kernel("Q5_K", "avx2", "2026-08", "prefill") == "Q5_K~"
    assert kernel("Q5_K", "avx2", "2026-08", "decode") == "Q5_K"
    assert kernel("Q5_K", "dotprod", "2026-08", "prefill") == "Q5_K"
    assert cost("Q4_0", "dotprod", "prefill") == cost("Q4_0", "avx2", "decode") == 1
    # 1.17 instructions for a multiply-add with Q5_0, of which 0.42 on vectors; 0.14 and 0.11.
    assert cost("Q5_0", "dotprod", "prefill") == pytest.approx(1.1695 / 4 / (0.1093 / 2), rel=1e-3)
    assert cost("Q5_K~", "avx512", "prefill") > 3 * cost("Q5_K", "avx512", "prefill")
    assert kernels.is_counted("BF16", "avx2") and not kernels.is_counted("BF16", "dotprod")
    for kernel_set in kernels.REORDERED_SINCE:
        for kind in kernels.types():
            for phase in ("decode", "prefill"):
                assert 0.2 < cost(kind, kernel_set, phase) < 14, (kind, kernel_set, phase)


def test_the_slopes_of_the_fit_are_those_of_its_formulas():
    published = problem()
    rng = np.random.default_rng(2)
    x = published.centres + rng.normal(0, 0.1, len(published.centres))
    value, slope = published.logs(x)
    for at in rng.choice(len(x), 40, replace=False):
        moved = x.copy()
        moved[at] += 1e-6
        change = (published.logs(moved)[0] - value) / 1e-6
        assert np.allclose(change, slope[:, :, at], atol=1e-4)


def test_a_held_out_device_leaves_no_trace():
    """Whatever a device's rows say, the constants fitted without it stay the same."""
    devices = np.array([row.device for row in rows()])
    out = devices != "raspberry-pi-5"
    tall = [
        r if use else replace(r, decode=9.0, prefill=90.0 if r.prefill else None)
        for r, use in zip(rows(), out, strict=True)
    ]
    one, other = problem(), script().Problem(tall)
    assert np.array_equal(one.fit(out, steps=3), other.fit(out, steps=3))


def test_the_committed_priors_are_what_the_script_gives():
    committed = tomllib.loads((ROOT / "src/edgegauge/priors.toml").read_text())
    given = tomllib.loads(script().write.toml(script().priors(report())))
    assert _names(committed) == _names(given)
    for path, value in _leaves(given):
        found = committed
        for key in path:
            found = found[key]
        assert found == (pytest.approx(value, rel=0.01) if isinstance(value, float) else value), (
            path
        )


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _names(value):
    return [path for path, _ in _leaves(value)]


def test_the_table_of_the_documentation_is_current():
    text = (ROOT / "docs/explanation/prediction.md").read_text()
    assert script().with_table(text, report()) == text


def test_the_held_out_errors_are_what_is_claimed():
    line, first = report()["table"][:2]
    assert (line["part"], first["part"]) == ("all", "collected first")
    decode, prefill = line["decode, profile"], line["prefill, profile"]
    assert decode["rows"] > 440 and decode["median"] < 15 and decode["p90"] <= 32
    assert prefill["median"] < 11 and prefill["p90"] <= 30
    for method in ("profile", "one row"):
        for phase in ("decode", "prefill"):
            # Devices of one or two rows are predicted worse than those of many.
            assert 0.75 <= line[f"{phase}, {method}"]["coverage"] <= 0.85
            assert report()["device_coverage"][method][phase] >= 0.6
    for phase in ("decode", "prefill"):
        assert line[f"{phase}, one row"]["median"] < 12 and line[f"{phase}, one row"]["p90"] < 34
        assert first[f"{phase}, one row"]["median"] < 11 and first[f"{phase}, one row"]["p90"] < 26
    assert decode["median"] < line["decode, bandwidth / size"]["median"] / 3


def test_intervals_are_wider_where_few_devices_are_known():
    for method in ("profile", "one row"):
        for widths in report()["half_widths"][method].values():
            assert widths["arm-in-order-plain"] > 1.1 * widths["arm-big-little"]
    doubt = script().evaluate.doubt
    assert doubt(0) > doubt(1) > doubt(3) > doubt(30) > 1


def test_the_calibration_row_is_chosen_by_what_it_is():
    choose = script().evaluate.calibration_row
    mine = [i for i, row in enumerate(rows()) if row.device == "poco-x7-mt6899"]
    at = choose(rows(), mine)
    loud = [replace(r, decode=1000.0) if r.decode else r for r in rows()]
    assert choose(loud, mine) == at
    assert rows()[at].recipe in ("q4_0", "q4_k_m")
