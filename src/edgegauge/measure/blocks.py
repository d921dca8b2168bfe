"""Blocks: one phase after the other in one child, with the meters read at every edge.

    for window in run_blocks(conversation, plan(...), machine, recorder): ...

A plan puts phases in the order P D D P between two idle blocks: a slow drift (of temperature, of
the battery's voltage) then falls on both phases alike. Seconds of a plan are those of the machine's
clock; the child counts the monotonic clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgegauge.energy import PhaseName, Window
from edgegauge.errors import MeasurementError
from edgegauge.measure.child import Conversation, Message
from edgegauge.measure.machine import Machine

LEAD_S = 2.0
"""Work (or rest) before a window: pipelines, clocks and a meter's own averaging settle."""
GRACE_S = 60.0
"""Real seconds beyond twice the planned time before a silent child is stopped."""


class Marker(Protocol):
    """What `recorder.Recorder` is to a block."""

    def mark(self) -> None:
        """Read every meter once more, now."""


@dataclass(frozen=True, slots=True)
class Block:
    """So many seconds of one phase, `lead_s` of the same before them."""

    phase: PhaseName
    seconds: float
    lead_s: float = LEAD_S

    @property
    def command(self) -> str:
        """What the child is told to do."""
        return "idle" if self.phase.startswith("idle") else self.phase

    @property
    def all_s(self) -> float:
        """What it takes, a unit's excess left out."""
        return self.seconds + self.lead_s


@dataclass(frozen=True, slots=True)
class Done:
    """A block that was run."""

    window: Window
    again_share: float
    """Of its time, that went into restoring the context (see `steady_load`)."""


def in_order(seconds: dict[PhaseName, float]) -> list[Block]:
    """Two blocks of each phase, in the order P D D P; `seconds` are those of one block."""
    once = [Block(phase, asked) for phase, asked in seconds.items()]
    return [*once, *reversed(once)]


def run_blocks(
    conversation: Conversation,
    plan: Sequence[Block],
    machine: Machine,
    recorder: Marker,
    *,
    round_s: float,
    before: Callable[[Block], object] = lambda block: None,
) -> Iterator[Done]:
    """Run the blocks and yield each as it ends.

    `round_s`: real seconds of one whole round, the most by which a block may exceed its plan.
    `before` is called with each block as it starts. Raises what `Conversation.ask` raises, after
    the blocks that were finished.
    """
    for block in plan:
        before(block)
        recorder.mark()
        answer = conversation.ask(
            _command(block, machine),
            timeout_s=2 * (machine.clock.real_s(block.all_s) + 3 * round_s) + GRACE_S,
            heard=lambda message: recorder.mark(),
        )
        recorder.mark()
        yield _done(block, answer, machine)


def _command(block: Block, machine: Machine) -> Message:
    real_s = machine.clock.real_s
    seconds, lead_s = real_s(block.seconds), real_s(block.lead_s)
    return {"do": block.command, "seconds": seconds, "lead_s": lead_s}


def told(answer: Message, key: str) -> Any:
    """What the child says under this key; MeasurementError where it says something else."""
    if key not in answer:
        raise MeasurementError(f"the child's answer makes no sense: {str(answer)[:200]}")
    return answer[key]


def _done(block: Block, answer: Message, machine: Machine) -> Done:
    said = told(answer, "window")
    try:
        start_s, end_s = machine.clock.at(said["start_ns"]), machine.clock.at(said["end_ns"])
        window = Window(phase=block.phase, start_s=start_s, end_s=end_s, tokens=said["tokens"])
        return Done(window, said["again_s"] / machine.clock.real_s(window.seconds))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise MeasurementError(f"the child's window makes no sense: {said}") from None
