"""`edgegauge devices`: the shipped profiles, a profile in full, checking files, this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgegauge.cli.calibrate import command as calibrate
from edgegauge.cli.calibrate_meter import command as calibrate_meter
from edgegauge.cli.output import (
    emit_json,
    json_option,
    stderr,
    stdout,
    table,
    text_of,
)
from edgegauge.device import (
    Bandwidth,
    DeviceKind,
    DeviceProfile,
    InferencePower,
    MeasuredRow,
    Sourced,
    as_document,
    known_ids,
    load,
)
from edgegauge.document import read_toml
from edgegauge.errors import EXIT_DONE, EXIT_ERROR, InputError
from edgegauge.figure import Figure, Unit
from edgegauge.units import GB, MB

FORMAT = 1
"""Version of the --json documents of this command."""


@click.group(commands=[calibrate, calibrate_meter])
def command() -> None:
    """Device profiles: list and show them, describe this machine, check a file."""


@command.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(get_args(DeviceKind)),
    help="Only this kind of device; may be repeated.",
)  # fmt: skip
@json_option
def list_command(words: tuple[str, ...], kinds: tuple[str, ...], as_json: bool) -> None:
    """List the device profiles that come with edgegauge.

    With WORDs, those that have every one of them in id, name or chip.
    """
    profiles = [load(device) for device in known_ids()]
    found = [p for p in profiles if (not kinds or p.kind in kinds) and _has(p, words)]
    if not found:
        raise InputError(
            f"none of {len(profiles)} device profiles is {' '.join((*kinds, *words))}",
            hint="edgegauge devices list without arguments shows all",
        )
    if as_json:
        emit_json({"format": FORMAT, "devices": [_summary(p) for p in found]})
    else:
        _print_list(found)


def _has(profile: DeviceProfile, words: tuple[str, ...]) -> bool:
    text = f"{profile.id} {profile.name} {profile.cpu.soc}".lower()
    return all(word.lower() in text for word in words)


def _print_list(profiles: list[DeviceProfile]) -> None:
    """One line per profile under its kind. The id says what the name would; 80 columns hold it."""
    columns = ("RAM GB", "apps GB", "GB/s", "cores", "Wh")
    listing = table("id", *columns, right=columns)
    for kind in get_args(DeviceKind):
        group = sorted((p for p in profiles if p.kind == kind), key=_in_order)
        if group:
            listing.add_row(Text(kind, style="bold"))
        for p in group:
            listing.add_row(
                f"  {p.id}",
                _number(p.memory.ram_gb),
                _number(p.memory.app_gb),
                _number(p.memory.bandwidth_gb_per_s),
                str(p.cores),
                _number(p.battery.capacity_wh if p.battery else None),
            )
    stdout().print(listing)
    stderr().print(
        "\nGB is 10^9 bytes; GB/s is theoretical; - is not known or not there. Sources: "
        "edgegauge devices show ID",
        soft_wrap=True,
    )


def _in_order(profile: DeviceProfile) -> list[tuple[int, str]]:
    """Sorts 8gb before 16gb."""
    parts = re.findall(r"\d+|\D+", profile.id)
    return [(int(p), "") if p.isdigit() else (0, p) for p in parts]


def _number(sourced: Sourced | None) -> str:
    return f"{sourced.value:.3g}" if sourced else "-"


def _figures(profile: DeviceProfile) -> dict[str, Figure | None]:
    memory, battery = profile.memory, profile.battery
    return {
        "ram_bytes": _figure(memory.ram_gb, "bytes", GB),
        "app_bytes": _figure(memory.app_gb, "bytes", GB),
        "bandwidth_bytes_per_s": _figure(memory.bandwidth_gb_per_s, "B/s", GB),
        "battery_wh": _figure(battery.capacity_wh if battery else None, "Wh", 1),
    }


def _summary(profile: DeviceProfile) -> dict[str, Any]:
    """A device in `devices list --json`: identity, and its main quantities as figures."""
    figures = {k: f.to_json() if f else None for k, f in _figures(profile).items()}
    return {
        "id": profile.id,
        "name": profile.name,
        "kind": profile.kind,
        "os": profile.os,
        "core_class": profile.cpu.core_class,
        "cores": profile.cores,
        "fast_cores": profile.cpu.fast_cores,
        **figures,
    }


def _figure(sourced: Sourced | None, unit: Unit, scale: float) -> Figure | None:
    if sourced is None:
        return None
    return Figure(sourced.value * scale, unit, "stated", _source(sourced))


def _source(sourced: Sourced) -> str:
    """The source, after the arithmetic where the profile has its parts."""
    if isinstance(sourced, Bandwidth) and sourced.mt_per_s:
        return f"{sourced.mt_per_s:g} MT/s x {sourced.bus_bits} bit / 8; {sourced.source}"
    return sourced.source


@command.command("show")
@click.argument("device", metavar="ID_OR_PATH")
@json_option
def show_command(device: str, as_json: bool) -> None:
    """Show a profile in full, every figure with its source."""
    profile = load(device)
    if as_json:
        emit_json(as_document(profile))
    else:
        print_profile(profile)


def print_profile(profile: DeviceProfile) -> None:
    """A profile as text: name, then sections of label, value and source."""
    console = stdout()
    year = f", {profile.year}" if profile.year else ""
    console.print(Text(profile.name, style="bold"), soft_wrap=True)
    console.print(f"{profile.id}  ({profile.kind}, {profile.os}{year})", soft_wrap=True)
    for title, rows in _sections(profile):
        if rows:
            console.print(Text(f"\n{title}", style="bold"))
            console.print(Padding(_rows(rows), (0, 0, 0, 2)))
    if profile.notes:
        console.print(Text("\nnotes", style="bold"))
        console.print(Padding(Text(profile.notes), (0, 0, 0, 2)))


Row = tuple[str, str, str]
"""Label, value, source."""


def _rows(rows: list[Row]) -> Table:
    """Rows in aligned columns, the source wrapped in what is left of the line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=16)
    grid.add_column(width=28, overflow="fold")
    grid.add_column(style="dim", overflow="fold")
    for label, value, source in rows:
        grid.add_row(Text(label), Text(value), Text(source))
    return grid


def _sections(profile: DeviceProfile) -> list[tuple[str, list[Row]]]:
    return [
        ("processor", _cpu_rows(profile)),
        ("memory", _memory_rows(profile)),
        ("power", _power_rows(profile)),
        ("measured", _measured_rows(profile)),
        ("calibrated", _calibration_rows(profile)),
    ]


def _measured_rows(profile: DeviceProfile) -> list[Row]:
    return [(row.recipe, _speeds(row), row.source) for row in profile.measured or []]


def _speeds(row: MeasuredRow) -> str:
    rates = (("decode", row.decode_tok_per_s), ("prefill", row.prefill_tok_per_s))
    told = [f"{name} {rate:g} tok/s" for name, rate in rates if rate]
    return "\n".join([row.model, f"{row.runtime}, {row.threads} threads", *told])


def _calibration_rows(profile: DeviceProfile) -> list[Row]:
    rows: list[Row] = []
    for name, found in (profile.calibration or {}).items():
        rows.append((name, f"{found.runtime_version}, threads: {found.threads}", found.source))
        if found.power:
            rows += _inference_rows(found.power)
    return rows


def _cpu_rows(profile: DeviceProfile) -> list[Row]:
    cpu = profile.cpu
    clocks = [f" at {c.ghz:g} GHz" if c.ghz else "" for c in cpu.clusters]
    cores = [f"{c.count} x {c.core}{clock}" for c, clock in zip(cpu.clusters, clocks, strict=True)]
    caches = [
        f"{name} {size:g} MiB"
        for name, size in (("L2", cpu.l2_cache_mb), ("L3", cpu.l3_cache_mb))
        if size
    ]
    rows = [
        ("chip", cpu.soc, cpu.source),
        ("cores", "\n".join(cores), ""),
        ("class", cpu.core_class, ""),
        ("features", " ".join(cpu.features), ""),
        ("caches", ", ".join(caches), ""),
    ]
    return [r for r in rows if r[1]]


def _memory_rows(profile: DeviceProfile) -> list[Row]:
    memory = profile.memory
    rows = _figure_rows(
        ("RAM", memory.ram_gb, "bytes", GB),
        ("for applications", memory.app_gb, "bytes", GB),
        ("bandwidth", memory.bandwidth_gb_per_s, "B/s", GB),
        ("read, 1 thread", memory.read_1_thread_gb_per_s, "B/s", GB),
        ("read, all cores", memory.read_gb_per_s, "B/s", GB),
    )
    by_threads = memory.read_gb_per_s_by_threads or {}
    if len(by_threads) > 1:
        rates = [f"{n}: {by_threads[n]:g}" for n in sorted(by_threads, key=int)]
        rows.append(("read by threads", ", ".join(rates) + " GB/s", "as all cores"))
    return rows + _figure_rows(
        ("model decoding", memory.llm_decode_gb_per_s, "B/s", GB),
        ("storage, read", profile.storage_read_mb_per_s, "B/s", MB),
    )


def _power_rows(profile: DeviceProfile) -> list[Row]:
    rows: list[Row] = []
    if profile.battery:
        battery = profile.battery
        rows = _figure_rows(("battery", battery.capacity_wh, "Wh", 1))
        rows.append(("", f"health {battery.health:.0%}, usable {battery.usable:.0%}", ""))
    if profile.power:
        power = profile.power
        rows += _figure_rows(
            ("idle", power.idle_w, "W", 1),
            ("decoding a model", power.inference_w, "W", 1),
            ("all cores busy", power.load_w, "W", 1),
            ("sustained", power.sustained_w, "W", 1),
        )
        rows.append(("covers", "", power.covers))
        if power.inference:
            rows += _inference_rows(power.inference)
    return rows


def _inference_rows(parts: InferencePower) -> list[Row]:
    """What running a model draws, part by part."""
    rows = [("with a model", f"{parts.idle_w:.3g} W idle", parts.source)]
    rows.append(("", f"{parts.decode_w_per_thread:.3g} W per decoding thread", ""))
    if parts.prefill_w_per_thread is not None:
        rows.append(("", f"{parts.prefill_w_per_thread:.3g} W per reading thread", ""))
    if parts.decode_nj_per_byte is not None:
        rows.append(("", f"{parts.decode_nj_per_byte:.3g} nJ per byte", ""))
    return [*rows, ("", f"80 % within {parts.error:.0%}", parts.covers)]


def _figure_rows(*figures: tuple[str, Sourced | None, Unit, float]) -> list[Row]:
    """Rows of the figures that the profile has."""
    return [
        (label, text_of(_figure(sourced, unit, scale)), _source(sourced))
        for label, sourced, unit, scale in figures
        if sourced is not None
    ]


@command.command("validate")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@json_option
def validate_command(files: tuple[Path, ...], as_json: bool) -> int:
    """Check profile files and report every problem.

    The exit status is 1 if any file has one.
    """
    checked = [(path, *_check(path)) for path in files]
    if as_json:
        listed = [
            {"file": str(path), "id": name, "valid": not problems, "problems": problems}
            for path, name, problems in checked
        ]
        emit_json({"format": FORMAT, "files": listed})
    else:
        for path, name, problems in checked:
            if problems:
                stderr().print("\n".join(problems), markup=False, soft_wrap=True)
            else:
                stdout().print(f"ok: {path} ({name})", markup=False, soft_wrap=True)
    return EXIT_ERROR if any(problems for _, _, problems in checked) else EXIT_DONE


def _check(path: Path) -> tuple[str | None, list[str]]:
    """(id, problems) of a profile file; id None where it has problems."""
    from edgegauge.measured_row import row_problems

    try:
        profile = read_toml(path, DeviceProfile)
        problems = row_problems(profile)
        return (None if problems else profile.id), problems
    except InputError as error:
        return None, error.problems or [str(error)]


@command.command("detect")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml",
    help="Also write the profile to this file.",
)  # fmt: skip
@click.option("--bandwidth/--no-bandwidth", default=True, help="Measure read bandwidth (seconds).")
@json_option
def detect_command(output: Path | None, bandwidth: bool, as_json: bool) -> None:
    """Describe this machine as a profile, its read bandwidth measured."""
    from edgegauge.detect import detect, write_profile
    from edgegauge.host.bandwidth import measure_read

    if output is not None and output.suffix != ".toml":
        raise click.UsageError(f"the name of a profile ends in .toml, got {output}")
    found = detect(measure=measure_read if bandwidth else None, progress=_say_what_is_read)
    for note in found.notes:
        stderr().print(f"note: {note}", markup=False, soft_wrap=True)
    if output is not None:
        write_profile(output, found.profile)
        stderr().print(f"written: {output}", markup=False, soft_wrap=True)
    if as_json:
        profile = as_document(found.profile)
        emit_json(
            {"format": FORMAT, "profile": profile, "facts": found.facts(), "notes": found.notes}
        )
    else:
        print_profile(found.profile.model_copy(update={"notes": None}))


def _say_what_is_read(done: int, threads: int) -> None:
    """A plain line before each measurement: a moving bar would take time from what it shows."""
    counted = "1 thread" if threads == 1 else f"{threads} threads"
    stderr().print(f"reading memory with {counted}", soft_wrap=True)
