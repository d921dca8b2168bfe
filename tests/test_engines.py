"""Engines: environments built apart, complete or not at all, and what their drivers leave.

The environments here need no package, so that none needs a network; `test_engines_real.py` builds
the shipped ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from make_models import make_folder

from edgegauge import engines
from edgegauge.artifact import open_artifact
from edgegauge.cli import main
from edgegauge.engines import Engine, EngineFacts, environment
from edgegauge.engines.checks import engine_checks
from edgegauge.engines.conversion import (
    NOT_COMPARED,
    EngineJob,
    convert_with,
    driver_environment,
)
from edgegauge.engines.environment import environment_path, pip_environment, python_of
from edgegauge.engines.source import source_of, stored_parameters
from edgegauge.errors import ConversionError, InputError
from edgegauge.measure.facts import artifact_facts, digest_of, spec_of

AGREES = {
    "positions": 48, "max_error": 0.004, "mean_error": 1e-4, "rms_error": 1e-3, "kl_mean": 1e-6,
    "kl_p99": 1e-5, "kl_max": 1e-5, "same_choice": 1.0,
}  # fmt: skip

DRIVER = """
import json, os, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
print("working", flush=True)
answer = {answer}
{before}
main = Path(job["output"]) / job["name"]
main.write_bytes(b"graph of " + job["precision"].encode())
(main.parent / "tokenizer.json").write_text("{{}}")
if not job["compare"]:
    answer["agreement"] = None
seen = {{"prefix": sys.prefix, "path": sys.path, "variables": dict(os.environ)}}
(main.parent / "seen.json").write_text(json.dumps(seen))
Path(job["answer"]).write_text(json.dumps(answer))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgegauge" / "engines"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model of an architecture that no blueprint describes."""
    folder = tmp_path / "Other-1M"
    make_folder(folder, "llama")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["OtherForCausalLM"], "model_type": "other"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fake(
    tmp_path: Path, *, before: str = "", agreement: object = AGREES, requirements: str = ""
) -> Engine:
    """An engine that writes a file, after executing `before`."""
    folder = tmp_path / "engines" / "fake"
    folder.mkdir(parents=True, exist_ok=True)
    answer = f"{{'tensor_bytes': 1000, 'agreement': {agreement!r}}}"
    (folder / "driver.py").write_text(DRIVER.format(before=before, answer=answer))
    (folder / "requirements.txt").write_text(f"# nothing\n{requirements}\n")
    (folder / "engine.toml").write_text(
        'about = "writes a file"\nfile_format = "onnx"\ntools = ["nothing"]\ndisk_bytes = 1000\n'
        'recipes = { f32 = "fp32", int8 = "eight" }\n'
    )
    return Engine("fake", folder, EngineFacts.model_validate(
        {"about": "", "file_format": "onnx", "tools": ["nothing"], "disk_bytes": 1000,
         "recipes": {"f32": "fp32", "int8": "eight"}}))  # fmt: skip


def job_of(folder: Path, output: Path, recipe: str = "int8") -> EngineJob:
    return EngineJob(
        source=source_of(str(folder)), recipe=recipe, file_format="onnx", output=output
    )


def silent(_: str) -> None:
    """Hears nothing."""


def test_an_artifact_of_an_unknown_architecture(other: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    artifact = convert_with(fake(tmp_path), job_of(other, tmp_path / "out"), heard.append)
    assert artifact.path == tmp_path / "out" / "other-1m-int8-fake" / "other-1m-int8-fake.onnx"
    assert artifact.path.read_bytes() == b"graph of eight"
    opened = open_artifact(tmp_path / "out")
    manifest = opened.manifest
    assert manifest is not None and manifest == artifact.manifest
    assert manifest.spec is None and spec_of(opened) is None
    stored = stored_parameters(other / "model.safetensors")
    assert manifest.parameters == stored
    assert manifest.effective_bits == pytest.approx(8000 / stored)
    assert {f.name for f in manifest.files} == {artifact.path.name, "tokenizer.json", "seen.json"}
    assert manifest.agreement is not None and manifest.agreement.same_choice.value == 1
    assert manifest.tools["engine"] == "fake"
    facts = artifact_facts(opened, digest_of(opened), {})
    assert (facts.model, facts.recipe, facts.parameters) == ("other-1m", "int8", stored)
    assert heard[0] == "building the environment: making"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["other-1m-int8-fake"]


def test_a_known_architecture_keeps_its_spec(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "m", "llama")
    artifact = convert_with(fake(tmp_path), job_of(tmp_path / "m", tmp_path / "out"), silent)
    assert artifact.manifest is not None and artifact.manifest.spec is not None
    assert artifact.manifest.parameters == spec.parameters
    assert stored_parameters(tmp_path / "m" / "model.safetensors") == spec.parameters


def test_the_driver_is_alone(other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = fake(tmp_path)
    artifact = convert_with(engine, job_of(other, tmp_path / "out"), silent)
    seen = json.loads(artifact.path.with_name("seen.json").read_text())
    assert seen["prefix"] == str(environment_path(engine))
    variables = seen["variables"]
    assert "HF_TOKEN" not in variables and "PYTHONPATH" not in variables
    assert variables["HF_HUB_OFFLINE"] == variables["TRANSFORMERS_OFFLINE"] == "1"
    assert not Path(variables["HOME"]).exists()
    assert str(tmp_path) not in seen["path"]
    packages = [p for p in seen["path"] if p.endswith("site-packages")]
    assert all(p.startswith(seen["prefix"]) for p in packages)
    assert driver_environment(tmp_path, 2)["OMP_NUM_THREADS"] == "2"


def test_an_environment_is_built_once_and_keyed_by_its_requirements(
    tmp_path: Path, cache: Path
) -> None:
    engine, heard = fake(tmp_path), list[str]()
    python = python_of(engine, heard.append)
    assert python.exists() and python.parent.parent.parent == cache
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True)
    assert prefix.strip() == str(python.parent.parent)
    heard.clear()
    assert python_of(engine, heard.append) == python
    assert heard == []
    changed = fake(tmp_path, requirements="# another")
    assert environment_path(changed) != python.parent.parent
    assert environment.state_of(changed).older == [python.parent.parent]


def test_an_environment_whose_python_went_away_is_built_anew(tmp_path: Path) -> None:
    engine = fake(tmp_path)
    python = python_of(engine, silent)
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert not environment.is_built(engine)
    assert python_of(engine, silent).resolve().exists()


@pytest.mark.slow
def test_a_build_that_fails_says_pips_last_words_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    engine = fake(tmp_path, requirements="edgegauge-no-such-package==1")
    with pytest.raises(
        ConversionError, match="No matching distribution found for edgegauge-no"
    ) as e:
        python_of(engine, silent)
    assert str(e.value).startswith("pip of the environment of fake ended with status 1")
    assert e.value.hint is not None and "network" in e.value.hint
    assert [p.name for p in cache.iterdir()] == [f"{environment_path(engine).name}.lock"]
    assert not environment.is_built(engine)


def test_what_a_killed_build_left_is_not_used_but_removed(tmp_path: Path, cache: Path) -> None:
    engine = fake(tmp_path)
    left = cache / f".{environment_path(engine).name}.abc.tmp"
    (left / "bin").mkdir(parents=True)
    (left / "bin" / "python").touch()
    assert not environment.is_built(engine)
    python_of(engine, silent)
    assert not left.exists()


def test_a_build_without_room_is_refused_before_it_starts(tmp_path: Path, cache: Path) -> None:
    engine = fake(tmp_path)
    facts = engine.facts.model_copy(update={"disk_bytes": 10**18})
    with pytest.raises(ConversionError, match=r"takes .* are free") as caught:
        python_of(Engine(engine.name, engine.folder, facts), silent)
    assert caught.value.hint is not None and "XDG_CACHE_HOME" in caught.value.hint


def test_a_cache_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConversionError, match=r"cannot be built in .*Not a directory"):
        python_of(fake(tmp_path), silent)


def test_two_builds_at_once_make_one(tmp_path: Path, cache: Path) -> None:
    engine, heard = fake(tmp_path), list[str]()
    found: list[Path] = []
    builders = [
        threading.Thread(target=lambda: found.append(python_of(engine, heard.append)))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(found) == 2 and len(set(found)) == 1
    assert heard.count("building the environment: making") == 1


def test_pip_sees_how_to_reach_packages_and_nothing_else() -> None:
    seen = pip_environment(
        {"PATH": "/bin", "https_proxy": "p", "PIP_INDEX_URL": "i", "PIP_TARGET": "/x",
         "PYTHONPATH": "/x", "HF_TOKEN": "secret", "PIP_REQUIRE_HASHES": "1"}
    )  # fmt: skip
    assert seen == {"PATH": "/bin", "https_proxy": "p", "PIP_INDEX_URL": "i", "PIP_USER": "0",
                    "PYTHONNOUSERSITE": "1"}  # fmt: skip


def test_a_driver_that_fails_leaves_the_older_artifact(other: Path, tmp_path: Path) -> None:
    job = job_of(other, tmp_path / "out")
    artifact = convert_with(fake(tmp_path), job, silent)
    before = artifact.path.stat().st_ino
    broken = fake(tmp_path, before="sys.exit('\\x1b[31mno such layer: Mamba\\x1b[0m')")
    with pytest.raises(ConversionError, match="the engine fake ended with status 1") as caught:
        convert_with(broken, job, silent)
    assert str(caught.value).splitlines()[-1] == "  no such layer: Mamba"
    assert artifact.path.stat().st_ino == before
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["other-1m-int8-fake"]


def test_a_model_that_brings_code_is_refused_with_the_reason(other: Path, tmp_path: Path) -> None:
    engine = fake(tmp_path, before="sys.exit('ValueError: set trust_remote_code=True')")
    with pytest.raises(ConversionError, match="trust_remote_code=True") as caught:
        convert_with(engine, job_of(other, tmp_path / "out"), silent)
    assert caught.value.hint == "the model needs code of its own, which edgegauge never executes"


def test_a_second_conversion_replaces_the_first(other: Path, tmp_path: Path) -> None:
    job = job_of(other, tmp_path / "out")
    artifact = convert_with(fake(tmp_path), job, silent)
    artifact.path.with_name("stray").touch()
    again = convert_with(fake(tmp_path, agreement=None), job, silent)
    assert not artifact.path.with_name("stray").exists()
    assert again.manifest is not None and again.manifest.agreement is None
    assert again.manifest.warnings == [NOT_COMPARED]


@pytest.mark.parametrize(
    "before,said",
    [
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("sys.exit(0)", "wrote no other-1m-int8-fake.onnx"),
        ("Path(job['answer']).write_text('{'); (Path(job['output']) / job['name']).touch();"
         " sys.exit(0)", "ended without an answer: not valid JSON"),
        ("(Path(job['output']) / 'link').symlink_to('/etc/passwd')", "link is no plain file"),
    ],
    ids=["killed", "wrote nothing", "half an answer", "a link"],
)  # fmt: skip
def test_a_driver_that_misbehaves(before: str, said: str, other: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=re.escape(said)):
        convert_with(fake(tmp_path, before=before), job_of(other, tmp_path / "out"), silent)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "recipe,update",
    [("f32", {"max_error": 0.3, "rms_error": 0.02}), ("int8", {"rms_error": 1.4})],
)
def test_an_artifact_that_computes_something_else_is_refused(
    recipe: str, update: dict[str, float], other: Path, tmp_path: Path
) -> None:
    engine = fake(tmp_path, agreement=AGREES | update)
    with pytest.raises(ConversionError, match="does not compute the model"):
        convert_with(engine, job_of(other, tmp_path / "out", recipe), silent)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_conversion_left_is_removed(other: Path, tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    left = tmp_path / "out" / f".other-1m-int8-fake.{done.pid}.abc"
    left.mkdir(parents=True)
    ours = tmp_path / "out" / f".other-1m-int8-fake.{os.getpid()}.abc"
    ours.mkdir()
    convert_with(fake(tmp_path), job_of(other, tmp_path / "out"), silent)
    assert not left.exists() and ours.exists()


def test_only_safetensors_are_converted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model folder 'nowhere'"):
        source_of("nowhere")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match="no model") as caught:
        source_of(str(tmp_path))
    assert caught.value.hint == "weights in pickles are never read"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]",
     b'\x08\0\0\0\0\0\0\0{"a": 1}', b'\x0d\0\0\0\0\0\0\0{"a":{"b":1}}'],
)  # fmt: skip
def test_a_damaged_header_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="safetensors"):
        stored_parameters(path)


def execute(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_command(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "FOLDER", fake(tmp_path).folder.parent)
    asked = ("convert", other, "--engine", "fake", "--format", "onnx", "-o", tmp_path / "out")
    assert execute(*asked, "--recipe", "f32", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["manifest"]["spec"] is None
    assert "building the environment of fake, once" in err
    assert execute(*asked, "--recipe", "int8") == 0
    out, err = capsys.readouterr()
    assert "KL 1e-06 nat" in out and "building" not in err
    assert execute(*asked, "--recipe", "int8", "--no-verify") == 0
    assert " no " in capsys.readouterr().out
    for wrong, said in (
        (("--recipe", "int2"), "no recipe 'int2'; there are: f32, int8"),
        (("--recipe", "f32", "--format", "tflite"), "writes onnx, not tflite"),
        (("--recipe", "f32", "--synthetic"), "leave out --synthetic"),
        (("--recipe", "f32", "--engine", "none"), "no engine 'none'; there are: fake"),
    ):
        assert execute(*asked, *wrong) == 1
        assert said in capsys.readouterr().err


def test_the_doctor_says_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake(tmp_path)
    monkeypatch.setattr(engines, "FOLDER", engine.folder.parent)
    (absent,) = engine_checks()
    assert (absent.name, absent.state) == ("engine fake", "absent")
    assert absent.mend == "edgegauge convert MODEL --engine fake --format onnx"
    old = python_of(engine, silent).parent.parent
    (built,) = engine_checks()
    assert built.state == "ok" and str(old) in built.found and built.mend is None
    fake(tmp_path, requirements="# newer")
    (older,) = engine_checks()
    assert older.state == "absent" and older.mend == f"rm -r {old}"


def test_every_shipped_engine_is_whole() -> None:
    shipped = engines.engines()
    assert set(shipped) == {"genai", "litert-torch", "optimum"}
    for engine in shipped.values():
        assert engine.driver.is_file()
        lines = [p for p in engine.requirements.read_text().splitlines() if p and p[0] != "#"]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), engine.name
        names = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
        assert set(engine.facts.tools) <= names
        compile(engine.driver.read_text(), str(engine.driver), "exec")
