"""Opening artifacts: what is one, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegauge.artifact import manifest_path, open_artifact, sha256_of
from edgegauge.errors import InputError


def test_a_bare_gguf_file_is_an_artifact_without_manifest(tmp_path: Path) -> None:
    path = tmp_path / "foreign.bin"
    path.write_bytes(b"GGUF" + bytes(20))
    artifact = open_artifact(path)
    assert artifact.manifest is None
    assert artifact.file_format == "gguf"
    assert open_artifact(path).name == "foreign"


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    with pytest.raises(InputError, match=r"config\.json is neither a GGUF file"):
        open_artifact(path)


def test_a_folder_must_hold_exactly_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 0"):
        open_artifact(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match="found 2") as caught:
        open_artifact(tmp_path)
    assert caught.value.problems == ["a.gguf", "b.gguf"]
    (tmp_path / "b.gguf").unlink()
    assert open_artifact(tmp_path).path == tmp_path / "a.gguf"


def test_a_damaged_manifest_is_an_error_and_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    manifest_path(path).write_text('{"format": 1}')
    with pytest.raises(InputError, match="required, but missing"):
        open_artifact(path)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert sha256_of(path).startswith("e3b0c44298fc1c14")
