"""The child process of a paired comparison: `python -m edgegauge.check.paired_worker`.

It loads the artifact, works through one untimed round, and then does what its parent says:

    -> {"ready": {"runtime": "llama.cpp 0.3.16"}}
    <- {"do": "decode", "seconds": 0.1}       or "prefill": the least time to spend
    -> {"spent": {"tokens": 126, "seconds": 0.107, "waited_s": 0.031}}

A command is a whole number of the workload's rounds: prompts, or generations after the prompt. What
comes before, and what restores the context within, is not in `seconds`.

`waited_s` is not either: what was lost while threads were ready to run and another program had the
processor, which Linux counts for each of them (the second number of /proc/PID/task/TID/schedstat).
It says what else runs here and little of this runtime. Time in which the runtime sleeps or waits
for a lock or a file stays. Threads that meet after every few microseconds get on while none of them
waits; they are taken to wait independently of each other, so that with shares of a half and a
third, a third of the time is left. Outside Linux nothing is known, and the time is the clock's.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from contextlib import suppress

from edgegauge.measure.child import Message, Send, commands, serve
from edgegauge.measure.steady_load import Load, opened
from edgegauge.measure.worker import runtime_of

NANO = 1_000_000_000
TASKS = "/proc/self/task"
ENDED = (FileNotFoundError, ProcessLookupError)
"""What reading of a thread that has just ended raises."""
MOST_LOOKS = 20

Waited = dict[str, int]
"""Nanoseconds, of each thread."""


def work(job: Message, send: Send) -> None:
    """Load the artifact of a job of `worker`, then serve the parent."""
    send({"phase": "load"})
    with opened(job) as model:
        send({"phase": "warm_up"})
        model.warm_up()
        runtime = runtime_of(job)
        send({"ready": {"runtime": f"{runtime.name} {runtime.version()}"}})
        units = {"prefill": 1, "decode": job["workload"]["generated_tokens"] - 1}
        gc.collect()
        gc.disable()  # nothing below makes cycles
        for command in commands():
            name, asked_ns = command["do"], round(command["seconds"] * NANO)
            send({"phase": name})
            send({"spent": _spent(model.loads[name], units[name], asked_ns)})


def _spent(load: Load, units: int, asked_ns: int) -> Message:
    """Rounds of so many units each, until their own time is at least what was asked."""
    load.begin()
    tokens, took_ns, own_ns = 0, 0, 0.0
    again_ns = load.again_ns
    started, waited = _now()
    while own_ns < asked_ns:
        for _ in range(units):
            tokens += load.unit()
        now, waited_by_now = _now()
        took_ns = now - started - (load.again_ns - again_ns)
        own_ns = took_ns * running(waited, waited_by_now, now - started)
    return {"tokens": tokens, "seconds": own_ns / NANO, "waited_s": (took_ns - own_ns) / NANO}


def running(before: Waited, after: Waited, ns: int) -> float:
    """The share of so many ns in which no thread waited, if they wait independently."""
    return math.prod(max(0.0, 1 - (after[task] - before.get(task, 0)) / ns) for task in after)


def _now() -> tuple[int, Waited]:
    """The clock, and what was waited until that very moment: not between two looks at them."""
    waited = waited_ns()
    for _ in range(MOST_LOOKS):
        now, before = time.monotonic_ns(), waited
        waited = waited_ns()
        if waited == before:
            break
    return now, waited


def waited_ns() -> Waited:
    """How long each thread of this process waited for a processor so far, where that is known."""
    waited = {}
    with suppress(OSError):  # no Linux
        for task in os.listdir(TASKS):
            with suppress(*ENDED), open(f"{TASKS}/{task}/schedstat") as stat:
                waited[task] = int(stat.read().split()[1])
    return waited


if __name__ == "__main__":
    sys.exit(serve(work))
