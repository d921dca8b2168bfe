"""Steady loads: work that goes on for as long as a window takes, one unit at a time.

    with opened(job) as model:
        model.warm_up()
        load = model.loads["decode"]
        load.begin()
        tokens = load.unit()        # as often as wanted

Prefill processes the prompt after `depth` tokens again and again; decode generates after the
prompt and returns there when `generated_tokens` are reached. To return is to forget the last tokens
of the context. A model that cannot do that (a sliding window, a recurrent state) processes the
depth, and for decode the prompt, once more: `again_ns` counts that time, which is in the window
although its tokens are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from edgegauge.measure import worker
from edgegauge.measure.child import Message
from edgegauge.measure.runtimes import ParallelSession, Session


class Load(Protocol):
    """Work without end."""

    @property
    def again_ns(self) -> int:
        """Time spent so far on restoring the context, which counts as no token."""

    def begin(self) -> None:
        """Bring the session into the state that units start from."""

    def unit(self) -> int:
        """Do one unit; returns the tokens (or inferences) that it took."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded artifact and what can be done with it."""

    loads: dict[str, Load]
    """By the names of their phases."""
    warm_up: Callable[[], object]
    """One untimed round of the measured shape; of a graph, one inference of each input."""
    timed: Callable[[], dict[str, Any]] | None = None
    """One timed round as in `worker`; graphs have none."""


def opened(job: Message) -> AbstractContextManager[Loaded]:
    """The artifact of a job of `worker` or of `graph_worker`, loaded."""
    return _language_model(job) if "runtime" in job else _graph(job)


@contextmanager
def _language_model(job: Message) -> Iterator[Loaded]:
    runtime, shape = worker.runtime_of(job), job["workload"]
    runtime.prepare()
    with closing(worker.open_session(runtime, job)) as session:
        tokens = worker.prompts_of(session, job)
        rounds = worker.Rounds(session, shape, tokens)
        cache = Cache(session, tokens, shape["depth"])
        decode = Decode(cache, shape["generated_tokens"] - 1)
        yield Loaded({"prefill": Prefill(cache), "decode": decode}, rounds.timed, rounds.timed)


@contextmanager
def _graph(job: Message) -> Iterator[Loaded]:
    # Its libraries are not everybody's.
    from edgegauge.measure.graph_worker import Feeder
    from edgegauge.measure.graphs import graph_runtime_for

    runtime = graph_runtime_for(job["format"])
    runtime.prepare()
    threads = job["workload"]["threads"]
    with closing(runtime.open(Path(job["path"]), threads=threads)) as session:
        feeder = Feeder(session, job)
        yield Loaded({"inference": Inference(feeder.next, session.run)}, feeder.run_all)


class Cache:
    """The context of one sequence, or of several side by side, and the ways back within it."""

    def __init__(self, session: Session, tokens: Sequence[list[int]], depth: int) -> None:
        self._session = session
        self._depth, self._length = depth, len(tokens[0])
        self._fills = [sequence[:depth] for sequence in tokens]
        self._prompts = [sequence[depth:] for sequence in tokens]
        self.width = len(tokens)
        self.prompt_tokens = self.width * (self._length - depth)
        self.again_ns = 0
        many = cast(ParallelSession, session)
        alone = self.width == 1
        self.step: Callable[[Any], None] = session.step if alone else many.step_many
        """Appends what `choose` gave."""
        self.choose: Callable[[], Any] = session.argmax if alone else many.argmax_many

    def fill(self) -> None:
        """From nothing to the depth."""
        self._session.reset()
        if self._depth:
            self._append(self._fills)

    def prompt(self) -> None:
        """Process the prompt."""
        self._append(self._prompts)

    def back_to_depth(self) -> None:
        """Forget all after the depth."""
        if not self._depth:
            self._session.reset()
        elif not self._session.rewind(self._depth):
            self._again(self.fill)

    def back_to_prompt(self) -> None:
        """Forget all after the prompt."""
        if not self._session.rewind(self._length):
            self._again(self.fill)
            self._again(self.prompt)

    def _append(self, tokens: Sequence[list[int]]) -> None:
        if self.width == 1:
            self._session.prefill(tokens[0])
        else:
            cast(ParallelSession, self._session).prefill_many(tokens)

    def _again(self, restore: Callable[[], object]) -> None:
        started = time.monotonic_ns()
        restore()
        self.again_ns += time.monotonic_ns() - started


class Prefill:
    """The prompt again and again; a unit is one prompt (of each sequence)."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    @property
    def again_ns(self) -> int:
        """Time spent on the depth."""
        return self._cache.again_ns

    def begin(self) -> None:
        """Fill the context to the depth."""
        self._cache.fill()

    def unit(self) -> int:
        """One prompt; returns its tokens."""
        self._cache.back_to_depth()
        self._cache.prompt()
        return self._cache.prompt_tokens


class Decode:
    """Greedy generation; a unit is one step, which is one token (of each sequence)."""

    def __init__(self, cache: Cache, steps: int) -> None:
        self._cache = cache
        self._steps = steps
        self._left = 0
        self._first: Any = None
        self.token: Any = None
        """The last choice: of the one sequence, or a list of one each."""

    @property
    def again_ns(self) -> int:
        """Time spent on depth and prompt."""
        return self._cache.again_ns

    def begin(self) -> None:
        """Process depth and prompt, and choose the first token."""
        self._cache.fill()
        self._cache.prompt()
        self._first = self.token = self._cache.choose()
        self._left = self._steps

    def unit(self) -> int:
        """One step and one choice."""
        cache = self._cache
        if not self._left:
            cache.back_to_prompt()
            self.token, self._left = self._first, self._steps
        cache.step(self.token)
        self.token = cache.choose()
        self._left -= 1
        return cache.width


class Inference:
    """One inference of a graph after the other, each on the next of its inputs."""

    again_ns = 0

    def __init__(self, feed: Callable[[], object], run: Callable[[], None]) -> None:
        self._feed, self._run = feed, run

    def begin(self) -> None:
        """Nothing is kept between inferences."""

    def unit(self) -> int:
        """One inference."""
        self._feed()
        self._run()
        return 1
