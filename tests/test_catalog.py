"""The catalog: complete, strict, quick, and true to its own files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgegauge import catalog
from edgegauge.catalog import CatalogEntry, read_entry
from edgegauge.errors import InputError
from edgegauge.find_model import resolve_model

ENTRIES = list(catalog.load().values())
GOOD = (catalog.FOLDER / "smollm2-135m.toml").read_text()


def test_there_are_models_of_every_size_and_family() -> None:
    sizes = [entry.spec.parameters for entry in ENTRIES]
    assert sum(size < 10**9 for size in sizes) >= 20
    assert sum(10**9 <= size < 8.1e9 for size in sizes) >= 10
    assert {entry.spec.family for entry in ENTRIES} == {"llama", "qwen2", "qwen3", "gemma3"}
    assert sizes == sorted(sizes)
    assert catalog.known_ids() == [entry.id for entry in ENTRIES]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_has_its_facts(entry: CatalogEntry) -> None:
    assert entry.spec.id == entry.id
    assert entry.id == (entry.hub or entry.name).split("/")[-1].lower() or entry.hub is None
    assert entry.licence.name or entry.licence.restriction
    assert entry.context <= entry.spec.context
    assert entry.headline in entry.scores
    for score in entry.scores:
        assert score.source
        assert 0 <= score.value <= 100
    assert entry.hub or entry.weights or entry.notes


def test_loading_all_is_quick() -> None:
    catalog.load.cache_clear()
    start = time.process_time()
    catalog.load()
    assert time.process_time() - start < 0.15


def test_the_headline_prefers_what_most_models_have() -> None:
    headline = catalog.load()["smollm2-135m"].headline
    assert headline.label == "avg8 0-shot 50.5"
    assert catalog.load()["qwen2-0.5b"].headline.label == "MMLU 45.4"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers = 30", 'layers = "many"', "architecture.layers"),
        ("hidden = 576\n", "", "architecture.hidden: required, but missing"),
        ("heads = 9", "heads = 10", "architecture"),
        ("vocab = 49152", "vocab = 49152\nvocabulary = 1", "architecture.vocabulary"),
        ('released = "2024-11-01"', 'released = "last year"', "released"),
        ("context = 8192\nsource", "context = 0\nsource", "context"),
        ('metric = "acc"\nscores = {', 'metric = "acc"\nscores = { x = nan,', "scores"),
        ('id = "smollm2-135m"', 'id = "other"', "must be the file's name"),
        ("[licence]", "[license]", "license"),
    ],
)
def test_wrong_files_name_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "smollm2-135m.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_entry(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_how_to_shows_a_valid_file(tmp_path: Path) -> None:
    how_to = Path(__file__).parents[1] / "docs" / "how-to" / "add-a-model.md"
    example = how_to.read_text().split("```toml\n")[1].split("```")[0]
    path = tmp_path / "smollm2-135m.toml"
    path.write_text(example)
    assert read_entry(path).spec == catalog.load()["smollm2-135m"].spec


def test_references_find_their_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model("smollm2-135m").kind == "catalog"
    for name in ("hf:HuggingFaceTB/SmolLM2-135M", "huggingfacetb/smollm2-135m", "SmolLM2-135M"):
        assert resolve_model(name).spec == resolve_model("smollm2-135m").spec
    monkeypatch.chdir(tmp_path)
    folder = Path("smollm2-135m")
    folder.mkdir()
    config = Path(__file__).parent / "data" / "configs" / "qwen3-0.6b.json"
    (folder / "config.json").write_bytes(config.read_bytes())
    assert resolve_model("smollm2-135m").spec.family == "llama"
    assert resolve_model("./smollm2-135m").spec.family == "qwen3"
    found = resolve_model(str(folder / "config.json"))
    assert (found.kind, found.spec.family) == ("config", "qwen3")


@pytest.mark.parametrize("reference", ["smollm2-153m", "", "hf:nobody/nothing", "x\0y", "a" * 5000])
def test_unknown_references_say_what_is_close(reference: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_model(reference)
    assert caught.value.hint
    if reference == "smollm2-153m":
        assert "smollm2-135m" in str(caught.value)
