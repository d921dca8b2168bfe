"""Several configurations in one call: their turns, how many runs, real prompts, sequences."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from statistics import median

import pytest
from make_gguf import write_gguf

from edgegauge.artifact import Artifact
from edgegauge.errors import InputError
from edgegauge.measure.manager import grid, measure, measure_grid
from edgegauge.measure.prompt import MOST_BYTES, read_prompt
from edgegauge.measure.series import Series, turns
from edgegauge.result import Failure, Result, Round, Run, Workload

SMALL = Workload(prompt_tokens=24, generated_tokens=9, threads=1, runs=1, repetitions=3)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def a_run(gap_s: float) -> Run:
    timed = Round(prefill_s=0.1, ttft_s=0.11, inter_token_s=[gap_s] * 4)
    return Run(load_s=0.1, rounds=[timed] * 3, phases={})


def a_failure(kind: str = "killed") -> Failure:
    return Failure.model_validate({"run": 0, "phase": "load", "kind": kind, "reason": "made up"})


def executed(series: list[Series], outcomes: dict[int, list[Run | Failure]]) -> list[int]:
    """Which configuration ran at each turn; the last outcome of each is repeated."""
    order = []
    for one, index in turns(series):
        number = series.index(one)
        assert index == one.tried
        order.append(number)
        outcome = outcomes[number][min(index, len(outcomes[number]) - 1)]
        one.keep(outcome)
    return order


def three(runs: int = 3, most: int = 0) -> list[Series]:
    load = SMALL.model_copy(update={"runs": runs})
    return [Series(load.model_copy(update={"depth": d}), {}, most) for d in range(3)]


def test_configurations_go_there_and_back_again() -> None:
    steady: list[Run | Failure] = [a_run(0.01)]
    order = executed(three(), {0: steady, 1: steady, 2: steady})
    assert order == [0, 1, 2, 2, 1, 0, 0, 1, 2]


def test_runs_are_added_until_they_agree() -> None:
    noisy: list[Run | Failure] = [a_run(gap) for gap in (0.010, 0.012, 0.009, 0.011, 0.010)]
    # 3 runs 5 % apart say ±7 %; by then each further one of 0.01 brings them closer.
    settling: list[Run | Failure] = [a_run(0.0100), a_run(0.0105), *[a_run(0.0102)] * 8]
    steady: list[Run | Failure] = [a_run(0.01)]
    order = executed(three(most=8), {0: steady, 1: settling, 2: noisy})
    assert order.count(0) == 3
    assert 3 < order.count(1) < 8
    assert order.count(2) == 8
    assert order[9:13] == [2, 1, 1, 2]


def test_the_asked_runs_are_done_whatever_the_most() -> None:
    noisy: list[Run | Failure] = [a_run(0.01), a_run(0.02)]
    assert executed(three(runs=2, most=1)[:1], {0: noisy}) == [0, 0]


def test_a_configuration_that_fails_twice_or_hangs_is_given_up() -> None:
    good: list[Run | Failure] = [a_run(0.01)]
    failing: list[Run | Failure] = [a_failure()]
    hanging: list[Run | Failure] = [a_failure("timeout")]
    order = executed(three(runs=4), {0: failing, 1: good, 2: hanging})
    assert [order.count(n) for n in range(3)] == [2, 4, 1]
    once: list[Run | Failure] = [a_failure(), a_run(0.01)]
    series = three(runs=3)[:1]
    assert executed(series, {0: once}) == [0, 0, 0]
    assert (len(series[0].runs), len(series[0].failures)) == (2, 1)


def test_a_grid_is_every_combination_once() -> None:
    asked = grid(SMALL, prompt_tokens=[8, 16, 8], depth=[0, 4])
    assert [(w.prompt_tokens, w.depth, w.parallel) for w in asked] == [
        (8, 0, 1), (8, 4, 1), (16, 0, 1), (16, 4, 1),
    ]  # fmt: skip
    assert grid(SMALL) == [SMALL]


def test_each_configuration_has_its_result(gguf: Path) -> None:
    asked = grid(SMALL, prompt_tokens=[8, 600], parallel=[1, 3])
    told: list[str] = []
    found = measure_grid(
        Artifact(gguf, None), asked, timeout_s=120, progress=lambda done, note: told.append(note)
    )
    assert [result.workload for result in found] == asked
    assert told[1] == "8 tokens at depth 0, run 1 of 1"
    assert told[4] == "600 tokens at depth 0, 3 in parallel, run 1 of 1"
    for result in found:
        assert isinstance(result, Result)
        load = result.workload
        rounds = [r for run in result.samples for r in run.rounds]
        assert all(len(r.inter_token_s) == load.generated_tokens - 1 for r in rounds)
        starts = [r.start_s for r in rounds if r.start_s is not None]
        assert starts == sorted(starts) and len(starts) == len(rounds)
        prefill = median(load.parallel * load.prompt_tokens / r.prefill_s for r in rounds)
        decode = median(load.parallel * 8 / math.fsum(r.inter_token_s) for r in rounds)
        tpot = median(math.fsum(r.inter_token_s) / 8 for r in rounds)
        summary = result.summary
        assert summary.prefill_tok_per_s and summary.decode_tok_per_s and summary.tpot_s
        assert summary.prefill_tok_per_s.value == pytest.approx(prefill)
        assert summary.decode_tok_per_s.value == pytest.approx(decode)
        assert summary.tpot_s.p50.value == pytest.approx(tpot)
        assert summary.tpot_s.samples == len(rounds)
        context = result.samples[0].runtime_facts["context_tokens"]
        assert context >= load.parallel * load.context


RECORDING = """
    class Recording:
        name, formats, vocab, fed = "recording", ("gguf",), 258, []
        def version(self): return "1.2"
        def prepare(self): pass
        def open(self, path, *, threads, context, sequences=1, all_logits=False):
            self.context, self.sequences = context, sequences
            return self
        def tokenize(self, text, *, special=True): return [256, *text.encode()]
        def reset(self): self.fed.clear()
        def prefill(self, tokens): self.fed.append(list(tokens))
        def argmax(self): return 3
        def step(self, token): pass
        def facts(self):
            return {"fed": self.fed, "context": self.context, "sequences": self.sequences}
        def close(self): pass

    class Parallel(Recording):
        def detokenize(self, tokens): return ""
        def rewind(self, tokens): return True
        def logits(self, tokens): return iter(())
        def generate(self, prompts, max_tokens, stop): return []
        def end_tokens(self): return frozenset()
        def prefill_many(self, prompts): self.fed.append([list(p) for p in prompts])
        def step_many(self, tokens): assert tokens == [7] * self.sequences
        def argmax_many(self): return [7] * self.sequences
"""


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A module with two runtimes, one of which knows of several sequences."""
    (tmp_path / "recorder.py").write_text(textwrap.dedent(RECORDING))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "recorder", raising=False)
    return __import__("recorder")


def test_a_prompt_is_cut_from_the_text(gguf: Path, recording: object) -> None:
    load = SMALL.model_copy(update={"depth": 4, "prompt_tokens": 6})
    runtime = recording.Recording()  # type: ignore[attr-defined]
    found = measure(Artifact(gguf, None), load, runtime=runtime, prompt_text="abcdefghijklmn")
    fed = found.samples[0].runtime_facts["fed"]
    assert fed == [[256, *b"abc"], list(b"defghi")]


def test_each_sequence_has_its_own_prompt(gguf: Path, recording: object) -> None:
    load = SMALL.model_copy(update={"depth": 1, "prompt_tokens": 3, "parallel": 2})
    runtime = recording.Parallel()  # type: ignore[attr-defined]
    text = measure(Artifact(gguf, None), load, runtime=runtime, prompt_text="abcdefghijk")
    facts = text.samples[0].runtime_facts
    assert facts["fed"] == [[[256], [100]], [list(b"abc"), list(b"efg")]]
    assert facts["sequences"] == 2 and facts["context"] == 2 * load.context
    drawn = measure(Artifact(gguf, None), load, runtime=runtime).samples[0].runtime_facts["fed"][1]
    assert len(drawn) == 2 and drawn[0] != drawn[1]


def test_a_text_that_is_too_short_says_how_long_it_is(gguf: Path) -> None:
    load = SMALL.model_copy(update={"depth": 100})
    with pytest.raises(InputError, match=r"the prompt has 1[0-9] tokens .* but 124 are needed"):
        measure(Artifact(gguf, None), load, prompt_text="Hello world", timeout_s=60)


def test_a_runtime_that_knows_one_sequence_refuses_several(gguf: Path, recording: object) -> None:
    load = SMALL.model_copy(update={"parallel": 2})
    with pytest.raises(InputError, match="one sequence at a time"):
        measure(Artifact(gguf, None), load, runtime=recording.Recording())  # type: ignore[attr-defined]


def test_a_prompt_file_is_bounded_text(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Grüße")
    source, text = read_prompt(path)
    assert (source.name, text) == ("prompt.txt", "Grüße")
    for content, expected in (
        (b"\xff\xfe", "not UTF-8 text: .* at byte 0"),
        (b" \n", "no text"),
        (b"x" * (MOST_BYTES + 1), "larger than"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=expected):
            read_prompt(path)
    with pytest.raises(InputError, match="cannot read"):
        read_prompt(tmp_path / "none.txt")
