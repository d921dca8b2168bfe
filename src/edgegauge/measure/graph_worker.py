"""The child of a graph's measurement: `python -m edgegauge.measure.graph_worker`, job on stdin.

Import, load, one untimed inference of every input, then timed inferences, one after the other.
Messages are those of `measure.worker`: the phases, then

    {"run": {"load_s": ..., "latencies_s": [...], "phases": {...}, ...}}

An inference is `session.run()` alone; inputs are set between the clocks, so that a text costs what
the graph takes for it and not what a copy does.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from edgegauge.measure.child import Message, Send, serve
from edgegauge.measure.graphs import GraphSession, graph_runtime_for
from edgegauge.measure.graphs.inputs import (
    random_inputs,
    text_inputs,
    texts_of,
    tokenizer_beside,
)
from edgegauge.measure.memory import Phases
from edgegauge.measure.worker import begin, seconds, usage

LEAST_TIMED_S = 1.0
"""A run is timed for at least this long, if need be by more inferences than asked for."""
MOST_INFERENCES = 20_000
"""Above this, no further pass is begun: more would tell nothing, and fill the result file."""
NANO = 1_000_000_000


def work(job: Message, send: Send) -> None:
    """Do one job of `graph_manager.job` and send what it found."""
    path, workload = Path(job["path"]), job["workload"]
    phases = Phases()
    begin(phases, send, "import")
    runtime = graph_runtime_for(job["format"])
    runtime.prepare()
    phases.end()

    begin(phases, send, "load")
    started = time.perf_counter_ns()
    session = runtime.open(path, threads=workload["threads"])
    load_s = seconds(time.perf_counter_ns() - started)
    phases.end()
    with closing(session):
        feeder = Feeder(session, job)
        begin(phases, send, "warm_up")
        feeder.run_all()
        phases.end()
        begin(phases, send, "inference")
        before = usage()
        latencies, tokens = timed(session, feeder, workload["inferences"])
        used = {key: usage()[key] - value for key, value in before.items()}
        phases.end()
        run = {
            "load_s": load_s,
            "latencies_s": latencies,
            "tokens": tokens,
            "phases": phases.found,
            "peak_rss_bytes": phases.peak_rss_bytes,
            "runtime_facts": facts_of(session),
            **used,
        }
    send({"run": run})


def facts_of(session: GraphSession) -> dict[str, Any]:
    """What the runtime says, and the inputs and outputs as the file declares them."""
    return {
        **session.facts(),
        "inputs": {spec.name: str(spec) for spec in session.inputs},
        "outputs": {spec.name: str(spec) for spec in session.outputs},
    }


def tokenize_of(session: GraphSession, path: Path) -> Callable[[str], list[int]]:
    """The file's own vocabulary where it has one, else the tokenizer beside it; InputError."""
    own: Callable[[str], list[int]] | None = getattr(session, "tokenize", None)
    if own is not None:
        return own
    tokenizer = tokenizer_beside(path)
    return lambda text: tokenizer.encode(text).ids


class Feeder:
    """The inputs of a job, fed one after the other; random ones are a single input."""

    def __init__(self, session: GraphSession, job: Message) -> None:
        workload = job["workload"]
        self._session = session
        self.tokens: list[int] | None = None
        if job["text"]:
            tokenize = tokenize_of(session, Path(job["path"]))
            texts = texts_of(job["text"])
            found = text_inputs(session.inputs, tokenize, texts, workload["seed"])
            self._inputs, self.tokens = found
        else:
            self._inputs = [random_inputs(session.inputs, workload["shapes"], workload["seed"])]
        self._at = -1

    def __len__(self) -> int:
        return len(self._inputs)

    def next(self) -> int:
        """Feed the next input; its index. A single input stays where it is."""
        if len(self._inputs) > 1 or self._at < 0:
            self._at = (self._at + 1) % len(self._inputs)
            self._session.feed(self._inputs[self._at])
        return self._at

    def run_all(self) -> None:
        """One inference of every input."""
        for _ in range(len(self)):
            self.next()
            self._session.run()


def timed(
    session: GraphSession, feeder: Feeder, inferences: int
) -> tuple[list[float], list[int] | None]:
    """Seconds of each inference, and the tokens of each where inputs are texts.

    Whole passes over the texts, so that every text counts as often as any other.
    """
    clock, run = time.perf_counter_ns, session.run
    taken: list[int] = []
    order: list[int] = []
    total = 0
    gc.collect()
    gc.disable()
    try:
        while len(taken) % len(feeder) or (
            len(taken) < MOST_INFERENCES
            and (len(taken) < inferences or total < LEAST_TIMED_S * NANO)
        ):
            order.append(feeder.next())
            started = clock()
            run()
            taken.append(clock() - started)
            total += taken[-1]
    finally:
        gc.enable()
    tokens = feeder.tokens
    return [seconds(t) for t in taken], tokens and [tokens[i] for i in order]


if __name__ == "__main__":
    sys.exit(serve(work))
