"""TOML that is written reads back as it was."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.toml import dumps

keys = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(keys, values, max_size=5))
def test_what_is_written_as_toml_reads_back(document: dict[str, object]) -> None:
    assert tomllib.loads(dumps(document)) == document


def test_toml_has_no_null() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        dumps({"a": None})
