"""The options of `edgegauge measure`, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.host import default_threads
from edgegauge.measure.manager import grid
from edgegauge.measure.prompt import read_prompt
from edgegauge.measure.steadiness import SustainedOptions
from edgegauge.result import Workload
from edgegauge.usage import DEFAULT

Function = TypeVar("Function", bound=Callable[..., Any])

TIMEOUT_S = 3600.0
MOST_VALUES = 64
"""Of one comma list."""
NO_METER = "none"


def numbers_option(name: str, least: int, most: int, default: str, text: str) -> Any:
    """An option of one or more whole numbers: `128`, or `128,512,2048`, each once, as given."""

    def read(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
        parts = value.split(",")
        if len(parts) > MOST_VALUES:
            raise click.BadParameter(f"{len(parts)} values, at most {MOST_VALUES} are allowed")
        one: Any = click.IntRange(least, most)
        return tuple(dict.fromkeys(one.convert(part.strip(), param, ctx) for part in parts))

    return click.option(
        name, callback=read, default=default, show_default=True, metavar="N[,N...]", help=text
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options by their names."""

    prompt_tokens: tuple[int, ...]
    generated_tokens: int
    depth: tuple[int, ...]
    parallel: tuple[int, ...]
    prompt: Path | None
    threads: int | None
    runs: int
    most_runs: int
    repetitions: int
    timeout_s: float
    meters: tuple[str, ...]
    energy_seconds: float | None
    sustained: bool
    emulate: bool
    find_limit: bool
    usage: str
    battery_wh: float | None
    text: Path | None
    shape: tuple[str, ...]
    inferences: int

    @property
    def results(self) -> int:
        """How many results there will be, at most."""
        shapes = len(self.prompt_tokens) * len(self.depth) * len(self.parallel)
        return shapes * (2 if self.sustained else 1)

    def workloads(self) -> tuple[list[Workload], str | None]:
        """The configurations, and the text that their prompts are cut from; InputError."""
        source, text = read_prompt(self.prompt) if self.prompt else (None, None)
        base = Workload(
            prompt=source,
            generated_tokens=self.generated_tokens,
            threads=self.threads or default_threads(),
            runs=self.runs,
            repetitions=self.repetitions,
        )
        asked = grid(
            base, prompt_tokens=self.prompt_tokens, depth=self.depth, parallel=self.parallel
        )
        return asked, text

    def energy(self) -> EnergyOptions | None:
        """Which meters are read and for how long; None: no energy."""
        if NO_METER in self.meters:
            return None
        return EnergyOptions(meters=self.meters, seconds=self.energy_seconds)

    def lasting(self) -> SustainedOptions | None:
        """When a rate counts as steady; None: no sustained result."""
        return SustainedOptions() if self.sustained else None


_OPTIONS = [
    numbers_option("--prompt-tokens", 1, 1_000_000, "128", "Length of the prompt."),
    click.option(
        "--generated-tokens", type=click.IntRange(2, 1_000_000), default=64, show_default=True
    ),
    numbers_option(
        "--depth", 0, 1_000_000, "0", "Tokens already in the context when the clock starts."
    ),
    numbers_option("--parallel", 1, 256, "1", "Sequences decoded side by side."),
    click.option(
        "--prompt", type=click.Path(path_type=Path, dir_okay=False),
        help="UTF-8 text that the prompts are cut from.  [default: random tokens]",
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), show_default="the physical cores it may use"
    ),
    click.option(
        "--runs", type=click.IntRange(1, 1000), default=3, show_default=True,
        help="Child processes, at least.",
    ),
    click.option(
        "--most-runs", type=click.IntRange(1, 1000), default=10, show_default=True,
        help="Runs are added up to here until decoding repeats within 2 %.",
    ),
    click.option(
        "--repetitions", type=click.IntRange(1, 10_000), default=3, show_default=True,
        help="Timed rounds in each run, at least.",
    ),
    click.option(
        "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=TIMEOUT_S,
        show_default=True, help="Seconds that one run may take.",
    ),
    click.option(
        "--meter", "meters", metavar="NAME[:ADDRESS]", multiple=True,
        help="Energy meter to read; may be repeated; `none` for no energy.  "
        "[default: all that work here]",
    ),
    click.option(
        "--energy-seconds", type=click.FloatRange(1, 86_400),
        help="Length of each phase of the energy run.  [default: what the meter needs]",
    ),
    click.option(
        "--sustained", is_flag=True,
        help="Then decode until the rate is steady: a result of its own, ten minutes or more.",
    ),
    click.option(
        "--emulate", is_flag=True,
        help="Run under the memory and cores of --device: does it fit, thrash, or die?",
    ),
    click.option(
        "--find-limit", is_flag=True,
        help="With --emulate: search for the smallest memory in which it fits.",
    ),
    click.option(
        "--usage", default=DEFAULT, show_default=True, metavar="NAME|FILE.toml",
        help="How the model is used, for the battery figures.",
    ),
    click.option(
        "--battery-wh", type=click.FloatRange(0.1, 10_000),
        help="Capacity of the battery.  [default: as this machine reports it]",
    ),
    click.option(
        "--text", type=click.Path(path_type=Path, dir_okay=False),
        help="Encoders: UTF-8 text whose lines are the inputs; those in GGUF need it.  "
        "[default: random values]",
    ),
    click.option(
        "--shape", metavar="NAME=N,N,...", multiple=True,
        help="Graphs: the shape of an input whose file leaves it open; may be repeated.",
    ),
    click.option(
        "--inferences", type=click.IntRange(1, 20_000), default=100, show_default=True,
        help="Graphs: timed inferences in each run, at least.",
    ),
]  # fmt: skip


def measure_options(function: Function) -> Function:
    """Add the options; the command gets them as keywords for `Asked`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
