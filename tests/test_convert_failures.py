"""Conversions that cannot succeed: a clear error, and nothing under the artifact's final name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conversions import conversion, convert, quiet
from make_models import make_folder, make_spec, plain_weights

from edgegauge.artifact import open_artifact
from edgegauge.errors import ConversionError, InputError
from edgegauge_converters import temporary_file
from edgegauge_converters.gguf import GgufConverter
from edgegauge_converters.safetensors_file import SafetensorsFile

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def overwrite(folder: Path, name: str, values: bytes) -> None:
    """Replace the first bytes of a tensor's data."""
    with SafetensorsFile(folder / "model.safetensors") as file:
        start = file.entries[name].start
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(start)
        stream.write(values)


def test_truncated_weights(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama")
    path = tmp_path / "model" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(InputError, match="truncated") as caught:
        convert(spec, tmp_path / "model", tmp_path / "out")
    assert str(path) in str(caught.value)
    assert left_in(tmp_path / "out") == []


@pytest.mark.parametrize("recipe", ["f32", "f16", "q4_0", "q4_k_m"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_weights_that_are_not_numbers(tmp_path: Path, dtype: str, recipe: str) -> None:
    spec = make_folder(tmp_path / "model", "llama", dtype=dtype)
    overwrite(tmp_path / "model", "model.layers.1.mlp.up_proj.weight", b"\xff" * 8)
    with pytest.raises(ConversionError, match=r"blk\.1\.ffn_up\.weight holds values"):
        convert(spec, tmp_path / "model", tmp_path / "out", recipe)
    assert left_in(tmp_path / "out") == []


def test_weights_too_large_for_half_precision(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", dtype="f32")
    overwrite(tmp_path / "model", "model.embed_tokens.weight", np.float32(1e5).tobytes())
    with pytest.raises(ConversionError, match=r"token_embd\.weight") as caught:
        convert(spec, tmp_path / "model", tmp_path / "out", "f16")
    assert "q8_0" in str(caught.value.hint)
    convert(spec, tmp_path / "model", tmp_path / "out", "q8_0")


def test_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", tokenizer_vocab=600)
    with pytest.raises(InputError, match="embedding has 512 rows"):
        convert(spec, tmp_path / "model", tmp_path / "out")
    assert left_in(tmp_path / "out") == []


def test_missing_tokenizer(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        convert(spec, tmp_path / "model", tmp_path / "out")
    assert left_in(tmp_path / "out") == []


def test_output_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConversionError, match="cannot write"):
        convert(make_spec("llama"), None, tmp_path / "out")


# --- full disks


def test_too_little_space_is_seen_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(temporary_file.shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(ConversionError, match=r"1\.00 kB free, the artifact needs"):
        convert(make_spec("llama"), None, tmp_path / "out")
    assert left_in(tmp_path / "out") == []


def limited(arguments: list[str], limit: int) -> subprocess.CompletedProcess[str]:
    """Run the command with files limited to this many bytes."""
    script = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from edgegauge.cli import main\n"
        "main(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120
    )


@POSIX
@pytest.mark.parametrize("limit", [5_000, 100_000])
def test_disk_that_fills_while_writing(tmp_path: Path, limit: int) -> None:
    """In the header (5 kB) and in the tensors (100 kB); an older artifact stays as it was."""
    spec = make_folder(tmp_path / "tiny", "llama")
    convert(spec, tmp_path / "tiny", tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in left_in(tmp_path / "out")}
    arguments = ["convert", str(tmp_path / "tiny"), "--recipe", "q8_0", "-o", str(tmp_path / "out")]
    (tmp_path / "out" / "tiny-q8_0.gguf").write_bytes(b"older")
    before["tiny-q8_0.gguf"] = b"older"
    done = limited(arguments, limit)
    assert done.returncode == 1
    assert "error: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    after = {name: (tmp_path / "out" / name).read_bytes() for name in left_in(tmp_path / "out")}
    assert after == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_small_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("llama")
    with pytest.raises(ConversionError, match="free, the artifact needs"):
        convert(spec, None, small_disk, "f32")
    # Another program fills the disk after the check.
    monkeypatch.setattr(temporary_file, "_check_space", lambda folder, size: None)
    with pytest.raises(ConversionError, match="No space left on device"):
        convert(spec, None, small_disk, "f32")
    assert left_in(small_disk) == []
    convert(spec, None, small_disk, "q4_0")
    assert open_artifact(small_disk).manifest is not None


# --- kills

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored
from pathlib import Path
from edgegauge.artifact import Origin
from edgegauge.convert import ConversionJob
from edgegauge.read_config import spec_from_folder
from edgegauge_converters.gguf import GgufConverter
folder = Path(sys.argv[1])
def progress(done, what):
    if done > 0.5:
        print("half", flush=True)
        time.sleep(60)
GgufConverter().convert(ConversionJob(
    spec=spec_from_folder(folder, "tiny"), folder=folder, recipe="q8_0", output=Path(sys.argv[2]),
    origin=Origin(kind="folder", reference="tiny")), progress)
"""


def half_done(folder: Path, output: Path) -> subprocess.Popen[str]:
    """A conversion that stands still in the middle."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder), str(output)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


@POSIX
def test_kill_leaves_no_artifact_and_the_next_conversion_cleans_up(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", id="tiny")
    with half_done(tmp_path / "model", tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    (stale,) = left_in(tmp_path / "out")
    assert stale.startswith(".tiny-q8_0.gguf.")
    assert stale.endswith(".tmp")
    convert(spec, tmp_path / "model", tmp_path / "out")
    assert left_in(tmp_path / "out") == ["tiny-q8_0.gguf", "tiny-q8_0.gguf.manifest.json"]


@POSIX
def test_a_running_conversion_is_left_alone(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", id="tiny")
    with half_done(tmp_path / "model", tmp_path / "out") as process:
        (running,) = left_in(tmp_path / "out")
        convert(spec, tmp_path / "model", tmp_path / "out")
        assert running in left_in(tmp_path / "out")
        process.kill()


@POSIX
def test_interrupt_removes_the_temporary_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "model", "llama", id="tiny")
    with half_done(tmp_path / "model", tmp_path / "out") as process:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert left_in(tmp_path / "out") == []


def test_values_are_written_after_a_failure(tmp_path: Path) -> None:
    """A converter that failed is usable again: nothing is kept between conversions."""
    spec = make_folder(tmp_path / "model", "qwen3", dtype="f32")
    converter = GgufConverter()
    overwrite(tmp_path / "model", "model.norm.weight", b"\xff" * 4)
    with pytest.raises(ConversionError):
        converter.convert(conversion(spec, tmp_path / "model", tmp_path / "out"), quiet)
    first = next(t for t in spec.tensors() if t.role == "output_norm")
    good = plain_weights(spec, 0)(first)
    overwrite(tmp_path / "model", "model.norm.weight", good.astype("<f4").tobytes())
    converter.convert(conversion(spec, tmp_path / "model", tmp_path / "out"), quiet)
    assert open_artifact(tmp_path / "out").manifest is not None
