"""The child process of a measurement: `python -m edgegauge.measure.worker`, job on stdin.

One child runs one artifact: import, load, one untimed round of the measured shape, then the timed
rounds. It sends these messages (see `measure.child`) and is free to crash:

    {"phase": "import"}, {"phase": "load"}, ...       what it is about to do
    {"run": {"load_s": ..., "rounds": [...], "phases": {...}, ...}}

A round is: fill the context to the depth (untimed), prefill the prompt, choose the first token,
then one step and one choice per further token, each stamped. With several sequences side by side,
each has its own prompt, and a step is one of all of them. Memory is read during the untimed round
and after the last timed one, never inside a timed window.
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

from edgegauge.errors import InputError
from edgegauge.measure.child import Message, Send, serve
from edgegauge.measure.memory import Phases
from edgegauge.measure.runtimes import ParallelSession, Runtime, Session

PROTOCOL = 2
LEAST_TIMED_S = 0.5
"""A run is timed for at least this long, if need be by more rounds than asked for."""
MOST_EXTRA_ROUNDS = 50

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


def job(
    runtime: Runtime, path: Path, workload: dict[str, Any], prompt_text: str | None = None
) -> Message:
    """The job document: the runtime by its import path, the artifact, a `Workload` as JSON.

    `prompt_text` is what prompts are cut from; None: random tokens.
    """
    kind = type(runtime)
    return {
        "protocol": PROTOCOL,
        "runtime": f"{kind.__module__}:{kind.__qualname__}",
        "path": str(path),
        "workload": workload,
        "prompt_text": prompt_text,
    }


def work(job: Message, send: Send) -> None:
    """Do one job of `job()` and send what it found."""
    runtime, shape = runtime_of(job), job["workload"]
    phases = Phases()

    begin(phases, send, "import")
    runtime.prepare()
    phases.end()

    begin(phases, send, "load")
    started = time.perf_counter_ns()
    session = open_session(runtime, job)
    load_s = seconds(time.perf_counter_ns() - started)
    phases.end()
    with closing(session):
        rounds = Rounds(session, shape, prompts_of(session, job))
        rounds.warm_up(phases, send)
        before = usage()
        timed = rounds.all_timed(shape["repetitions"])
        used = {key: usage()[key] - value for key, value in before.items()}
        phases.end()
        run = {
            "load_s": load_s,
            "rounds": timed,
            "phases": phases.found,
            "peak_rss_bytes": phases.peak_rss_bytes,
            **used,
            "runtime_facts": session.facts(),
        }
    send({"run": run})


def runtime_of(job: Message) -> Runtime:
    """The runtime that a job names; ValueError for a job of another version of edgegauge."""
    if job["protocol"] != PROTOCOL:
        raise ValueError(f"this worker speaks protocol {PROTOCOL}, not {job['protocol']}")
    module, _, name = job["runtime"].partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), name)()
    return runtime


def open_session(runtime: Runtime, job: Message) -> Session:
    """A session with room for the job's workload in every sequence."""
    shape = job["workload"]
    parallel = shape["parallel"]
    context = shape["depth"] + shape["prompt_tokens"] + shape["generated_tokens"]
    # A runtime need not know of sequences to be measured with one.
    sequences = {"sequences": parallel} if parallel > 1 else {}
    path = Path(job["path"])
    return runtime.open(path, threads=shape["threads"], context=parallel * context, **sequences)


def prompts_of(session: Session, job: Message) -> list[list[int]]:
    """For each sequence the `depth` + `prompt_tokens` tokens that it is fed.

    Random ones, or consecutive pieces of the job's text; InputError where that is too short.
    """
    shape = job["workload"]
    each = shape["depth"] + shape["prompt_tokens"]
    count = shape["parallel"] * each
    if job["prompt_text"] is None:
        # Python's generator gives the same numbers in every version; weights do not care which.
        choose = random.Random(shape["seed"])
        tokens = [choose.randrange(session.vocab) for _ in range(count)]
    else:
        tokens = session.tokenize(job["prompt_text"])
        if len(tokens) < count:
            raise InputError(
                f"the prompt has {len(tokens)} tokens for this model, but {count} are needed "
                f"({shape['depth']} of depth and {shape['prompt_tokens']} of prompt, for each of "
                f"{shape['parallel']} sequences)",
                hint="use a longer text, or a smaller --prompt-tokens, --depth or --parallel",
            )
    return [tokens[start : start + each] for start in range(0, count, each)]


def begin(phases: Phases, send: Send, name: str) -> None:
    """Tell the parent of a phase and watch its memory from now."""
    send({"phase": name})
    phases.begin(name)


class Rounds:
    """Rounds of one shape on one session; the same tokens every time."""

    def __init__(self, session: Session, shape: dict[str, Any], prompts: list[list[int]]) -> None:
        self._session = session
        depth = shape["depth"]
        self._fill: Any = [tokens[:depth] for tokens in prompts]
        self._prompt: Any = [tokens[depth:] for tokens in prompts]
        if shape["parallel"] == 1:
            (self._fill,), (self._prompt,) = self._fill, self._prompt
            self._feed, self._step, self._choose = session.prefill, session.step, session.argmax
        elif isinstance(session, ParallelSession):
            self._feed = session.prefill_many  # type: ignore[assignment]
            self._step = session.step_many  # type: ignore[assignment]
            self._choose = session.argmax_many  # type: ignore[assignment]
        else:
            raise InputError("this runtime decodes one sequence at a time", hint="--parallel 1")
        self._depth = depth
        self._steps = shape["generated_tokens"] - 1
        self._stamps = [0] * self._steps

    def warm_up(self, phases: Phases, send: Send) -> None:
        """One whole untimed round, which is also where memory is watched.

        The phase `decode` is left open, so that its peak covers the timed rounds too.
        """
        begin(phases, send, "prefill")
        self._start()
        self._feed(self._prompt)
        phases.end()
        begin(phases, send, "decode")
        self._decode(self._choose())

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
        clock = time.perf_counter_ns
        gc.collect()
        gc.disable()
        try:
            start_s = seconds(time.monotonic_ns())
            started = clock()
            self._feed(self._prompt)
            prefilled = clock()
            token = self._choose()
            first = clock()
            self._decode(token)
        finally:
            gc.enable()
        stamps = [first, *self._stamps]
        gaps = [after - before for before, after in pairwise(stamps)]
        return {
            "start_s": start_s,
            "prefill_s": seconds(prefilled - started),
            "ttft_s": seconds(first - started),
            "inter_token_s": [seconds(gap) for gap in gaps],
        }

    def _start(self) -> None:
        self._session.reset()
        if self._depth:
            self._feed(self._fill)

    def _decode(self, token: Any) -> None:
        """The timed loop: nothing but the step, the choice and the stamp.

        `token` is that of the one sequence, or a list with one of each.
        """
        step, choose = self._step, self._choose
        clock, stamps = time.perf_counter_ns, self._stamps
        for i in range(self._steps):
            step(token)
            token = choose()
            stamps[i] = clock()


def seconds(nanoseconds: int) -> float:
    """Nanoseconds of a clock as seconds."""
    return nanoseconds / 1e9


def usage() -> dict[str, int]:
    """Page faults that went to storage, and times the scheduler took the CPU away, so far."""
    if resource is None:
        return {}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"major_faults": used.ru_majflt, "involuntary_switches": used.ru_nivcsw}


if __name__ == "__main__":
    sys.exit(serve(work))
