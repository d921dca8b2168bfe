"""The child process of a measurement: `python -m edgegauge.measure.worker`, job on stdin.

One child runs one artifact: import, load, one untimed round of the measured shape, then the timed
rounds. It sends these messages (see `measure.child`) and is free to crash:

    {"phase": "import"}, {"phase": "load"}, ...       what it is about to do
    {"run": {"load_s": ..., "rounds": [...], "phases": {...}, ...}}

A round is: fill the context to the depth (untimed), prefill the prompt, choose the first token,
then one step and one choice per further token, each stamped. Memory is read during the untimed
round and after the last timed one, never inside a timed window.
"""

from __future__ import annotations

import gc
import importlib
import math
import random
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgegauge.measure.child import Message, Send, serve
from edgegauge.measure.memory import Phases
from edgegauge.measure.runtimes import Runtime, Session

PROTOCOL = 1
LEAST_TIMED_S = 0.5
"""A run is timed for at least this long, if need be by more rounds than asked for."""
MOST_EXTRA_ROUNDS = 50

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


def job(runtime: Runtime, path: Path, workload: dict[str, Any]) -> Message:
    """The job document: the runtime by its import path, the artifact, and a `Workload` as JSON."""
    kind = type(runtime)
    return {
        "protocol": PROTOCOL,
        "runtime": f"{kind.__module__}:{kind.__qualname__}",
        "path": str(path),
        "workload": workload,
    }


def work(job: Message, send: Send) -> None:
    """Do one job of `job()` and send what it found."""
    if job["protocol"] != PROTOCOL:
        raise ValueError(f"this worker speaks protocol {PROTOCOL}, not {job['protocol']}")
    module, _, name = job["runtime"].partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), name)()
    shape = job["workload"]
    phases = Phases()

    _begin(phases, send, "import")
    runtime.prepare()
    phases.end()

    _begin(phases, send, "load")
    context = shape["depth"] + shape["prompt_tokens"] + shape["generated_tokens"]
    started = time.perf_counter_ns()
    session = runtime.open(Path(job["path"]), threads=shape["threads"], context=context)
    load_s = _seconds(time.perf_counter_ns() - started)
    phases.end()
    with closing(session):
        rounds = _Rounds(session, shape)
        rounds.warm_up(phases, send)
        before = _usage()
        timed = rounds.all_timed(shape["repetitions"])
        usage = {key: _usage()[key] - value for key, value in before.items()}
        phases.end()
        run = {
            "load_s": load_s,
            "rounds": timed,
            "phases": phases.found,
            "peak_rss_bytes": phases.peak_rss_bytes,
            **usage,
            "runtime_facts": session.facts(),
        }
    send({"run": run})


def _begin(phases: Phases, send: Send, name: str) -> None:
    send({"phase": name})
    phases.begin(name)


class _Rounds:
    """Rounds of one shape on one session; the same random tokens every time."""

    def __init__(self, session: Session, shape: dict[str, Any]) -> None:
        self._session = session
        # Python's generator gives the same numbers in every version; weights do not care which.
        choose = random.Random(shape["seed"])
        tokens = [
            choose.randrange(session.vocab) for _ in range(shape["depth"] + shape["prompt_tokens"])
        ]
        self._fill, self._prompt = tokens[: shape["depth"]], tokens[shape["depth"] :]
        self._steps = shape["generated_tokens"] - 1
        self._stamps = [0] * self._steps

    def warm_up(self, phases: Phases, send: Send) -> None:
        """One whole untimed round, which is also where memory is watched.

        The phase `decode` is left open, so that its peak covers the timed rounds too.
        """
        _begin(phases, send, "prefill")
        self._start()
        self._session.prefill(self._prompt)
        phases.end()
        _begin(phases, send, "decode")
        self._decode(self._session.argmax())

    def all_timed(self, repetitions: int) -> list[dict[str, Any]]:
        """At least `repetitions` rounds, and more of short ones, which scatter most."""
        timed: list[dict[str, Any]] = []
        spent_s = 0.0
        while len(timed) < repetitions or (
            spent_s < LEAST_TIMED_S and len(timed) < MOST_EXTRA_ROUNDS
        ):
            timed.append(self.timed())
            spent_s += timed[-1]["ttft_s"] + math.fsum(timed[-1]["inter_token_s"])
        return timed

    def timed(self) -> dict[str, Any]:
        """One round: seconds of prefill, to the first token, and of every gap after it."""
        self._start()
        session, clock = self._session, time.perf_counter_ns
        gc.collect()
        gc.disable()
        try:
            started = clock()
            session.prefill(self._prompt)
            prefilled = clock()
            token = session.argmax()
            first = clock()
            self._decode(token)
        finally:
            gc.enable()
        stamps = [first, *self._stamps]
        gaps = [after - before for before, after in pairwise(stamps)]
        return {
            "prefill_s": _seconds(prefilled - started),
            "ttft_s": _seconds(first - started),
            "inter_token_s": [_seconds(gap) for gap in gaps],
        }

    def _start(self) -> None:
        self._session.reset()
        if self._fill:
            self._session.prefill(self._fill)

    def _decode(self, token: int) -> None:
        """The timed loop: nothing but the step, the choice and the stamp."""
        step, choose = self._session.step, self._session.argmax
        clock, stamps = time.perf_counter_ns, self._stamps
        for i in range(self._steps):
            step(token)
            token = choose()
            stamps[i] = clock()


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / 1e9


def _usage() -> dict[str, int]:
    """Page faults that went to storage, and times the scheduler took the CPU away, so far."""
    if resource is None:
        return {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"major_faults": usage.ru_majflt, "involuntary_switches": usage.ru_nivcsw}


if __name__ == "__main__":
    sys.exit(serve(work))
