"""Task and text files: what is read, and that every mistake is named with its line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegauge.errors import InputError
from edgegauge.evaluate import task as task_module
from edgegauge.evaluate.task import Item, read_task, read_text

PLAIN = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
).filter(str.strip)
in_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "task.jsonl"
    path.write_bytes(b"".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_task(path)
    return caught.value.problems


def test_items_keep_their_line_and_unknown_keys_are_ignored(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        b'\xef\xbb\xbf{"prompt": "a\\n", "answer": "b", "source": {"x": [1]}}\n\n',
        '{"prompt": "c", "answer": "d", "id": 7}',
    )
    assert read_task(path).items == (Item(1, "a\n", "b", None), Item(3, "c", "d", "7"))


def test_a_limit_keeps_the_first_items_but_checks_the_whole_file(tmp_path: Path) -> None:
    good = [f'{{"prompt": "{i}", "answer": "x"}}\n' for i in range(5)]
    whole = read_task(written(tmp_path, *good))
    some = read_task(written(tmp_path, *good), limit=2)
    assert some.items == whole.items[:2] and some.sha256 == whole.sha256
    assert problems_of(written(tmp_path, *good, "nonsense\n"))[0].startswith("line 6: ")


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    found = problems_of(
        written(
            tmp_path,
            '{"prompt": "one", "answer": "1", "id": "x"}\n',
            '{"prompt": "two"}\n',
            '{"prompt": 3, "answer": ["3"]}\n',
            '["four", "4"]\n',
            '{"prompt": "  ", "answer": "5"}\n',
            '{"prompt": "one", "answer": "uno", "id": "x"}\n',
            b'{"prompt": "\xff", "answer": "7"}\n',
            '{"prompt": "\\ud800", "answer": "8"}\n',
            '{"prompt": "nine", "answer": "9", "id": true}\n',
            '{"prompt": "a\\u0000b", "answer": "10"}\n',
            '{"prompt": "eleven", "ans',
        )
    )
    assert found[:8] == [
        "line 2: answer: required, but missing",
        "line 3: prompt: must be text, got int 3",
        "line 3: answer: must be text, got list ['3']",
        "line 4: expected a JSON object, got list ['four', '4']",
        "line 5: prompt: must not be empty, got '  '",
        "line 6: the same prompt as on line 1",
        "line 6: the same id as on line 1",
        "line 7: not UTF-8: byte 0xff in column 12",
    ]
    assert [p.split(":")[0] for p in found[8:]] == ["line 8", "line 9", "line 10", "line 11"]
    assert "surrogate" in found[8] and "NUL" in found[10] and "cut off" in found[11]


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="100 problems") as caught:
        read_task(written(tmp_path, *["{}\n"] * 50))
    assert len(caught.value.problems) == 21 and caught.value.problems[-1] == "and 80 more"


@pytest.mark.parametrize("content", ["", "\n \n\n"])
def test_an_empty_task_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="no items"):
        read_task(written(tmp_path, content))


def test_a_huge_line_and_a_huge_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_module, "MAX_LINE_BYTES", 100)
    long = json.dumps({"prompt": "p" * 200, "answer": "a"})
    with pytest.raises(InputError, match="line 2: longer than 100 bytes"):
        read_task(written(tmp_path, '{"prompt": "p", "answer": "a"}\n', long + "\n"))
    monkeypatch.setattr(task_module, "MAX_DOCUMENT_BYTES", 150)
    for read in (read_task, read_text):
        with pytest.raises(InputError, match="larger than 150 bytes"):
            read(written(tmp_path, long))


def test_nesting_without_end_is_an_error_of_its_line(tmp_path: Path) -> None:
    assert problems_of(written(tmp_path, "[" * 200_000 + "\n"))[0].startswith("line 1: not valid")


@pytest.mark.parametrize("read", [read_task, read_text])
def test_a_file_that_cannot_be_read(read: object, tmp_path: Path) -> None:
    assert callable(read)
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read(tmp_path)


@in_folder
@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, unique_by=lambda pair: pair[0]), st.booleans())
def test_what_is_written_is_read(
    tmp_path: Path, pairs: list[tuple[str, str]], escaped: bool
) -> None:
    lines = [json.dumps({"prompt": p, "answer": a}, ensure_ascii=escaped) + "\n" for p, a in pairs]
    task = read_task(written(tmp_path, *lines))
    assert [(item.prompt, item.answer) for item in task.items] == pairs


@in_folder
@given(st.binary(max_size=300) | st.lists(PLAIN).map(lambda x: json.dumps(x).encode()))
def test_any_bytes_are_a_task_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    for read in (read_task, read_text):
        with contextlib.suppress(InputError):
            read(written(tmp_path, content))


def test_a_text_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\r\nEnde")
    assert read_text(path).content == "Grüße\r\nEnde"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\xe9\n", "line 2: not UTF-8 text: byte 0xe9 at offset 7"),
        (b" \n", "no text"),
        (b"GGUF\0\0", "NUL"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text(path)
