"""Blocks: their order and edges, and steady loads that return to where they began."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from make_gguf import write_gguf

from edgegauge.errors import MeasurementError
from edgegauge.measure import block_worker, blocks, worker
from edgegauge.measure.blocks import Block, in_order, run_blocks
from edgegauge.measure.child import Message
from edgegauge.measure.machine import Clock, Machine
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.measure.steady_load import Cache, Decode, Inference, Load, Loaded, Prefill, opened
from edgegauge.result import Workload

NANO = 1_000_000_000


class Recording:
    """A session that holds only how many tokens each sequence has."""

    vocab = 50

    def __init__(self, *, rewinds: bool = True) -> None:
        self.rewinds = rewinds
        self.calls: list[str] = []
        self.used = 0

    def reset(self) -> None:
        self.calls.append("reset")
        self.used = 0

    def rewind(self, tokens: int) -> bool:
        assert tokens <= self.used
        if self.rewinds:
            self.calls.append(f"rewind {tokens}")
            self.used = tokens
        return self.rewinds

    def prefill(self, tokens: list[int]) -> None:
        self.calls.append(f"prefill {len(tokens)}")
        self.used += len(tokens)

    def step(self, token: int) -> None:
        self.calls.append(f"step {token}")
        self.used += 1

    def argmax(self) -> int:
        return self.used

    def prefill_many(self, prompts: list[list[int]]) -> None:
        self.prefill(prompts[0])

    def step_many(self, tokens: list[int]) -> None:
        self.step(tokens[0])

    def argmax_many(self) -> list[int]:
        return [self.used, 0]


def cache(session: Any, *, depth: int = 5, prompt: int = 20, width: int = 1) -> Cache:
    return Cache(session, [list(range(depth + prompt))] * width, depth)


def test_prefill_returns_to_the_depth() -> None:
    session = Recording()
    load = Prefill(cache(session))
    load.begin()
    assert [load.unit() for _ in range(2)] == [20, 20]
    assert session.calls == ["reset", "prefill 5", *["rewind 5", "prefill 20"] * 2]
    assert load.again_ns == 0


def test_prefill_without_a_depth_needs_no_rewinding() -> None:
    session = Recording(rewinds=False)
    load = Prefill(cache(session, depth=0))
    load.begin()
    load.unit()
    assert session.calls == ["reset", "reset", "prefill 20"]
    assert load.again_ns == 0


def test_decode_goes_on_from_the_prompt_when_its_tokens_are_out() -> None:
    session = Recording()
    load = Decode(cache(session), steps=3)
    load.begin()
    assert [load.unit() for _ in range(7)] == [1] * 7
    three = ["step 25", "step 26", "step 27"]
    begun = ["reset", "prefill 5", "prefill 20"]
    assert session.calls == [*begun, *three, "rewind 25", *three, "rewind 25", "step 25"]
    assert load.again_ns == 0


def test_a_model_that_cannot_rewind_restores_its_context_and_says_how_long_it_took() -> None:
    session = Recording(rewinds=False)
    shared = cache(session)
    prefill, decode = Prefill(shared), Decode(shared, steps=1)
    prefill.begin()
    assert prefill.unit() == 20
    assert session.calls == ["reset", "prefill 5"] * 2 + ["prefill 20"]
    after_prefill = prefill.again_ns
    assert after_prefill > 0
    decode.begin()
    session.calls.clear()
    assert [decode.unit(), decode.unit()] == [1, 1]
    assert session.calls == ["step 25", "reset", "prefill 5", "prefill 20", "step 25"]
    assert decode.again_ns > after_prefill


def test_sequences_side_by_side_all_count() -> None:
    session = Recording()
    shared = cache(session, width=2)
    prefill, decode = Prefill(shared), Decode(shared, steps=3)
    prefill.begin()
    assert prefill.unit() == 40
    decode.begin()
    assert decode.unit() == 2


def test_an_inference_is_fed_first() -> None:
    calls: list[str] = []
    load = Inference(lambda: calls.append("feed"), lambda: calls.append("run"))
    load.begin()
    assert [load.unit(), load.unit()] == [1, 1]
    assert calls == ["feed", "run"] * 2


class Nap:
    """A load whose unit is one millisecond and seven tokens."""

    again_ns = 0

    def __init__(self) -> None:
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    def unit(self) -> int:
        time.sleep(0.001)
        self.again_ns += 500_000
        return 7


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Message]]:
    """Runs the worker on some commands in this process; returns all that it sends."""
    load: Load = Nap()

    @contextmanager
    def opened(job: Message) -> Iterator[Loaded]:
        yield Loaded({"decode": load}, load.begin, lambda: {"round": load.unit()})

    monkeypatch.setattr(block_worker, "opened", opened)

    def asked(*commands: Message) -> list[Message]:
        monkeypatch.setattr(block_worker, "commands", lambda: iter(commands))
        sent: list[Message] = []
        block_worker.work({}, sent.append)
        return sent

    return asked


def test_a_window_starts_after_its_lead_and_ends_between_units(
    ask: Callable[..., list[Message]],
) -> None:
    begun = time.monotonic_ns()
    sent = ask({"do": "decode", "seconds": 0.02, "lead_s": 0.03})
    assert sent[:2] == [{"phase": "load"}, {"phase": "warm_up"}]
    assert sent[2]["ready"]["round_s"] >= 0
    assert sent[3] == {"phase": "decode window"}
    window = sent[4]["window"]
    assert window["start_ns"] - begun >= 0.03 * NANO
    assert window["end_ns"] - window["start_ns"] >= 0.02 * NANO
    units = window["tokens"] / 7
    assert units == int(units) >= 1
    # A unit sleeps for a millisecond at least, so no more of them fit.
    assert units <= (window["end_ns"] - window["start_ns"]) / 1e6
    assert window["again_s"] == pytest.approx(units * 0.0005)


def test_idle_computes_nothing(ask: Callable[..., list[Message]]) -> None:
    *_, phase, answer = ask({"do": "idle", "seconds": 0.01, "lead_s": 0.001})
    assert phase == {"phase": "idle window"}
    window = answer["window"]
    assert window["tokens"] == 0 and window["again_s"] == 0
    assert window["end_ns"] - window["start_ns"] >= 0.01 * NANO


def test_a_burst_rests_before_between_and_after(ask: Callable[..., list[Message]]) -> None:
    begun = time.monotonic_ns()
    *_, answer = ask({"do": "burst", "load": "decode", "seconds": 0.01, "times": 2})
    (a, b), (c, d) = answer["edges"]
    apart = 0.01 * NANO
    assert a - begun >= apart and b - a >= apart and c - b >= apart and d - c >= apart
    assert time.monotonic_ns() - d >= apart


def test_rounds_are_at_least_one(ask: Callable[..., list[Message]]) -> None:
    *_, answer = ask({"do": "rounds", "seconds": 0})
    assert answer == {"rounds": [{"round": 7}]}


def test_phases_are_in_the_order_pddp() -> None:
    planned = in_order({"prefill": 30.0, "decode": 40.0})
    assert [(b.phase, b.seconds) for b in planned] == [
        ("prefill", 30), ("decode", 40), ("decode", 40), ("prefill", 30),
    ]  # fmt: skip
    assert [b.phase for b in in_order({"inference": 1.0})] == ["inference"] * 2


class Talk:
    """The parent's side of a conversation whose child answers at once."""

    def __init__(self, log: list[str], answer: Message | None = None) -> None:
        self.log, self.answer = log, answer
        self.commands: list[Message] = []
        self.limits: list[float | None] = []

    def ask(
        self, command: Message, *, timeout_s: float | None, heard: Callable[[Message], object]
    ) -> Message:
        self.commands.append(command)
        self.limits.append(timeout_s)
        self.log.append("asked")
        heard({"phase": "window"})
        self.log.append("answered")
        window = {"start_ns": 10 * NANO, "end_ns": 12 * NANO, "tokens": 6, "again_s": 0.5}
        return self.answer or {"window": window}

    def mark(self) -> None:
        self.log.append("mark")


def test_meters_are_read_at_every_edge_and_times_are_of_the_machines_clock() -> None:
    talk = Talk([])
    machine = Machine(clock=Clock(speed=10))
    started: list[Block] = []
    (done,) = run_blocks(
        talk, [Block("prefill", 20, 5)], machine, talk, round_s=0.5, before=started.append
    )  # type: ignore[arg-type]
    assert talk.log == ["mark", "asked", "mark", "answered", "mark"]
    assert talk.commands == [{"do": "prefill", "seconds": 2.0, "lead_s": 0.5}]
    assert (done.window.phase, done.window.start_s, done.window.end_s) == ("prefill", 100, 120)
    assert done.window.tokens == 6
    assert done.again_share == 0.25
    assert started == [Block("prefill", 20, 5)]
    # Twice 2.5 s of the wall's clock and three rounds, and the grace.
    assert talk.limits == [2 * (2.5 + 1.5) + blocks.GRACE_S]


def test_idle_blocks_are_one_command() -> None:
    talk = Talk([])
    plan = [Block("idle_before", 1), Block("idle_after", 1)]
    list(run_blocks(talk, plan, Machine(), talk, round_s=0))  # type: ignore[arg-type]
    assert [c["do"] for c in talk.commands] == ["idle", "idle"]


@pytest.mark.parametrize("answer", [{"rounds": []}, {"window": 1}, {"window": {"start_ns": 5}}])
def test_an_answer_to_something_else_is_refused(answer: Message) -> None:
    talk = Talk([], answer)
    with pytest.raises(MeasurementError, match="makes no sense"):
        list(run_blocks(talk, [Block("decode", 1)], Machine(), talk, round_s=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_real_model_says_the_same_after_each_return(tmp_path: Path, parallel: int) -> None:
    pytest.importorskip("llama_cpp")
    shape = Workload(prompt_tokens=8, generated_tokens=5, depth=3, threads=1, parallel=parallel)
    path = write_gguf(tmp_path / "tiny.gguf")
    with opened(worker.job(LlamaCppRuntime(), path, shape.model_dump())) as model:
        model.warm_up()
        prefill, decode = model.loads["prefill"], model.loads["decode"]
        prefill.begin()
        assert [prefill.unit() for _ in range(3)] == [8 * parallel] * 3
        assert isinstance(decode, Decode)
        decode.begin()
        said = []
        for _ in range(3 * 4):
            assert decode.unit() == parallel
            said.append(decode.token)
        assert said[:4] == said[4:8] == said[8:]
        assert decode.again_ns == prefill.again_ns == 0
