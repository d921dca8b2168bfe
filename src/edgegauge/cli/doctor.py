"""`edgegauge doctor`: what is installed, readable and trustworthy here, and what mends each gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table

from edgegauge.cli.output import emit_json, json_option, stdout, table
from edgegauge.emulate.checks import emulation_check
from edgegauge.engines.checks import engine_checks
from edgegauge.measure.checks import Check, checks
from edgegauge.measure.machine import Machine

MARKS = {"ok": "[green]ok[/]", "absent": "[red]absent[/]", "unsure": "[yellow]unsure[/]"}


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what is installed, readable and trustworthy here, and what mends each gap.

    One line for each extra, runtime and kind of energy meter, then for what may disturb a
    measurement: the power source, clocks, heat, swap and other programs; then what emulating
    another device can enforce; last, the engines whose environments are built.
    """
    machine = Machine()
    found = [*checks(machine), emulation_check(machine.tree), *engine_checks()]
    if as_json:
        emit_json({"format": 1, "checks": [asdict(check) for check in found]})
        return
    stdout().print(rows(found))


def rows(found: Sequence[Check]) -> Table:
    """The checks as a table; what mends a gap stands below it, on a line of its own."""
    made = table("check", "state", "found, and what mends it")
    for check in found:
        mend = f"\n[cyan]> {escape(check.mend)}[/]" if check.mend else ""
        made.add_row(check.name, MARKS[check.state], escape(check.found) + mend)
    return made
