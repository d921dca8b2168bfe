"""The child process of an energy or sustained run: `python -m edgegauge.measure.block_worker`.

It loads the artifact, works through one untimed round, and then does what its parent says, one
command a line, for so many seconds of the monotonic clock:

    -> {"ready": {"round_s": 1.05}}                     what that round took
    <- {"do": "idle", "seconds": 60, "lead_s": 2}       the model stays loaded, nothing is computed
    <- {"do": "decode", "seconds": 60, "lead_s": 2}     ... "prefill" or "inference" likewise
    -> {"phase": "decode window"}                       it begins now: the meters may be read
    -> {"window": {"start_ns": ..., "end_ns": ..., "tokens": 5432, "again_s": 0.0}}
    <- {"do": "burst", "load": "decode", "seconds": 2, "times": 2}
    -> {"edges": [[start_ns, end_ns], ...]}             work, with as much rest around each
    <- {"do": "rounds", "seconds": 10}
    -> {"rounds": [...]}                                as in `worker`, at least one

The same work goes on for `lead_s` before a window, which so starts in its steady state. A window
starts and ends between two units (one token, one prompt, one inference) and lasts at least as long
as was asked. `again_s` of it went into restoring the context (see `steady_load`).
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

from edgegauge.measure.child import Message, Send, commands, serve
from edgegauge.measure.steady_load import Load, Loaded, opened

NANO = 1_000_000_000


def work(job: Message, send: Send) -> None:
    """Load the artifact of a job of `worker` or `graph_worker`, then serve the parent."""
    send({"phase": "load"})
    with opened(job) as model:
        send({"phase": "warm_up"})
        started = time.monotonic_ns()
        model.warm_up()
        send({"ready": {"round_s": (time.monotonic_ns() - started) / NANO}})
        for command in commands():
            gc.collect()
            gc.disable()  # the loops below make no cycles
            send(_answer(model, command, send))


def _answer(model: Loaded, command: Message, send: Send) -> Message:
    name, asked_ns = command["do"], round(command["seconds"] * NANO)
    if name == "rounds":
        return {"rounds": _rounds(model, asked_ns)}
    if name == "burst":
        return {"edges": _burst(model.loads[command["load"]], asked_ns, command["times"])}
    load = None if name == "idle" else model.loads[name]
    if load:
        load.begin()
    _keep_on(load, round(command["lead_s"] * NANO))
    send({"phase": f"{name} window"})
    again_ns = load.again_ns if load else 0
    start_ns, end_ns, tokens = _keep_on(load, asked_ns)
    again_s = (load.again_ns - again_ns) / NANO if load else 0.0
    window = {"start_ns": start_ns, "end_ns": end_ns, "tokens": tokens, "again_s": again_s}
    return {"window": window}


def _keep_on(load: Load | None, asked_ns: int) -> tuple[int, int, int]:
    """Units (rest, without a load) until the time is over: its beginning, end and tokens."""
    clock = time.monotonic_ns
    start_ns = end_ns = clock()
    if not load:
        time.sleep(asked_ns / NANO)
        return start_ns, clock(), 0
    tokens, unit = 0, load.unit
    while end_ns - start_ns < asked_ns:
        tokens += unit()
        end_ns = clock()
    return start_ns, end_ns, tokens


def _burst(load: Load, asked_ns: int, times: int) -> list[tuple[int, int]]:
    load.begin()
    edges = []
    time.sleep(asked_ns / NANO)
    for _ in range(times):
        start_ns, end_ns, _ = _keep_on(load, asked_ns)
        edges.append((start_ns, end_ns))
        time.sleep(asked_ns / NANO)
    return edges


def _rounds(model: Loaded, asked_ns: int) -> list[dict[str, Any]]:
    assert model.timed  # the parent asks for what the job has
    begun = time.monotonic_ns()
    rounds: list[dict[str, Any]] = []
    while not rounds or time.monotonic_ns() - begun < asked_ns:
        rounds.append(model.timed())
    return rounds


if __name__ == "__main__":
    sys.exit(serve(work))
