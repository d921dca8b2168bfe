"""The llama.cpp runtime on real files: one answer by every road, and clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from conversions import convert
from make_gguf import END, write_gguf
from make_models import make_folder

from edgegauge.errors import InputError, MeasurementError, MissingDependency
from edgegauge.measure.runtimes import (
    ParallelSession,
    Session,
    llama_cpp,
    llama_log,
    runtime_for,
)
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime

pytest.importorskip("llama_cpp")

PROMPT = [1, 40, 260, 77, 12, 250, 9, 33]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "plain.gguf")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "quantised.gguf", quantised=True)


@pytest.fixture
def session(plain: Path) -> Iterator[Session]:
    with closing(LlamaCppRuntime().open(plain, threads=1, context=256)) as opened:
        yield opened


def greedy(session: Session, prompt: list[int], count: int) -> list[int]:
    session.reset()
    session.prefill(prompt)
    answer = []
    for _ in range(count):
        answer.append(session.argmax())
        session.step(answer[-1])
    return answer


def test_the_runtime_is_registered_for_gguf() -> None:
    assert isinstance(runtime_for("gguf"), LlamaCppRuntime)


def test_steps_prefill_and_logits_agree(session: Session) -> None:
    answer = greedy(session, PROMPT, 12)
    rows = list(session.logits(PROMPT + answer))
    assert len(rows) == len(PROMPT) + 12 and rows[0].shape == (session.vocab,)
    chosen = [int(row.argmax()) for row in rows]
    assert chosen[len(PROMPT) - 1 : -1] == answer


def test_rows_of_logits_stay_when_the_next_is_computed(session: Session) -> None:
    first, *rest = session.logits(PROMPT)
    again = next(iter(session.logits(PROMPT)))
    assert (first == again).all() and len(rest) == len(PROMPT) - 1


def test_prefill_in_parts_is_prefill_in_one(session: Session) -> None:
    whole = greedy(session, PROMPT, 6)
    session.reset()
    session.prefill(PROMPT[:3])
    session.prefill(PROMPT[3:])
    assert session.argmax() == whole[0]


def test_a_prompt_longer_than_a_batch_is_split(plain: Path) -> None:
    prompt = [3 + i * i % 290 for i in range(llama_cpp.BATCH + 40)]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=2304)) as session:
        session.prefill(prompt)
        chosen = session.argmax()
        *_, last = session.logits(prompt)
    assert chosen == int(last.argmax())


def test_several_prompts_get_the_answers_each_gets_alone(plain: Path) -> None:
    prompts = [[1, *range(20 + i, 24 + 3 * i)] for i in range(1, 8)]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=1024)) as one:
        alone = [one.generate([p], 10, frozenset())[0] for p in prompts]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=768, sequences=3)) as three:
        together = three.generate(prompts, 10, frozenset())
    assert together == alone
    assert alone[0] != alone[3]


def continued(session: ParallelSession, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy answers of all prompts side by side."""
    session.prefill_many(prompts)
    answers = [session.argmax_many()]
    for _ in range(count - 1):
        session.step_many(answers[-1])
        answers.append(session.argmax_many())
    return [list(answer) for answer in zip(*answers, strict=True)]


@pytest.mark.parametrize("length", [5, 700])  # 3 x 700 tokens take two batches
def test_sequences_side_by_side_answer_as_each_does_alone(plain: Path, length: int) -> None:
    prompts = [[3 + (i * i + 7 * n) % 290 for i in range(length)] for n in range(3)]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=1024)) as one:
        alone = [greedy(one, prompt, 6) for prompt in prompts]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=3 * 1024, sequences=3)) as three:
        assert isinstance(three, ParallelSession)
        assert continued(three, prompts, 6) == alone
        three.reset()
        three.prefill_many([p[:2] for p in prompts])
        assert continued(three, [p[2:] for p in prompts], 6) == alone
        with pytest.raises(MeasurementError, match="needs 1100 tokens of context"):
            three.prefill_many([[5] * (1100 - length - 5)] * 3)
    assert len({tuple(answer) for answer in alone}) == 3


@pytest.mark.parametrize("kept", [0, 3])
def test_decoding_after_a_rewind_is_decoding_afresh(session: Session, kept: int) -> None:
    fresh = greedy(session, PROMPT, 8)
    assert session.rewind(len(PROMPT) + kept)
    for token, following in pairwise(fresh[kept:]):
        session.step(token)
        assert session.argmax() == following
    assert session.rewind(0)
    assert greedy(session, PROMPT, 8) == fresh


def test_a_rewind_of_parallel_sequences_rewinds_all(plain: Path) -> None:
    prompts = [[1, 5 + n, 9, 200 - n] for n in range(2)]
    with closing(LlamaCppRuntime().open(plain, threads=1, context=512, sequences=2)) as two:
        first = continued(two, prompts, 5)
        assert two.rewind(2)
        assert continued(two, [p[2:] for p in prompts], 5) == first


def test_a_sliding_window_is_not_rewound_beyond_what_it_kept(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "folder", "gemma3")
    path = convert(spec, tmp_path / "folder", tmp_path / "out", "f16").path
    prompt = [3 + i % 200 for i in range(900)]
    with closing(LlamaCppRuntime().open(path, threads=1, context=1024)) as session:
        fresh = greedy(session, prompt, 3)
        assert session.rewind(900)
        session.step(fresh[0])
        assert session.argmax() == fresh[1]
        assert not session.rewind(100)
        session.step(fresh[1])
        assert session.argmax() == fresh[2]


def test_generation_ends_before_the_stop_token(session: Session) -> None:
    answer = session.generate([PROMPT], 12, frozenset())[0]
    stop = answer[5]
    cut = answer.index(stop)
    assert session.generate([PROMPT], 12, frozenset({stop})) == [answer[:cut]]
    assert session.generate([PROMPT], 0, frozenset()) == [[]]
    assert session.generate([], 5, frozenset()) == []


def test_quantised_weights_run_where_amx_would_crash(quantised: Path) -> None:
    with closing(LlamaCppRuntime().open(quantised, threads=1, context=256)) as session:
        assert len(greedy(session, PROMPT * 10, 4)) == 4
        places = session.facts()["buffers_bytes"]
    assert not any("AMX" in place for place in places)


def test_facts_account_for_the_weights(session: Session) -> None:
    facts = session.facts()
    assert facts["tensor_bytes"] == 4 * facts["parameters"]
    buffers = facts["buffers_bytes"]
    # Printed in MiB with two decimals.
    assert buffers["model/CPU_Mapped"] == pytest.approx(facts["tensor_bytes"], abs=2**20 / 50)
    # 2 layers, keys and values, 256 cells of 2 heads x 16, f16.
    assert buffers["KV/CPU"] == pytest.approx(2 * 2 * 256 * 32 * 2, abs=2**20 / 50)
    assert facts["source"].startswith("llama.cpp ")


def test_text_and_tokens(session: Session) -> None:
    tokens = session.tokenize("Grüße <s>")
    assert tokens[0] == 1 and tokens.count(1) == 2
    plain = session.tokenize("Grüße <s>", special=False)
    assert plain.count(1) == 0
    assert session.detokenize(plain).strip() == "Grüße <s>"
    assert session.detokenize([]) == ""
    assert session.tokenize("", special=False) == []
    assert session.tokenize("\ud800 \0 x")  # a lone surrogate, a NUL
    assert session.end_tokens() == frozenset({END})


def test_the_context_is_not_overrun(session: Session) -> None:
    with pytest.raises(MeasurementError, match="needs 300 tokens of context, but has 256"):
        session.prefill([5] * 300)
    with pytest.raises(MeasurementError, match="context"):
        session.generate([PROMPT], 250, frozenset())
    session.prefill([5] * 256)
    with pytest.raises(MeasurementError, match="context is full"):
        session.step(5)


def test_impossible_tokens_are_refused(session: Session) -> None:
    with pytest.raises(MeasurementError, match="status -1"):
        session.prefill([session.vocab + 5])
    with pytest.raises(MeasurementError, match="prompt 1 is empty"):
        session.generate([[1], []], 4, frozenset())


def test_nothing_is_printed(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(LlamaCppRuntime().open(plain, threads=1, context=64)) as session:
        session.prefill(PROMPT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"not a model at all", b"GGUF\3\0\0\0" + b"\xff" * 64]
)
def test_a_file_that_is_no_model_says_why(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"llama.cpp cannot load .*bad.gguf: \w+"):
        LlamaCppRuntime().open(path, threads=1, context=64)


def test_a_truncated_file_says_why(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(plain.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"not within the file bounds|corrupted or incomplete"):
        LlamaCppRuntime().open(path, threads=1, context=64)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        LlamaCppRuntime().open(tmp_path / "none.gguf", threads=1, context=64)


def test_closing_twice_is_harmless(plain: Path) -> None:
    session = LlamaCppRuntime().open(plain, threads=1, context=64)
    session.close()
    session.close()


def test_an_absent_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, plain: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(MissingDependency) as caught:
        LlamaCppRuntime().open(plain, threads=1, context=64)
    assert caught.value.hint == 'pip install "edgegauge[gguf]"'


def test_buffer_lines_are_read_in_every_shape() -> None:
    said = [
        "load_tensors:   CPU_Mapped model buffer size =   138.10 MiB",
        "load_tensors:   CPU_REPACK model buffer size =    76.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =     6.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =     2.00 MiB",
        "sched_reserve:        CPU compute buffer size =    18.25 MiB",
        "sched_reserve:        CPU compute buffer size =    20.25 MiB",
        "something else entirely",
    ]
    assert llama_log.buffer_bytes(said) == {
        "model/CPU_Mapped": round(138.10 * 2**20),
        "model/CPU_REPACK": 76 * 2**20,
        "KV/CPU": 8 * 2**20,
        "compute/CPU": round(20.25 * 2**20),
    }
    assert llama_log.flash_attention(["x: flash_attn            = auto"]) == "auto"
    assert llama_log.flash_attention([]) is None
