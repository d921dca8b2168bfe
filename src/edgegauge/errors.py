"""The exceptions that may reach a user, and the exit statuses that follow from them.

    EdgeGaugeError              status 1
    ├── InputError              a file or argument from outside is wrong
    ├── MissingDependency       an optional package is not installed
    ├── ConversionError         a model could not be converted
    ├── MeasurementError        a run could not be completed
    └── RunTimeout              a run did not end in time (status 124)

Messages say what was seen, what was expected and what to do. `cli.main` prints them; no other
place does.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_BROKEN_BUDGET = 3
EXIT_NOT_TRUSTWORTHY = 4
EXIT_TIMEOUT = 124


class EdgeGaugeError(Exception):
    """Something the user can act on.

    `hint` is one sentence or command that mends it, printed on a line of its own.
    """

    exit_status = EXIT_ERROR

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(EdgeGaugeError):
    """A file or argument from outside is wrong; `problems` holds every finding, one per line."""

    def __init__(self, message: str, problems: list[str] | None = None, hint: str | None = None):
        super().__init__("\n".join([message, *(f"  {p}" for p in problems or [])]), hint)
        self.problems = problems or []


class MissingDependency(EdgeGaugeError):
    """An optional package is needed for what was asked; the hint installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed",
            hint=f'pip install "edgegauge[{extra}]"',
        )


class ConversionError(EdgeGaugeError):
    """A model could not be converted; nothing was left under the artifact's final name."""


class MeasurementError(EdgeGaugeError):
    """A run could not be completed."""


class RunTimeout(MeasurementError):
    """A run did not end within its limit and was stopped."""

    exit_status = EXIT_TIMEOUT
