"""Reading GGUF headers: against the `gguf` package, and against hostile files."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_models import FAMILIES, make_spec

from edgegauge.artifact import open_artifact
from edgegauge.check.subject import artifact_subject
from edgegauge.errors import InputError
from edgegauge.gguf_header import (
    label,
    label_note,
    spec_from_gguf,
    spec_from_header,
    storage,
    tensor_name,
)
from edgegauge.gguf_reader import Array, read_header
from edgegauge.gguf_types import TENSOR_TYPES
from edgegauge.model import ModelSpec
from edgegauge.recipe import stored_tensors, tensor_bytes

LABELS = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k_m": 15}


def llama3_factors(spec: ModelSpec) -> np.ndarray:
    """What llama.cpp's converter stores for Llama 3's rule (conversion/llama.py)."""
    rule = spec.rope_scaling
    assert rule is not None
    period = 2 * np.pi * spec.rope_theta ** (np.arange(0, spec.head_dim, 2) / spec.head_dim)
    turns = rule.original_context / period
    smooth = (turns - rule.low_freq_factor) / (rule.high_freq_factor - rule.low_freq_factor)
    return (1 / np.clip((1 - smooth) / rule.factor + smooth, 1 / rule.factor, 1)).astype("<f4")


def metadata(spec: ModelSpec) -> dict[str, Any]:
    """The keys that llama.cpp's converter writes for this architecture."""
    arch = spec.family
    keys: dict[str, Any] = {
        f"{arch}.block_count": spec.executed_layers,
        f"{arch}.embedding_length": spec.hidden,
        f"{arch}.feed_forward_length": spec.intermediate,
        f"{arch}.attention.head_count": spec.heads,
        f"{arch}.attention.head_count_kv": spec.kv_heads,
        f"{arch}.attention.key_length": spec.head_dim,
        f"{arch}.attention.value_length": spec.head_dim,
        f"{arch}.context_length": spec.context,
        f"{arch}.attention.layer_norm_rms_epsilon": spec.norm_eps,
        f"{arch}.rope.freq_base": spec.rope_theta,
    }
    if spec.sliding_window:
        keys[f"{arch}.attention.sliding_window"] = spec.sliding_window
    return keys


def write(path: Path, spec: ModelSpec, recipe: str = "f16", **changes: Any) -> Path:
    """A GGUF file of this spec with zeros for weights; `changes` replace or drop (None) keys."""
    writer = gguf.GGUFWriter(path, spec.family)
    writer.add_file_type(LABELS[recipe])
    keys = metadata(spec) | {f"{spec.family}.{k}": v for k, v in changes.items()}
    for key, value in keys.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, (str, float)):
            (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    for stored in stored_tensors(spec, recipe):
        tensor, kind = stored.tensor, gguf.GGMLQuantizationType[stored.type]
        data = np.zeros(stored.bytes, np.uint8)
        if tensor.role == "rope_freqs":
            data = llama3_factors(spec).view(np.uint8)
        shape = [tensor.rows, stored.bytes // tensor.rows]
        writer.add_tensor(
            tensor_name(tensor), data.reshape(shape[tensor.is_vector :]), raw_dtype=kind
        )
    return finish(writer)


def finish(writer: gguf.GGUFWriter) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(writer.path)


def as_stored(spec: ModelSpec, id: str) -> ModelSpec:
    """The spec as a GGUF file can say it: shared blocks written out."""
    return spec.model_copy(update={"id": id, "layers": spec.executed_layers, "layer_repeats": 1})


@pytest.mark.parametrize("recipe", ["f16", "q4_0", "q4_k_m"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_gives_back_its_spec_and_its_bytes(tmp_path: Path, family: str, recipe: str) -> None:
    spec = make_spec(family)
    path = write(tmp_path / "Tiny-X.gguf", spec, recipe)
    header = read_header(path)
    assert spec_from_header(header) == as_stored(spec, "tiny-x")
    stored = storage(header)
    assert stored.tensor_bytes == tensor_bytes(spec, recipe)
    assert {t.type for t in stored.types} == {t.type for t in stored_tensors(spec, recipe)}
    assert label(header) == recipe.upper()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_file_is_judged_as_it_is_stored(tmp_path: Path, family: str) -> None:
    path = write(tmp_path / "bare.gguf", make_spec(family), "q4_k_m")
    subject = artifact_subject(open_artifact(path))
    assert subject.spec is not None and subject.unpredictable is None
    types = {t.tensor: t.type for t in stored_tensors(subject.spec, subject.recipe)}
    assert types == {t.tensor: t.type for t in stored_tensors(subject.spec, "q4_k_m")}
    assert len(set(types.values())) > 2


@pytest.mark.parametrize("family", ["llama3", "gemma3"])
def test_places_and_sizes_agree_with_the_gguf_package(tmp_path: Path, family: str) -> None:
    path = write(tmp_path / "x.gguf", make_spec(family), "q4_k_m")
    header = read_header(path)
    reader = gguf.GGUFReader(path)
    assert header.data_offset == reader.data_offset
    theirs = {
        t.name: (t.tensor_type.name, tuple(t.shape), t.data_offset, t.n_bytes)
        for t in reader.tensors
    }
    ours = {
        t.name: (t.type, t.shape, header.data_offset + t.offset, t.bytes)
        for t in header.tensors.values()
    }
    assert ours == theirs


def test_block_sizes_agree_with_the_gguf_package() -> None:
    theirs = {int(t): (t.name, *size) for t, size in gguf.GGML_QUANT_SIZES.items()}
    unstored = {int(gguf.GGMLQuantizationType.Q8_1)}  # the package changed its size, no file has it
    for number in (theirs.keys() & TENSOR_TYPES.keys()) - unstored:
        assert TENSOR_TYPES[number] == theirs[number]
    assert theirs.keys() <= TENSOR_TYPES.keys()


def test_every_kind_of_value(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    limits = {
        "uint8": 255, "int8": -128, "uint16": 65535, "int16": -32768, "uint32": 2**32 - 1,
        "int32": -(2**31), "uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.5,
        "float64": math.pi, "bool": True, "string": "naïve ✓",
    }  # fmt: skip
    for kind, value in limits.items():
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_array("x.ints", [1, 2, 3])
    writer.add_array("x.flags", [True, False])
    writer.add_array("x.strings", ["a", "bb"])
    writer.add_array("x.long", list(range(5000)))
    found = read_header(finish(writer)).metadata
    assert {kind: found[f"x.{kind}"] for kind in limits} == limits
    assert found["x.ints"] == Array(3, (1, 2, 3))
    assert found["x.flags"] == Array(2, (True, False))
    assert found["x.strings"] == Array(2, None)
    assert found["x.long"] == Array(5000, None)


def test_a_large_vocabulary_is_counted_quickly(tmp_path: Path) -> None:
    """150,000 tokens, their scores and 300,000 merges: well under a second, nothing of it held."""
    tokens = b"".join(string(f"token{i}") for i in range(150_000))
    merges = b"".join(string(f"{i} {i}") for i in range(300_000))
    path = raw(
        tmp_path / "x.gguf",
        [
            (string("tokens"), struct.pack("<IIQ", 9, 8, 150_000) + tokens),
            (string("scores"), struct.pack("<IIQ", 9, 6, 150_000) + bytes(600_000)),
            (string("merges"), struct.pack("<IIQ", 9, 8, 300_000) + merges),
            (string("after"), struct.pack("<II", 4, 7)),
        ],
    )
    start = time.process_time()
    found = read_header(path).metadata
    assert time.process_time() - start < 0.8
    assert found["tokens"] == Array(150_000, None)
    assert found["scores"] == Array(150_000, None)
    assert found["merges"] == Array(300_000, None)
    assert found["after"] == 7


def string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def raw(
    path: Path,
    keys: list[tuple[bytes, bytes]] = (),  # type: ignore[assignment]
    tensors: list[bytes] = (),  # type: ignore[assignment]
    *,
    head: bytes | None = None,
    data: bytes = b"",
) -> Path:
    """A file byte by byte; `head` replaces magic, version and counts."""
    start = head or b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    body = start + b"".join(k + v for k, v in keys) + b"".join(tensors)
    path.write_bytes(body + bytes(-len(body) % 32) + data)
    return path


def tensor(name: str, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dims + struct.pack("<IQ", kind, offset)


U32 = struct.pack("<I", 4)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "magic": ({"head": b"GGML" + bytes(40)}, "does not start with GGUF"),
    "version": ({"head": b"GGUF" + struct.pack("<IQQ", 1, 0, 0)}, "version 1"),
    "big endian": ({"head": b"GGUF" + struct.pack(">IQQ", 3, 0, 0)}, "big-endian"),
    "key count": ({"head": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63)}, "metadata keys announced"),
    "tensor count": ({"head": b"GGUF" + struct.pack("<IQQ", 3, 99, 0)}, "tensors announced"),
    "key length": ({"keys": [(struct.pack("<Q", 2**62), b"")]}, "metadata key 0: truncated"),
    "value type": ({"keys": [(string("k"), struct.pack("<I", 13))]}, "k: unknown value type 13"),
    "nested array": (
        {"keys": [(string("k"), struct.pack("<IIQ", 9, 9, 1))]}, "k: unknown value type 9",
    ),
    "array length": (
        {"keys": [(string("k"), struct.pack("<IIQ", 9, 4, 2**62))]}, "k: truncated",
    ),
    "string array": (
        {"keys": [(string("k"), struct.pack("<IIQ", 9, 8, 2**61))]}, "k: truncated",
    ),
    "string in array": (
        {"keys": [(string("k"), struct.pack("<IIQQ", 9, 8, 1, 2**63))]}, "k: truncated",
    ),
    "twice": ({"keys": [(string("k"), U32 + U32)] * 2}, "k: this key is there twice"),
    "control characters": (
        {"keys": [(string("\x1b[31m"), struct.pack("<I", 99))]}, r"\?\[31m: unknown value type",
    ),
    "alignment": (
        {"keys": [(string("general.alignment"), U32 + struct.pack("<I", 24))]}, "power of two",
    ),
    "dimensions": ({"tensors": [tensor("t", [])]}, "t: expected 1 to 4 dimensions"),
    "huge shape": ({"tensors": [tensor("t", [2**63, 2**63])]}, "t: impossible shape"),
    "empty shape": ({"tensors": [tensor("t", [0])]}, "t: impossible shape"),
    "tensor type": ({"tensors": [tensor("t", [4], kind=4)]}, "t: unknown tensor type 4"),
    "block": ({"tensors": [tensor("t", [48], kind=2)]}, "t: rows of 48 do not divide"),
    "no data": ({"tensors": [tensor("t", [8])]}, "t: the file is truncated"),
    "far offset": (
        {"tensors": [tensor("t", [8], offset=2**63)], "data": bytes(64)}, "t: the file is trunc",
    ),
    "odd offset": (
        {"tensors": [tensor("t", [8], offset=4)], "data": bytes(64)}, "t: offset 4 is no multiple",
    ),
    "overlap": (
        {"tensors": [tensor("a", [8]), tensor("b", [8])], "data": bytes(64)}, "within another",
    ),
    "tensor twice": (
        {"tensors": [tensor("a", [8]), tensor("a", [8], offset=32)], "data": bytes(64)}, "twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_say_what_and_where(tmp_path: Path, name: str) -> None:
    parts, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        read_header(raw(tmp_path / "x.gguf", **parts))
    assert str(caught.value).endswith(f"@ {tmp_path / 'x.gguf'}")
    assert "\x1b" not in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_header(tmp_path / "x.gguf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A complete small file."""
    spec = make_spec("llama3", layers=1, vocab=64, hidden=32, intermediate=32, head_dim=8)
    content = write(tmp_path_factory.mktemp("gguf") / "x.gguf", spec).read_bytes()
    return content[:-16]  # what pads the last tensor, the 4 floats of rope_freqs, to 32 bytes


@settings(max_examples=150, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), data=st.data())
def test_truncated_and_damaged_files_never_crash(
    whole: bytes, cut: float, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "x.gguf"
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(InputError):
        read_header(path)
    header_bytes = read_header_size(whole)
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, header_bytes), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        spec = spec_from_gguf(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert spec.parameters > 0


def read_header_size(content: bytes) -> int:
    return content.rfind(b"rope_freqs.weight") + 40


def test_labels_that_mislead_get_a_note(tmp_path: Path) -> None:
    wide = make_spec("llama", hidden=256, intermediate=512, head_dim=64, vocab=512, tied=False)
    honest = read_header(write(tmp_path / "a.gguf", wide, "q4_k_m"))
    assert label_note(honest) is None
    # Rows of 64 fit no k-quant, so the same recipe takes 6.4 bits.
    narrow = read_header(write(tmp_path / "b.gguf", make_spec("llama"), "q4_k_m"))
    note = label_note(narrow)
    assert note is not None and "labelled Q4_K_M" in note and "Q5_0" in note
    bare = read_header(raw(tmp_path / "c.gguf"))
    assert (label(bare), label_note(bare), storage(bare).effective_bits) == (None, None, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expert_count": 8}, "llama.expert_count: mixtures"),
        ({"final_logit_softcapping": 30.0}, "softcapping"),
        ({"rope.scaling.type": "yarn"}, "rope.scaling.type: supported are none and linear"),
        ({"rope.dimension_count": 8}, "rope.dimension_count"),
        ({"block_count": None}, "llama.block_count: expected a whole number"),
        ({"block_count": 4}, "blk.3.attn_norm.weight: missing"),
        ({"block_count": 2}, "blk.2.attn_norm.weight: not part of a llama model"),
        ({"feed_forward_length": 128}, "blk.0.ffn_gate.weight: expected the shape"),
        ({"feed_forward_length": [160, 128, 160]}, "layers that differ"),
        ({"attention.head_count": "four"}, "attention.head_count: expected a whole number"),
        ({"attention.layer_norm_rms_epsilon": math.nan}, "rms_epsilon: expected a number"),
    ],
)
def test_files_no_spec_describes_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "x.gguf", make_spec("llama"), **change)
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        spec_from_gguf(path)
    assert storage(read_header(path)).tensor_bytes > 0


def test_parts_and_foreign_architectures_are_refused(tmp_path: Path) -> None:
    part = raw(tmp_path / "x.gguf", [
        (string("general.architecture"), struct.pack("<I", 8) + string("llama")),
        (string("split.count"), U32 + struct.pack("<I", 2)),
    ])  # fmt: skip
    with pytest.raises(InputError, match=r"split\.count"):
        spec_from_gguf(part)
    with pytest.raises(InputError, match=r"general\.architecture: 'None'"):
        spec_from_gguf(raw(tmp_path / "y.gguf"))


def test_keys_per_layer_and_linear_scaling(tmp_path: Path) -> None:
    spec = make_spec("llama")
    changes = {
        "feed_forward_length": [160, 160, 160],
        "attention.head_count_kv": [2, 2, 2],
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 4.0,
    }
    found = spec_from_gguf(write(tmp_path / "x.gguf", spec, **changes))
    assert (found.intermediate, found.kv_heads) == (160, 2)
    assert found.rope_scaling is not None and found.rope_scaling.factor == 4


def test_sliding_window_patterns(tmp_path: Path) -> None:
    spec = make_spec("gemma3")
    pattern = {"attention.sliding_window_pattern": 3, "rope.freq_base_swa": 500.0}
    found = spec_from_gguf(write(tmp_path / "a.gguf", spec, **pattern))
    assert (found.global_every, found.rope_local_theta) == (3, 500)
    flags = {"attention.sliding_window_pattern": [True, False] * 3}
    assert spec_from_gguf(write(tmp_path / "b.gguf", spec, **flags)).global_every == 2
    flags = {"attention.sliding_window_pattern": [False, True] * 3}
    with pytest.raises(InputError, match="sliding_window_pattern"):
        spec_from_gguf(write(tmp_path / "c.gguf", spec, **flags))


@pytest.mark.parametrize("original", [64, 4096, 8192])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_llama3_scaling_is_recovered_from_its_factors(
    tmp_path: Path, original: int, head_dim: int
) -> None:
    spec = make_spec("llama3", head_dim=head_dim)
    assert spec.rope_scaling is not None
    rule = spec.rope_scaling.model_copy(update={"factor": 32.0, "original_context": original})
    spec = spec.model_copy(update={"rope_scaling": rule})
    assert spec_from_gguf(write(tmp_path / "x.gguf", spec)).rope_scaling == rule
