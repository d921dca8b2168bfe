"""Budgets from files and options: what is accepted, and how everything else is refused."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from edgegauge.budget import Budget, QualityFloor, load, merge
from edgegauge.cli.budget_options import BudgetFlags, budget_options
from edgegauge.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "budget.toml"
    path.write_text(text)
    return path


def test_a_full_budget(tmp_path):
    found = load(write(tmp_path, """
        format = 1
        memory = "900MB"
        file_size = 500_000_000
        decode_tok_per_s = 10
        prefill_tok_per_s = 100
        ttft_p99_s = 0.5
        energy_j_per_token = 0.5
        battery_h = 4
        quality = { metric = "exact_match", at_least = 0.9 }
    """))  # fmt: skip
    assert found.memory == 900_000_000
    assert found.file_size == 500_000_000
    assert found.quality == QualityFloor(metric="exact_match", at_least=0.9)


def test_an_empty_budget_limits_nothing(tmp_path):
    assert load(write(tmp_path, "")) == Budget()


def test_all_problems_at_once_with_their_path(tmp_path):
    path = write(tmp_path, 'memory = "much"\ndecode_tok_per_s = -1\nspeed = 3\n')
    with pytest.raises(InputError) as caught:
        load(path)
    text = str(caught.value)
    assert "memory: not a size: 'much'" in text
    assert "decode_tok_per_s: " in text and "got -1" in text
    assert "speed: " in text
    assert text.count(str(path)) == 4


@pytest.mark.parametrize(
    "text",
    ["memory = true", "memory = 1.5", "memory = 0", "memory = -5", 'memory = "0MB"', "memory =",
     "battery_h = nan", "ttft_p99_s = inf", 'quality = "high"', "quality = { metric = 'x' }",
     "format = 2"],
)  # fmt: skip
def test_impossible_values_are_refused(tmp_path, text):
    with pytest.raises(InputError):
        load(write(tmp_path, text))


def test_merge_replaces_only_what_is_given():
    base = Budget(memory=100, battery_h=4, quality=QualityFloor(at_least=45))
    found = merge(base, {"memory": "1kB", "battery_h": None, "ttft_p99_s": 0.5})
    assert found == Budget(memory=1000, battery_h=4, ttft_p99_s=0.5, quality=base.quality)


def test_merge_reports_the_origin():
    with pytest.raises(InputError, match="@ the options"):
        merge(Budget(), {"decode_tok_per_s": -1})


def run_options(*arguments, base=None):
    seen = {}

    @click.command()
    @budget_options
    def command(limits: BudgetFlags) -> None:
        seen["budget"] = limits.apply(base or Budget())
        seen["metric"] = limits.metric(base or Budget())

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen["budget"], seen["metric"]


def test_options_make_a_budget():
    found, metric = run_options(
        "--memory", "900MB", "--file-size", "1GB", "--decode", "10", "--prefill", "100", "--ttft",
        "0.5", "--energy", "0.4", "--battery-hours", "4", "--min-quality", "45",
    )  # fmt: skip
    assert found == Budget(
        memory=900_000_000, file_size=10**9, decode_tok_per_s=10, prefill_tok_per_s=100,
        ttft_p99_s=0.5, energy_j_per_token=0.4, battery_h=4,
        quality=QualityFloor(metric="avg8_0shot", at_least=45),
    )  # fmt: skip
    assert metric == "avg8_0shot"


def test_options_override_a_file():
    base = Budget(memory=5, quality=QualityFloor(metric="MMLU", at_least=40))
    found, metric = run_options("--min-quality", "50", base=base)
    assert found == Budget(memory=5, quality=QualityFloor(metric="MMLU", at_least=50))
    assert metric == "MMLU"


def test_a_floor_is_not_moved_to_another_metric():
    base = Budget(quality=QualityFloor(metric="MMLU", at_least=40))
    with pytest.raises(InputError, match="floor is on MMLU, not on GSM8K"):
        run_options("--quality-metric", "GSM8K", base=base)
