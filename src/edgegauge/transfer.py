"""Transfer: what somebody measured on this very device moves its class's prior to where it belongs.

Two sources, in this order:

- the published measurements that `priors.toml` was fitted to: for each measured device it holds by
  how much its bandwidth and its rates differ from its class;
- the rate at which a profile's source saw a language model decode (`llm_decode_gb_per_s`), which
  scales bandwidth and arithmetic alike, and leaves the prefill rate.

A measured device is this one where the chip's name occurs in the profile's `soc` and the
theoretical bandwidths, where both are known, agree.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgegauge.device import DeviceProfile
from edgegauge.speed import ClassSpeed, Machine, Scale, class_speed, memory_rate, priors
from edgegauge.units import GB
from edgegauge.work import Work

SAME_BANDWIDTH = 0.05
"""Relative difference up to which two theoretical bandwidths count as the same memory."""

USUAL = Work(
    weight_bytes=1_000_000_000, weights={"Q4_K": 1_280_000_000, "Q6_K": 320_000_000},
    body={}, body_bytes=0, layers=28, window=0, kv_bytes_per_token=0, local_kv_bytes_per_token=0,
    attention_per_token=0, local_attention_per_token=0,
)  # fmt: skip
"""A file of 1 GB at 5 bits per weight: the usual kind behind a stated decode rate."""


def transferred(profile: DeviceProfile, machine: Machine, runtime: str) -> ClassSpeed | None:
    """The prior moved by what was measured on this device, or None where nothing was."""
    entry = _published(profile)
    if entry is not None:
        # The factors belong to the facts that they were fitted with.
        rate = memory_rate(
            entry.get("read_gb_per_s"), entry.get("read_gb_per_s_by_threads", {}), machine.threads
        )
        scale = Scale(
            bandwidth=entry["bandwidth"], decode=entry["decode"], prefill=entry["prefill"]
        )
        theirs = replace(
            machine, read_gb_per_s=rate,
            one_thread_gb_per_s=entry.get("read_1_thread_gb_per_s"),
            theoretical_gb_per_s=entry.get("bandwidth_gb_per_s"),
        )  # fmt: skip
        moved = class_speed(theirs, runtime, scale)
        how = f"scaled to {entry['evidence']} of {entry['name']}"
        return _with_intervals(moved, machine, runtime, how, prefill=entry["has_prefill"])
    stated = profile.memory.llm_decode_gb_per_s
    if stated is None:
        return None
    usual_s = class_speed(machine).decode_s(USUAL, 0)
    ratio = stated.value * GB * usual_s / USUAL.weight_bytes
    moved = class_speed(machine, runtime, Scale(bandwidth=ratio, decode=ratio))
    how = "scaled to the decode rate seen on it"
    return _with_intervals(moved, machine, runtime, how, prefill=False)


def _published(profile: DeviceProfile) -> dict[str, Any] | None:
    """This device among the measured ones. A read rate measured here counts for more than rows of
    a device where nobody measured one."""
    soc = profile.cpu.soc.casefold()
    mine, read = profile.memory.bandwidth_gb_per_s, profile.memory.read_gb_per_s
    devices: list[dict[str, Any]] = list(priors()["device"].values())
    for entry in devices:
        theirs = entry.get("bandwidth_gb_per_s")
        other_memory = (
            mine is not None
            and theirs is not None
            and abs(mine.value / theirs - 1) > SAME_BANDWIDTH
        )
        better_known = read is not None and "read_gb_per_s" not in entry
        if _names(entry["soc"], soc) and not other_memory and not better_known:
            return entry
    return None


def _names(chip: str, soc: str) -> bool:
    """Whether `soc` has the words of this chip's name in a row, and no word after them that makes
    it another chip: an M2 Max is no M2."""
    words = soc.replace("(", " ").replace(")", " ").replace(",", " ").split()
    wanted = chip.casefold().split()
    size = len(wanted)
    at = [i for i in range(len(words) - size + 1) if words[i : i + size] == wanted]
    return any(not set(words[i + size : i + size + 1]) & {"max", "pro", "ultra"} for i in at)


def _with_intervals(
    moved: ClassSpeed, machine: Machine, runtime: str, how: str, *, prefill: bool
) -> ClassSpeed:
    """Intervals and source of the transfer in place of the prior's. Another runtime's own
    uncertainty stays."""
    found = priors()["class"][machine.name]
    source = f"{moved.source}; {how}"
    if runtime != "llama.cpp":
        return replace(moved, source=source)
    low, high = found["measured_decode_interval"]
    moved = replace(moved, decode_interval=(low, high), source=source)
    if prefill:
        low, high = found["measured_prefill_interval"]
        moved = replace(moved, prefill_interval=(low, high))
    return moved
