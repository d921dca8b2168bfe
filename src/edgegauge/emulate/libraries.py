"""A child that loads a runtime's libraries and no model: `python -m edgegauge.emulate.libraries`.

It brings their pages into the page cache, at no emulated run's charge, and tells how many they are.
"""

from __future__ import annotations

import sys

from edgegauge.errors import MeasurementError
from edgegauge.measure import memory
from edgegauge.measure.child import Message, Send, serve, start
from edgegauge.measure.worker import runtime_of


def library_bytes(job: Message) -> int:
    """Resident file pages of the interpreter and the runtime of a `worker.job`; 0 if unknown."""
    with start("edgegauge.emulate.libraries", job) as messages:
        for message in messages:
            return message["file_bytes"] or 0
    raise MeasurementError("the runtime's libraries could not be loaded")


def work(job: Message, send: Send) -> None:
    """Load the libraries and tell what of them is resident."""
    runtime_of(job).prepare()
    send({"file_bytes": memory.read()["file_bytes"]})


if __name__ == "__main__":
    sys.exit(serve(work))
