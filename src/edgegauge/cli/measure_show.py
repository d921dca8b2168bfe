"""Results of `edgegauge measure` as people read them: one in full, several as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from edgegauge.cli.output import stdout, table, text_of
from edgegauge.device import DeviceProfile
from edgegauge.emulate.judge import NO_ENERGY
from edgegauge.energy import Energy, best_of
from edgegauge.figure import Figure
from edgegauge.measure.summary import ENERGY_REASON
from edgegauge.result import Percentiles, Result, Sustained, Workload
from edgegauge.units import format_bytes

PER_CHARGE = {
    "tokens_per_charge": "tokens per charge",
    "conversations_per_charge": "conversations per charge",
    "added_drain_percent_per_hour": "added drain per hour of use",
    "continuous_h": "decoding without pause",
}


def show(results: Sequence[Result], profile: DeviceProfile | None) -> None:
    """Print one result in full, or several as a table, each with what it says of energy."""
    if not results:
        return
    console = stdout()
    if len(results) == 1:
        _one(console, results[0])
    else:
        _several(console, results)
    lines = [
        line
        for result in results
        for line in _energy(result, f" at {_shape(result)}" if len(results) > 1 else "")
    ]
    for line in lines if any(result.energy for result in results) else lines[:1]:
        console.print(line, markup=False, soft_wrap=True)
    if profile:
        _against(console, results, profile)


def _one(console: Console, result: Result) -> None:
    load, summary = result.workload, result.summary
    console.print(
        f"{_where(result)}; {load.prompt_tokens} prompt and {load.generated_tokens} generated "
        f"tokens at depth {load.depth}{_many(result)}",
        markup=False,
    )
    rows = table(
        "", "median", "interval", "p90", "p99", "max", right=("median", "p90", "p99", "max")
    )
    rows.add_row("prefill", *cells(summary.prefill_tok_per_s))
    rows.add_row("decode", *cells(summary.decode_tok_per_s))
    rows.add_row("time to first token", *percentiles(summary.ttft_s))
    rows.add_row("between tokens", *percentiles(summary.inter_token_s))
    rows.add_row("time per output token", *percentiles(summary.tpot_s))
    rows.add_row("load", *cells(summary.load_s))
    rows.add_row("peak memory", *cells(summary.memory.peak_rss_bytes))
    rows.add_row("  of it anonymous", *cells(summary.memory.peak_anonymous_bytes))
    rows.add_row("  before the model", *cells(_baseline(result)))
    console.print(rows)


def _several(console: Console, results: Sequence[Result]) -> None:
    console.print(
        f"{_where(results[0])}; {results[0].workload.generated_tokens} generated tokens",
        markup=False,
    )
    columns = (
        "prompt", "depth", "parallel", "prefill", "decode", "first token", "worst", "gap", "p99",
        "per token", "memory",
    )  # fmt: skip
    rows = table(*columns, right=columns)
    for result in results:
        load, summary = result.workload, result.summary
        first, gap = summary.ttft_s, summary.inter_token_s
        rows.add_row(
            f"{load.prompt_tokens}{' sustained' if load.mode == 'sustained' else ''}",
            str(load.depth), str(load.parallel),
            text_of(summary.prefill_tok_per_s), text_of(summary.decode_tok_per_s),
            _median(first), text_of(first.tail if first else None),
            _median(gap), text_of(gap.p99 if gap else None), _median(summary.tpot_s),
            text_of(summary.memory.peak_rss_bytes),
        )  # fmt: skip
    console.print(rows)
    if len({result.workload.parallel for result in results}) > 1:
        _throughput(console, results)
    for result in results:
        if result.summary.sustained:
            console.print(_lasting(result.summary.sustained, _shape(result)), soft_wrap=True)


def _lasting(found: Sustained, shape: str) -> str:
    steady = "not steady in time"
    if found.time_to_plateau_s is not None:
        drop = f", {text_of(found.drop_percent)} less" if found.drop_percent else ""
        steady = f"{text_of(found.plateau_tok_per_s)} after {found.time_to_plateau_s:.0f} s{drop}"
    heat = (
        "" if found.peak_temperature_c is None else f", at most {found.peak_temperature_c:.0f} °C"
    )
    throttled = ", throttled" if found.throttled else ""
    return f"{shape}: first {text_of(found.burst_tok_per_s)}, then {steady}{heat}{throttled}"


def _throughput(console: Console, results: Sequence[Result]) -> None:
    """What each more sequence adds to the whole, and costs each of them."""
    columns = ("sequences", "all together", "each", "gap", "p99")
    rows = table("", *columns, right=columns, title="throughput and latency of decoding")
    bursts = [result for result in results if result.workload.mode == "burst"]
    for result in sorted(bursts, key=lambda r: _axes(r.workload)):
        count, rate = result.workload.parallel, result.summary.decode_tok_per_s
        each = replace(rate, value=rate.value / count, low=None, high=None) if rate else None
        gap = result.summary.inter_token_s
        rows.add_row(
            f"{result.workload.prompt_tokens} at depth {result.workload.depth}", str(count),
            text_of(rate), text_of(each), _median(gap), text_of(gap.p99 if gap else None),
        )  # fmt: skip
    console.print()
    console.print(rows)


def _axes(load: Workload) -> tuple[int, int, int]:
    return load.prompt_tokens, load.depth, load.parallel


def _where(result: Result) -> str:
    facts, load = result.artifact, result.workload
    text = f"; prompts from {load.prompt.name}" if load.prompt else ""
    return (
        f"{facts.name} ({format_bytes(facts.file_bytes)}) on {result.host['cpu_model']}, "
        f"threads: {load.threads}{text}"
    )


def _many(result: Result) -> str:
    parallel = result.workload.parallel
    mode = ", sustained" if result.workload.mode == "sustained" else ""
    return mode + (f", {parallel} sequences side by side" if parallel > 1 else "")


def _shape(result: Result) -> str:
    load = result.workload
    return f"{load.prompt_tokens} tokens, depth {load.depth}{_many(result)}"


def _energy(result: Result, label: str) -> Iterator[str]:
    summary = result.summary
    if not result.energy:
        reason = summary.energy_reason
        # The reasons of all meters fill a screen; the file has them.
        if reason not in (ENERGY_REASON, NO_ENERGY):
            reason = "no meter could be read; `edgegauge doctor` says why"
        yield f"energy: - ({reason})"
    whole = [energy for energy in result.energy if energy.source.whole_device]
    of_charge = best_of(whole, lambda energy: energy.decode_j_per_token)
    for energy in result.energy:
        yield from source_lines(energy, label)
        if energy is of_charge:
            yield from _battery(result)


def _battery(result: Result) -> Iterator[str]:
    """What one charge gives; the usage that figures rest on is a line of its own below them."""
    usages: dict[str, None] = {}
    for key, name in PER_CHARGE.items():
        figure = (result.summary.battery or {}).get(key)
        if figure is None:
            continue
        how, note = figure.source.partition(";")[0], ""
        if key == "continuous_h":
            note = f" at {text_of(result.summary.decode_tok_per_s)}"
        elif ":" in how:
            usages[how] = None
        else:
            note = f" ({how})"
        yield f"  {name}: {text_of(figure, interval=True)}{note}"
    yield from (f"  used as {usage}" for usage in usages)


def source_lines(energy: Energy, label: str) -> Iterator[str]:
    """What one source measured."""
    facts = energy.source
    covers = ", ".join(facts.covers)
    yield f"energy{label}: {facts.id}, grade {facts.grade}, covers {covers}"
    if energy.decode_j_per_token is None and energy.j_per_inference is None:
        yield f"  - ({energy.reason})"
    for name, total, net in (
        ("inference", energy.j_per_inference, energy.net_j_per_inference),
        ("decode", energy.decode_j_per_token, energy.net_decode_j_per_token),
        ("prefill", energy.prefill_j_per_token, energy.net_prefill_j_per_token),
    ):
        if total is not None:
            yield f"  {name}: {text_of(total, interval=True)}, net of idle {text_of(net)}"
    if energy.idle_before_w or energy.idle_after_w:
        yield (
            f"  idle with the model loaded: {text_of(energy.idle_before_w)} before, "
            f"{text_of(energy.idle_after_w)} after"
        )


def _against(console: Console, results: Sequence[Result], profile: DeviceProfile) -> None:
    """The largest peak as a share of what an application may use on another device."""
    peaks = [r.summary.memory.peak_rss_bytes for r in results]
    known = [peak.value for peak in peaks if peak]
    if not known:
        return
    share = 100 * max(known) / profile.app_memory_bytes
    console.print(
        f"memory on {profile.id}: {share:.0f} % of the "
        f"{format_bytes(profile.app_memory_bytes)} one application may use there",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _baseline(result: Result) -> Figure | None:
    """Resident memory of the interpreter and the libraries alone."""
    phase = result.summary.memory.phases.get("import")
    if phase is None:
        return None
    return Figure(phase.rss_bytes, "bytes", "measured", "end of the phase import")


def cells(figure: Figure | None) -> tuple[str, str]:
    """A figure and its interval, for two columns."""
    return text_of(figure), _interval(figure)


def _interval(figure: Figure | None) -> str:
    whole = text_of(figure, interval=True)
    return whole[whole.index("[") :] if "[" in whole else ""


def _median(found: Percentiles | None) -> str:
    return text_of(found.p50 if found else None)


def percentiles(found: Percentiles | None) -> tuple[str, ...]:
    """Median, interval, 90th, 99th and largest, for five columns."""
    if found is None:
        return ()
    return (*cells(found.p50), text_of(found.p90), text_of(found.p99), text_of(found.max))
