"""Usage models: the shipped ones, one's own, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegauge import usage
from edgegauge.errors import InputError

OWN = "turns = 2\nprompt_tokens = 80\ngenerated_tokens = 40\nreading_s = 20\nper_hour = 10\n"


def test_shipped_models_say_all_their_numbers() -> None:
    assert list(usage.known()) == ["chat", "assistant", "summarise"]
    assert usage.load() == usage.load("chat")
    assert usage.load("chat").sentence() == (
        "chat: 3 conversations an hour, each of 4 turns: "
        "200 prompt + 150 generated tokens, then 60 s of reading"
    )
    for found in usage.known().values():
        for value in (found.turns, found.prompt_tokens, found.generated_tokens, found.per_hour):
            assert f"{value:g}" in found.sentence()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN + "waiting_w = 1.1\n")
    found = usage.load(str(path))
    assert (found.name, found.turns, found.waiting_w) == ("own", 2, 1.1)
    assert "20 s of reading at 1.1 W" in found.sentence()


def test_all_problems_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace("turns = 2", 'turns = "2"').replace("= 80", "= -1") + "x = 1\n")
    with pytest.raises(InputError) as caught:
        usage.load(str(path))
    assert {problem.split(":")[0] for problem in caught.value.problems} == {
        "turns", "prompt_tokens", "x"
    }  # fmt: skip


@pytest.mark.parametrize("reference", ["talk", "", "/no/such.toml"])
def test_what_is_not_there(reference: str) -> None:
    with pytest.raises(InputError, match=r"no usage model|cannot read"):
        usage.load(reference)
