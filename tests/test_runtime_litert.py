"""The LiteRT session: context, rewinding, generation, text, and files that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from make_graphs import tflite_sum
from make_models import make_spec, plain_weights
from test_agreement_tflite import CONTEXT, TOKENS, artifact_of
from tokenizers import Tokenizer

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.runtimes.litert import LiteRtRuntime
from edgegauge.measure.runtimes.tflite_session import TfliteSession
from edgegauge_converters.reference import Reference


@pytest.fixture(scope="module")
def session() -> Iterator[TfliteSession]:
    path = artifact_of("llama", "f32")
    with closing(LiteRtRuntime().open(path, threads=1, context=CONTEXT)) as opened:
        yield opened


def test_it_is_found_by_its_format() -> None:
    assert isinstance(runtime_for("tflite"), LiteRtRuntime)
    assert LiteRtRuntime().version()[0].isdigit()


def test_generation_is_what_the_reference_generates(session: TfliteSession) -> None:
    reference = Reference(make_spec("llama"), plain_weights(make_spec("llama"), 7))
    prompts = [TOKENS[:5], TOKENS[40:90]]
    expected = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(6):
            text.append(int(reference.logits(text)[-1].argmax()))
        expected.append(text[len(prompt) :])
    assert session.generate(prompts, 6, frozenset()) == expected
    stop = frozenset({expected[0][3]})
    cut = expected[0].index(expected[0][3])
    assert session.generate(prompts[:1], 6, stop) == [expected[0][:cut]]


def test_rewinding_goes_on_as_if_nothing_had_followed(session: TfliteSession) -> None:
    session.reset()
    session.prefill(TOKENS[:60])
    session.step(7)
    first = session.argmax(), session._row()
    session.prefill(TOKENS[60:150])  # beyond the span of the shorter signatures
    assert session.rewind(60)
    session.step(7)
    assert session.argmax() == first[0]
    assert np.array_equal(session._row(), first[1])


def test_the_whole_context_can_be_used_and_no_more(session: TfliteSession) -> None:
    text = (TOKENS * 2)[:CONTEXT]
    session.reset()
    session.prefill(text)
    whole = session._row()
    with pytest.raises(MeasurementError, match="321 tokens of context"):
        session.step(1)
    assert session.rewind(CONTEXT - 1)
    session.step(text[-1])
    assert np.abs(session._row() - whole).max() < 1e-3
    session.reset()
    with pytest.raises(MeasurementError, match="321 tokens of context"):
        session.prefill([1] * (CONTEXT + 1))
    with pytest.raises(MeasurementError, match="prompt 1 is empty"):
        session.generate([[1], []], 2, frozenset())


def test_more_context_than_the_file_has() -> None:
    path = artifact_of("llama", "f32")
    with pytest.raises(MeasurementError, match=f"{CONTEXT} tokens of context, 400 are needed"):
        LiteRtRuntime().open(path, threads=1, context=400)
    with closing(LiteRtRuntime().open(path, threads=1, context=640, sequences=2)) as session:
        assert session.context == CONTEXT


def test_text_is_that_of_the_models_tokenizer(session: TfliteSession) -> None:
    library = Tokenizer.from_file(str(artifact_of("llama", "f32").with_name("tokenizer.json")))
    text = "turn on the lamp"
    tokens = session.tokenize(text)
    assert tokens == library.encode(text).ids
    assert session.detokenize(tokens) == text
    assert session.end_tokens()
    assert all(token < session.vocab for token in session.end_tokens())


def test_facts_and_vocabulary(session: TfliteSession) -> None:
    facts = session.facts()
    spec = make_spec("llama")
    assert session.vocab == spec.vocab
    assert facts["source"].startswith("LiteRT 2")
    assert (facts["context_tokens"], facts["batch_tokens"], facts["threads"]) == (CONTEXT, 32, 1)
    assert facts["buffers_bytes"]["KV/CPU"] == 2 * spec.kv_cache_bytes(CONTEXT)  # f32, not f16


def test_a_token_outside_the_vocabulary(session: TfliteSession) -> None:
    session.reset()
    with pytest.raises(MeasurementError, match="0 to 511"):
        session.step(512)


def test_files_that_are_no_language_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        LiteRtRuntime().open(tmp_path / "missing", threads=1, context=8)
    for content in (b"", b"GGUF" * 100, b"\x20\0\0\0TFL3" + b"\xff" * 64):
        path = tmp_path / "broken.tflite"
        path.write_bytes(content)
        with pytest.raises(InputError):
            LiteRtRuntime().open(path, threads=1, context=8)
    with pytest.raises(InputError, match="no language model"):
        LiteRtRuntime().open(tflite_sum(tmp_path / "sum.tflite"), threads=1, context=8)


def test_closing_twice() -> None:
    session = LiteRtRuntime().open(artifact_of("llama", "f32"), threads=1, context=8)
    session.close()
    session.close()
