"""Device profiles: the schema's strictness, and its generated reference."""

from __future__ import annotations

import copy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.device import DeviceProfile, as_document, known_ids, load, profiles_folder
from edgegauge.document import parse
from edgegauge.errors import InputError
from edgegauge.toml import dumps

SHIPPED = known_ids()


@pytest.fixture
def valid() -> dict[str, Any]:
    return as_document(load("samsung-galaxy-s23-8gb"))


def test_derived_quantities() -> None:
    profile = load("raspberry-pi-5-8gb")
    assert profile.app_memory_bytes == 7.94e9
    assert profile.cores == profile.cpu.fast_cores == 4
    assert load("google-pixel-8-8gb").cpu.fast_cores == 5  # not the four A510
    assert load("samsung-galaxy-s25-ultra-12gb").cpu.fast_cores == 8  # none is small


def test_unknown_id_suggests_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean raspberry-pi-5-8gb") as caught:
        load("raspberry-pi-5-8g")
    assert caught.value.hint is not None and "devices list" in caught.value.hint


def test_missing_file() -> None:
    with pytest.raises(InputError, match=r"cannot read nowhere/x\.toml: No such file"):
        load("nowhere/x.toml")


def test_every_problem_is_reported_at_once_with_its_path(
    valid: dict[str, Any], tmp_path: Path
) -> None:
    valid["memory"]["bandwidth_gb_per_s"]["value"] = -3
    valid["memory"]["ram_gb"]["surce"] = "typo"
    valid["cpu"]["clusters"][1]["count"] = 0
    valid["cpu"]["features"][0] = "neno"
    valid["year"] = "2023"
    del valid["kind"]
    valid["colour"] = "black"
    path = tmp_path / "x.toml"
    path.write_text(dumps(valid))
    with pytest.raises(InputError) as caught:
        load(str(path))
    problems = caught.value.problems
    at = f"@ {path}"
    assert f"memory.bandwidth_gb_per_s.value: must be > 0, got -3 {at}" in problems
    assert f"memory.ram_gb.surce: unknown key {at}" in problems
    assert f"cpu.clusters.1.count: must be > 0, got 0 {at}" in problems
    assert f"year: must be a valid integer, got '2023' {at}" in problems
    assert f"kind: required, but missing {at}" in problems
    assert f"colour: unknown key {at}" in problems
    assert any(p.startswith("cpu.features.0: must be 'neon'") for p in problems)
    assert len(problems) == 7


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("app_gb", {"value": 9.0, "source": "wish"}, "memory: app_gb must not exceed ram_gb"),
        ("app_gb", {"value": True, "source": "wish"}, "app_gb.value: must be a valid number"),
        ("app_gb", {"value": 1.0}, "app_gb.source: required, but missing"),
        ("app_gb", 4.0, "memory.app_gb: must be a valid dictionary"),
        ("read_gb_per_s_by_threads", {"1": 9.0}, "needs read_gb_per_s"),
        ("read_gb_per_s_by_threads", {"one": 9.0}, "read_gb_per_s_by_threads.one"),
        (
            "bandwidth_gb_per_s",
            {"value": 20.0, "source": "sum", "mt_per_s": 4267.0, "bus_bits": 32},
            "must be mt_per_s x bus_bits / 8000 = 17.07",
        ),
        ("bandwidth_gb_per_s", {"value": 17.1, "source": "half", "bus_bits": 32}, "given together"),
    ],
)
def test_memory_that_makes_no_sense(
    key: str, value: Any, message: str, valid: dict[str, Any]
) -> None:
    valid["memory"][key] = value
    with pytest.raises(InputError, match=message):
        parse(valid, DeviceProfile, "x.toml")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",  # not UTF-8
        b"id = ",  # not TOML
        b"a = " + b"[" * 5000,  # deep nesting
        b"year = 0x" + b"f" * 9000,  # more digits than Python will print
        b"id = 1\nid = 2",  # a key twice
        b"memory = inf",
        b"year = 1979-05-27T07:32:00Z",
        b"",
    ],
)
def test_hostile_files_are_input_errors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load(str(path))


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30),
        st.sampled_from([10**400, -1, 0, "phone", "", []]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and item in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found.append((*at, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*at, key))
    return found


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_profile_is_a_profile_or_an_input_error(data: st.DataObject) -> None:
    document = copy.deepcopy(as_document(load(data.draw(st.sampled_from(SHIPPED)))))
    for _ in range(data.draw(st.integers(1, 3))):
        *outer, last = data.draw(st.sampled_from(places(document)))
        inside: Any = document
        for key in outer:
            inside = inside[key]
        change = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if change == "replace":
            inside[last] = data.draw(json_values)
        elif change == "delete":
            del inside[last]
        elif isinstance(inside, dict):
            inside[data.draw(st.text(max_size=8))] = data.draw(json_values)
        if not document:
            break
    try:
        profile = parse(document, DeviceProfile, "x.toml")
    except InputError as error:
        assert error.problems and all(p.endswith("@ x.toml") for p in error.problems)
        return
    assert profile.memory.app_gb.value <= profile.memory.ram_gb.value
    assert parse(as_document(profile), DeviceProfile, "again") == profile
    assert tomllib.loads(dumps(as_document(profile))) == as_document(profile)


def test_profiles_in_a_wheel_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "device_profiles").mkdir()
    monkeypatch.setattr("edgegauge.device.resources.files", lambda _: tmp_path)
    assert profiles_folder() == tmp_path / "device_profiles"
    assert known_ids() == []


def test_the_generated_reference_is_current() -> None:
    script = Path(__file__).parents[1] / "scripts" / "generate_reference"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_stale_reference_is_named(tmp_path: Path) -> None:
    """The script writes below its own checkout, so a copy of it finds an empty docs folder."""
    copied = tmp_path / "scripts" / "generate_reference"
    copied.parent.mkdir()
    copied.write_text(
        (Path(__file__).parents[1] / "scripts" / "generate_reference").read_text(encoding="utf-8")
    )
    page = tmp_path / "docs" / "reference" / "device-profile.md"

    def execute(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, copied, *arguments], capture_output=True, text=True, check=False
        )

    stale = execute("--check")
    assert stale.returncode == 1 and f"stale: {page}" in stale.stderr
    assert not page.exists()
    assert execute().returncode == 0
    text = page.read_text(encoding="utf-8")
    assert "| `app_gb` | [Sourced](#sourced) | yes |" in text
    assert execute("--check").returncode == 0
    page.write_text(text + "edited by hand")
    assert execute("--check").returncode == 1
