"""Encoders: reading configurations and checkpoints strictly, and the NumPy reference."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_encoders import (
    KINDS,
    encoder_config,
    encoder_weights,
    make_encoder,
    make_encoder_spec,
    plain_encoder_weights,
    wordpiece,
    write_json,
    write_modules,
)

from edgegauge.convert_encoder import encoder_converter_for, encoder_job, is_encoder_reference
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.read_encoder import encoder_from_folder, is_encoder
from edgegauge_converters.encoder_reference import EncoderReference
from edgegauge_converters.encoder_weights import EncoderCheckpoint
from edgegauge_converters.wordpiece import read_wordpiece

GOLDEN = Path(__file__).parent / "data" / "golden_embeddings"
TOKENS = np.random.RandomState(3).randint(0, 512, 24).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_transformers(kind: str) -> None:
    golden = np.load(GOLDEN / f"{kind}.npz")
    spec = make_encoder_spec(kind)
    reference = EncoderReference(spec, plain_encoder_weights(spec, int(golden["seed"])))
    tokens, types = golden["tokens"].tolist(), golden["types"].tolist()
    made = reference.encode(tokens, types)
    assert np.abs(made.hidden - golden["hidden"]).max() < 1e-5
    assert np.abs(made.embedding - golden["embeddings"][0]).max() < 1e-5
    padded = reference.encode(tokens[:5], types[:5])
    assert np.abs(padded.embedding - golden["embeddings"][1]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_the_text_matters(kind: str) -> None:
    spec = make_encoder_spec(kind)
    reference = EncoderReference(spec, plain_encoder_weights(spec, 1))
    whole = reference.encode(TOKENS).embedding
    for place in range(len(TOKENS)):
        changed = list(TOKENS)
        changed[place] = (changed[place] + 1) % spec.vocab
        assert np.abs(reference.encode(changed).embedding - whole).max() > 1e-4
    assert np.abs(reference.encode(TOKENS[::-1]).embedding - whole).max() > 1e-3


def test_impossible_texts_are_refused() -> None:
    spec = make_encoder_spec("minilm")
    reference = EncoderReference(spec, plain_encoder_weights(spec, 1))
    for tokens in ([], [-1], [512], [1] * 97):
        with pytest.raises(InputError, match="expected"):
            reference.encode(tokens)
    with pytest.raises(InputError, match="token types from 0 to 1"):
        reference.encode([1, 2], [0, 2])
    with pytest.raises(InputError, match="each with its type"):
        reference.encode([1, 2], [1])


def test_minilm_has_the_parameters_it_is_published_with() -> None:
    # sentence-transformers/all-MiniLM-L6-v2: 22713216 with the pooler's 384 x 385.
    spec = make_encoder_spec(
        "minilm", layers=6, hidden=384, intermediate=1536, heads=12, vocab=30522, positions=512
    )
    assert spec.parameters == 22713216 - 384 * 385


@pytest.mark.parametrize("kind", KINDS)
def test_folder_is_read_as_it_was_made(kind: str, tmp_path: Path) -> None:
    spec = make_encoder(tmp_path / "m", kind, seed=4)
    assert encoder_from_folder(tmp_path / "m", spec.id) == spec
    assert is_encoder_reference(str(tmp_path / "m"))
    with EncoderCheckpoint(tmp_path / "m", spec) as checkpoint:
        for tensor, values in encoder_weights(spec, 4):
            assert np.array_equal(checkpoint(tensor), values)


def test_a_plain_model_has_the_mean_as_its_vector(tmp_path: Path) -> None:
    spec = make_encoder(tmp_path, "minilm")
    (tmp_path / "modules.json").unlink()
    read = encoder_from_folder(tmp_path)
    assert (read.pooling, read.normalise) == ("mean", False)
    assert read.layers == spec.layers


def test_newer_pooling_configuration(tmp_path: Path) -> None:
    make_encoder(tmp_path, "minilm")
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    assert encoder_from_folder(tmp_path).pooling == "cls"


CONFIGURATIONS: list[tuple[dict[str, Any], str]] = [
    ({"position_embedding_type": "relative_key"}, "position_embedding_type: only absolute"),
    ({"is_decoder": True}, "is_decoder: only encoders"),
    ({"hidden_act": "silu"}, "hidden_act: only gelu"),
    ({"architectures": ["BertForSequenceClassification"]}, "architectures: only BertModel"),
    ({"architectures": "BertModel\0" * 99}, "architectures: only BertModel"),
    ({"num_attention_heads": 5}, r"hidden \(64\) must be a multiple of heads \(5\)"),
    ({"hidden_size": None}, "hidden_size: required, but missing"),
    ({"hidden_size": "64"}, "hidden_size: must be a valid integer"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: must be less than"),
    ({"layer_norm_eps": 0.0}, "layer_norm_eps: must be greater than 0"),
    ({"type_vocab_size": 0}, "type_vocab_size: a bert has at least one"),
    ({"quantization_config": {}}, "quantization_config: only weights that are not quantised"),
    ({"pruned_heads": {"1": [0]}}, "pruned_heads"),
]


@pytest.mark.parametrize(("change", "problem"), CONFIGURATIONS)
def test_what_cannot_be_converted_is_refused(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    config = encoder_config(make_encoder_spec("minilm"), "minilm") | change
    write_json(tmp_path / "config.json", config)
    with pytest.raises(InputError, match=problem):
        encoder_from_folder(tmp_path)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    config = encoder_config(make_encoder_spec("minilm"), "minilm")
    write_json(tmp_path / "config.json", config | {"is_decoder": True, "hidden_act": 3})
    with pytest.raises(InputError, match="2 problems"):
        encoder_from_folder(tmp_path)


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ([{"type": "a.Pooling", "path": "../../etc"}], r"\[0\].path: expected the name"),
        ([{"type": "a.Pooling", "path": ".."}], r"\[0\].path: expected the name"),
        ([{"type": "a.Dense", "path": "2_Dense"}], "module 'Dense' is not supported"),
        ([3, {"type": ["x"]}], r"\[1\].type: the module None"),
    ],
)
def test_modules_that_mean_something_else(modules: Any, problem: str, tmp_path: Path) -> None:
    spec = make_encoder_spec("minilm")
    write_json(tmp_path / "config.json", encoder_config(spec, "minilm"))
    write_json(tmp_path / "modules.json", modules)
    with pytest.raises(InputError, match=problem):
        encoder_from_folder(tmp_path)


def test_two_ways_of_pooling_are_refused(tmp_path: Path) -> None:
    spec = make_encoder_spec("minilm")
    write_json(tmp_path / "config.json", encoder_config(spec, "minilm"))
    write_modules(tmp_path, spec)
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    write_json(tmp_path / "1_Pooling" / "config.json", both)
    with pytest.raises(InputError, match="exactly one of mean, cls"):
        encoder_from_folder(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(encoder_config(make_encoder_spec("minilm"), "x"))),
                       VALUES))  # fmt: skip
def test_any_configuration_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(encoder_config(make_encoder_spec("minilm"), "x") | change))
    with contextlib.suppress(InputError):
        assert isinstance(encoder_from_folder(path), EncoderSpec)


def test_only_encoders_are_taken_for_one(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    assert not is_encoder(tmp_path)
    assert not is_encoder(tmp_path / "nothing")
    assert not is_encoder_reference("smollm2-135m")
    with pytest.raises(InputError, match="'llama' is no encoder"):
        encoder_from_folder(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    spec = make_encoder(tmp_path, "minilm")
    wider = spec.model_copy(update={"intermediate": 176, "layers": 2})
    with pytest.raises(InputError, match="the weights do not fit") as error:
        EncoderCheckpoint(tmp_path, wider)
    text = str(error.value)
    assert "encoder.layer.0.intermediate.dense.weight: expected shape [176, 64]" in text
    assert "encoder.layer.2.attention.output.dense.weight: bert has no such tensor" in text
    distilled = make_encoder_spec("distilbert")
    with pytest.raises(InputError, match="missing"):
        EncoderCheckpoint(tmp_path, distilled)


def test_a_configuration_alone_has_no_weights(tmp_path: Path) -> None:
    make_encoder(tmp_path, "minilm")
    config = str(tmp_path / "config.json")
    assert encoder_job(config, "f32", tmp_path, synthetic=True).folder is None
    with pytest.raises(InputError, match="only a configuration"):
        encoder_job(config, "f32", tmp_path)
    with pytest.raises(InputError, match="there are: gguf, onnx, tflite"):
        encoder_converter_for("coreml")


# --- the tokenizer


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        table, _, name = key.rpartition("__")
        (document[table] if table else document)[name] = value
    path.write_text(json.dumps(document))
    return folder


def test_wordpiece_is_read(tmp_path: Path) -> None:
    make_encoder(tmp_path, "minilm")
    found = read_wordpiece(tmp_path, 512)
    assert found.special == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert found.added == {0, 1, 2, 3, 4}
    assert (found.lowercase, found.strip_accents) == (True, True)
    assert len(found.tokens) == 512 and "##s" in found.tokens
    assert read_wordpiece(tmp_path, 515).tokens[512:] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model__type": "BPE"}, "model.type: expected WordPiece"),
        ({"model__continuing_subword_prefix": "@@"}, "continuing_subword_prefix: expected ##"),
        ({"normalizer": None}, "normalizer: expected a BertNormalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer: expected"),
        ({"model__vocab": {"[UNK]": 1}, "added_tokens": []}, r"\[CLS\]: no such token"),
        ({"model__vocab": {"a": 600}}, "id 600, but the embedding has 512 rows"),
        ({"model__vocab": {"a": -1}}, "id -1"),
        ({"model__vocab": {"a": 7, "b": 7}}, "id 7 is that of 'a' too"),
        ({"model__vocab": {"\ud800": 7}}, "not a text that can be stored"),
        ({"model__vocab": []}, "model.vocab"),
    ],
)
def test_other_tokenizers_are_refused(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    make_encoder(tmp_path, "minilm")
    with pytest.raises(InputError, match=problem):
        read_wordpiece(edited(tmp_path, **changes), 512)


FILE = json.loads(wordpiece(512))


@given(st.sampled_from(["model", "normalizer", "pre_tokenizer", "added_tokens", "vocab"]), VALUES)
def test_any_tokenizer_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    changed = FILE | ({"model": FILE["model"] | {"vocab": value}} if key == "vocab" else {})
    write_json(folder / "tokenizer.json", changed | ({} if key == "vocab" else {key: value}))
    with contextlib.suppress(InputError):
        assert len(read_wordpiece(folder, 512).tokens) == 512


@given(VALUES, VALUES)
def test_any_modules_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, modules: Any, pooling: Any
) -> None:
    folder, spec = tmp_path_factory.mktemp("modules"), make_encoder_spec("minilm")
    write_json(folder / "config.json", encoder_config(spec, "minilm"))
    write_json(folder / "modules.json", [{"type": "a.Pooling", "path": "p"}, modules])
    (folder / "p").mkdir()
    write_json(folder / "p" / "config.json", {"pooling_mode": pooling, "pooling_mode_x": modules})
    with contextlib.suppress(InputError):
        assert encoder_from_folder(folder).pooling in ("mean", "cls")
