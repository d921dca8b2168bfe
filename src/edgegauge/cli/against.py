"""What `edgegauge evaluate --against` prints."""

from __future__ import annotations

from pathlib import Path

from edgegauge.cli.output import stdout, table, text_of
from edgegauge.evaluate.against import GREEDY, AgainstResult
from edgegauge.verification import Agreement, Verification


def print_against(artifact: Path, found: AgainstResult | Verification) -> None:
    """A table of one agreement, or of both that a verification has."""
    console = stdout()
    if isinstance(found, AgainstResult):
        name, other = found.artifact.name, found.other.name
        console.print(f"{name} against {other}", style="bold", markup=False)
        _show(found.agreement, f"{text_of(found.greedy_prefix, interval=True)} of {GREEDY}")
        return
    console.print(f"{artifact.stem} against its model", style="bold", markup=False)
    if found.original:
        _show(found.original, _greedy(found.original))
    console.print("against its own stored weights", style="bold", markup=False)
    _show(found.own_weights, _greedy(found.own_weights))
    for note in found.not_checked:
        console.print(f"not checked: {note}", markup=False, soft_wrap=True)


def _greedy(found: Agreement) -> str:
    return f"{found.greedy_prefix} of {found.greedy_tokens}"


def _show(found: Agreement, greedy: str) -> None:
    rows = table("figure", "value", "of", right=("value",))
    for name, figure, of in (
        ("KL divergence, mean", found.kl_mean, "per token"),
        ("KL divergence, 99 % below", found.kl_p99, "per token"),
        ("KL divergence, largest", found.kl_max, "per token"),
        ("same choice", found.same_choice, f"{found.positions} positions"),
        ("logit error, mean", found.mean_error, "standard deviations"),
        ("logit error, largest", found.max_error, "standard deviations"),
    ):
        rows.add_row(name, text_of(figure, interval=True), of)
    rows.add_row("greedy tokens in common", greedy, "")
    stdout().print(rows)
