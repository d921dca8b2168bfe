"""The documentation names what exists: commands, options, files and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgegauge.cli import COMMANDS, root

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for child, leaf in command.commands.items():
                yield f"{name} {child}", leaf
        else:
            yield name, command


@pytest.mark.parametrize("name,command", list(leaves()), ids=lambda value: str(value))
def test_every_command_has_help_and_json(name: str, command: click.Command) -> None:
    assert command.help, name
    assert any("--json" in option.opts for option in command.params), name


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"edgegauge {name}" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_in_a_page_exist(page: Path) -> None:
    known = {name for name, _ in leaves()} | set(COMMANDS)
    shown = re.findall(r"^ {4}(?:\S*/)?edgegauge ((?:[a-z]+ ?){1,2})", page.read_text(), re.M)
    for words in shown:
        first, *rest = words.split()
        assert first in known, f"{page}: edgegauge {words}"
        if first == "devices" or first == "models":
            assert rest and f"{first} {rest[0]}" in known, f"{page}: edgegauge {words}"


def test_every_page_is_reachable_from_the_readme() -> None:
    linked = {
        (ROOT / target).resolve() for target in LINK.findall((ROOT / "README.md").read_text())
    }
    missing = [page for page in PAGES if page.parent != ROOT and page.resolve() not in linked]
    assert missing == []
