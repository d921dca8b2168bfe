"""One untimed round of a job of edgegauge.measure.worker, for its memory only: job on stdin."""

from __future__ import annotations

import sys
from contextlib import closing

from edgegauge.measure.child import Message, Send, serve
from edgegauge.measure.memory import Phases
from edgegauge.measure.worker import Rounds, begin, open_session, prompts_of, runtime_of


def work(job: Message, send: Send) -> None:
    """As the worker does, without the timed rounds, which take long and add no memory."""
    runtime, phases = runtime_of(job), Phases()
    begin(phases, send, "import")
    runtime.prepare()
    phases.end()
    begin(phases, send, "load")
    session = open_session(runtime, job)
    phases.end()
    with closing(session):
        Rounds(session, job["workload"], prompts_of(session, job)).warm_up(phases, send)
        phases.end()
    send({"phases": phases.found})


if __name__ == "__main__":
    sys.exit(serve(work))
