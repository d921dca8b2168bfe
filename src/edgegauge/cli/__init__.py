"""The command line: one file per command, loaded only when that command is used.

This package is the only place that prints or exits. Data goes to stdout, talk to stderr; a known
error becomes its message, its hint and its exit status, never a traceback.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from edgegauge import __version__
from edgegauge.errors import EdgeGaugeError

COMMANDS = {
    "devices": "Device profiles: list, show, validate; detect and calibrate this machine.",
    "models": "The model catalog; also reads a Hugging Face folder, config.json or GGUF header.",
    "fit": "Predict which models fit a device, how fast, and for how long on battery.",
    "convert": "Export a model to an on-device format at INT4 or INT8.",
    "measure": "Run an artifact here and record speed, latency, memory and energy.",
    "energy": "Joules for a result from the file of an external power meter.",
    "compare": "Is one result faster than another, slower, or can nobody tell?",
    "import": "Results that another tool measured, as result files.",
    "evaluate": "Accuracy and perplexity of an artifact on your data.",
    "check": "The CI gate: judge models on devices; the exit status is the verdict.",
    "run": "The whole job: convert, measure, evaluate and choose.",
    "sweep": "Measure every combination of models, recipes, runtimes, threads and contexts.",
    "report": "One self-contained HTML page from result files.",
    "doctor": "What is installed and readable here, and how to mend each gap.",
}
"""Every command and its one-line help, kept here so that `--help` imports no command."""

MODULES = {"import": "import_results"}
"""Modules that are not named like their command."""


class LazyGroup(click.Group):
    """A group whose commands are modules of this package, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names in the order of the job, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command object, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"edgegauge.cli.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="edgegauge %(version)s")
def root() -> None:
    """Which language model fits this device, how fast is it, and how long will the battery last?

    Every command takes --json: one document on stdout, everything else on stderr.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the installed command; exits with the status that design contract 4 fixes."""
    try:
        status = root.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except EdgeGaugeError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"\nhint: {error.hint}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
