"""Documents from outside: what is refused before anything looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegauge.document import read_json_object, read_rows
from edgegauge.errors import InputError


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_could_not_be_written_again_is_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(f'{{"host": {{"anything": [1.5, {number}]}}}}')
    for read in (read_json_object, read_rows):
        with pytest.raises(InputError, match=r"no finite number @ .*result\.json"):
            read(path)
    path.write_text('{"host": {"anything": [1.5, -2e-3]}}')
    assert read_json_object(path) == {"host": {"anything": [1.5, -2e-3]}}
