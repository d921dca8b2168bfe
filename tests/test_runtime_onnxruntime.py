"""The ONNX Runtime runtime on real graphs: one answer by every road, no copies, clear errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import conversions
import pytest
from make_models import make_folder, make_spec

from edgegauge.artifact import Artifact
from edgegauge.errors import InputError, MeasurementError, MissingDependency
from edgegauge.measure.facts import artifact_facts, digest_of, spec_of
from edgegauge.measure.manager import measure
from edgegauge.measure.runtimes import ParallelSession, Session, runtime_for
from edgegauge.measure.runtimes.onnxruntime import CHUNK, OnnxRuntime
from edgegauge.result import Workload

PROMPT = [1, 40, 260, 77, 12, 250, 9, 33]


def convert(folder: Path | None, output: Path, family: str, recipe: str = "f32") -> Artifact:
    spec = make_folder(folder, family, seed=3) if folder else make_spec(family)
    return conversions.convert(spec, folder, output, recipe, file_format="onnx")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("onnx")
    return convert(folder / "model", folder, "llama")


@pytest.fixture(scope="module")
def plain(artifact: Artifact) -> Path:
    return artifact.path


@pytest.fixture
def session(plain: Path) -> Iterator[Session]:
    with closing(OnnxRuntime().open(plain, threads=1, context=256)) as opened:
        yield opened


def greedy(session: Session, prompt: list[int], count: int) -> list[int]:
    session.reset()
    session.prefill(prompt)
    answer = []
    for _ in range(count):
        answer.append(session.argmax())
        session.step(answer[-1])
    return answer


def test_the_runtime_is_registered_for_onnx() -> None:
    assert isinstance(runtime_for("onnx"), OnnxRuntime)


@pytest.mark.parametrize("all_logits", [False, True])
def test_steps_prefill_and_logits_agree(plain: Path, all_logits: bool) -> None:
    runtime = OnnxRuntime()
    with closing(runtime.open(plain, threads=1, context=256, all_logits=all_logits)) as session:
        answer = greedy(session, PROMPT, 12)
        rows = list(session.logits(PROMPT + answer))
        again = next(iter(session.logits(PROMPT)))
    assert len(rows) == len(PROMPT) + 12 and rows[0].shape == (session.vocab,)
    chosen = [int(row.argmax()) for row in rows]
    assert chosen[len(PROMPT) - 1 : -1] == answer
    assert abs(rows[0] - again).max() < 1e-4


def test_prefill_in_parts_is_prefill_in_one(session: Session) -> None:
    whole = greedy(session, PROMPT, 6)
    session.reset()
    session.prefill(PROMPT[:3])
    session.prefill(PROMPT[3:])
    assert session.argmax() == whole[0]


def test_a_prompt_longer_than_a_chunk_is_split(plain: Path) -> None:
    prompt = [3 + i * i % 290 for i in range(CHUNK + 40)]
    with closing(OnnxRuntime().open(plain, threads=1, context=1024)) as session:
        session.prefill(prompt)
        chosen = session.argmax()
        *_, last = session.logits(prompt)
    assert chosen == int(last.argmax())


def test_several_prompts_get_the_answers_each_gets_alone(plain: Path) -> None:
    prompts = [[1, *range(20 + i, 24 + 3 * i)] for i in range(1, 8)]
    with closing(OnnxRuntime().open(plain, threads=1, context=1024)) as one:
        alone = [one.generate([p], 10, frozenset())[0] for p in prompts]
    with closing(OnnxRuntime().open(plain, threads=1, context=768, sequences=3)) as three:
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


def test_sequences_side_by_side_answer_as_each_does_alone(plain: Path) -> None:
    prompts = [[3 + (i * i + 7 * n) % 290 for i in range(30)] for n in range(3)]
    with closing(OnnxRuntime().open(plain, threads=1, context=1024)) as one:
        alone = [greedy(one, prompt, 6) for prompt in prompts]
    with closing(OnnxRuntime().open(plain, threads=1, context=3 * 128, sequences=3)) as three:
        assert isinstance(three, ParallelSession)
        assert continued(three, prompts, 6) == alone
        three.reset()
        three.prefill_many([p[:2] for p in prompts])
        assert continued(three, [p[2:] for p in prompts], 6) == alone
        assert three.rewind(2)
        assert continued(three, [p[2:] for p in prompts], 6) == alone
        with pytest.raises(MeasurementError, match=r"needs \d+ tokens of context, but has 128"):
            three.prefill_many([[5] * 128] * 3)
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


def test_generation_ends_before_the_stop_token(session: Session) -> None:
    answer = session.generate([PROMPT], 12, frozenset())[0]
    stop = answer[5]
    cut = answer.index(stop)
    assert session.generate([PROMPT], 12, frozenset({stop})) == [answer[:cut]]
    assert session.generate([PROMPT], 0, frozenset()) == [[]]
    assert session.generate([], 5, frozenset()) == []


def test_the_cache_is_written_in_place(plain: Path) -> None:
    """A step changes one position of the arrays that were bound, and replaces none of them."""
    with closing(OnnxRuntime().open(plain, threads=1, context=32)) as session:
        session.prefill(PROMPT)
        caches = dict(session._caches)
        before = {name: cache.copy() for name, cache in caches.items()}
        session.step(5)
        for name, cache in session._caches.items():
            assert cache is caches[name]
            moved = (cache != before[name]).any(axis=(0, 1, 3))
            assert moved.nonzero()[0].tolist() == [len(PROMPT)]


def test_text_and_tokens(session: Session) -> None:
    tokens = session.tokenize("Grüße <|im_start|>")
    assert session.detokenize(session.tokenize("Grüße", special=False)).strip() == "Grüße"
    assert len(session.tokenize("Grüße <|im_start|>", special=False)) > len(tokens)
    assert session.detokenize([]) == ""
    assert session.tokenize("", special=False) == []
    assert session.tokenize("\ud800 \0 x")  # a lone surrogate, a NUL
    assert session.end_tokens()


@pytest.mark.parametrize("wanted", [True, False])
def test_an_explicit_bos_setting_wins(tmp_path: Path, wanted: bool) -> None:
    path = convert(tmp_path / "model", tmp_path, "llama").path
    config = path.with_name("tokenizer_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"add_bos_token": wanted}))
    with closing(OnnxRuntime().open(path, threads=1, context=32)) as session:
        bos = json.loads(path.with_name("genai_config.json").read_text())["model"]["bos_token_id"]
        assert (session.tokenize("word")[0] == bos) == wanted
        assert session.tokenize("word", special=False)[0] != bos


def test_a_synthetic_artifact_has_no_text_but_runs(tmp_path: Path) -> None:
    path = convert(None, tmp_path, "qwen3", "int4").path
    with closing(OnnxRuntime().open(path, threads=1, context=32)) as session:
        assert len(greedy(session, [3, 4, 5], 4)) == 4
        with pytest.raises(InputError, match=r"no tokenizer\.json") as caught:
            session.tokenize("text")
    assert "synthetic" in str(caught.value.hint)


def test_a_damaged_tokenizer_says_why(tmp_path: Path) -> None:
    path = convert(tmp_path / "model", tmp_path, "llama").path
    path.with_name("tokenizer.json").write_text('{"model": 3}')
    with (
        closing(OnnxRuntime().open(path, threads=1, context=32)) as session,
        pytest.raises(InputError, match=r"cannot read .*tokenizer\.json"),
    ):
        session.tokenize("text")


def test_facts_account_for_the_cache(session: Session) -> None:
    facts = session.facts()
    # 3 layers, keys and values, 256 positions of 2 heads x 16, f32.
    assert facts["buffers_bytes"] == {"KV/CPU": 3 * 2 * 256 * 32 * 4}
    assert facts["source"].startswith("ONNX Runtime ")


def test_the_context_is_not_overrun(session: Session) -> None:
    with pytest.raises(MeasurementError, match="needs 300 tokens of context, but has 256"):
        session.prefill([5] * 300)
    with pytest.raises(MeasurementError, match="context"):
        session.generate([PROMPT], 250, frozenset())
    session.prefill([5] * 256)
    with pytest.raises(MeasurementError, match="context is full"):
        session.step(5)


def test_impossible_tokens_are_refused(session: Session) -> None:
    with pytest.raises(MeasurementError, match="tokens are from 0 to 511"):
        session.prefill([session.vocab])
    with pytest.raises(MeasurementError, match="prompt 1 is empty"):
        session.generate([[1], []], 4, frozenset())


def test_nothing_is_printed(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(OnnxRuntime().open(plain, threads=1, context=64)) as session:
        session.prefill(PROMPT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x0a" + b"\xff" * 64])
def test_a_file_that_is_no_model_says_why(plain: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no genai_config\.json in"):
        OnnxRuntime().open(path, threads=1, context=64)
    config = path.with_name("genai_config.json")
    config.write_bytes(plain.with_name("genai_config.json").read_bytes())
    with pytest.raises(InputError, match=r"ONNX Runtime cannot load .*bad\.onnx: \S+"):
        OnnxRuntime().open(path, threads=1, context=64)
    config.write_text('{"model": {"vocab_size": -1}}')
    with pytest.raises(InputError, match=r"must be > 0|required"):
        OnnxRuntime().open(path, threads=1, context=64)


def test_weights_that_are_missing_say_so(tmp_path: Path) -> None:
    path = convert(None, tmp_path, "llama").path
    path.with_name(path.name + ".data").unlink()
    with pytest.raises(InputError, match="ONNX Runtime cannot load"):
        OnnxRuntime().open(path, threads=1, context=64)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        OnnxRuntime().open(tmp_path / "none.onnx", threads=1, context=64)


def test_closing_twice_is_harmless(plain: Path) -> None:
    session = OnnxRuntime().open(plain, threads=1, context=64)
    session.close()
    session.close()


def test_an_absent_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, plain: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency) as caught:
        OnnxRuntime().open(plain, threads=1, context=64)
    assert caught.value.hint == 'pip install "edgegauge[onnx]"'


# --- as an artifact


def test_the_facts_of_a_result_cover_all_files(artifact: Artifact, tmp_path: Path) -> None:
    digest = digest_of(artifact)
    facts = artifact_facts(artifact, digest, {})
    beside = [p for p in artifact.path.parent.iterdir() if not p.name.endswith("manifest.json")]
    assert facts.file_bytes == sum(p.stat().st_size for p in beside)
    assert (facts.format, facts.recipe) == ("onnx", "f32")
    assert spec_of(artifact) == artifact.manifest.spec  # type: ignore[union-attr]


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    artifact = convert(None, tmp_path, "llama")
    data = artifact.path.with_name(artifact.path.name + ".data")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=r"onnx\.data has SHA-256"):
        digest_of(artifact)


def test_it_is_measured_as_any_artifact(artifact: Artifact) -> None:
    workload = Workload(prompt_tokens=16, generated_tokens=4, threads=1, runs=1, repetitions=1)
    result = measure(artifact, workload)
    assert result.artifact.format == "onnx"
    assert result.summary.decode_tok_per_s.value > 0
    assert "ONNX Runtime" in result.summary.decode_tok_per_s.source
