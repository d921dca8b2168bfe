"""Set-up shared by all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from installed_wheel import built, installed  # noqa: F401

from edgegauge.emulate.places import Place
from edgegauge.host.tree import Tree
from edgegauge.measure import turn

# The models under test are tiny: a pool of NumPy threads costs several times what it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The suite that CI runs asks the same questions each time; a desk explores (HYPOTHESIS=explore).
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS", "same"))


@pytest.fixture(autouse=True, scope="session")
def turn_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests measure nothing that others could disturb: they do not wait for the machine's turn."""
    os.environ[turn.VARIABLE] = str(tmp_path_factory.mktemp("turn") / "lock")


@pytest.fixture(scope="session")
def place() -> Place:
    """Where control groups can be made here."""
    from edgegauge.emulate.group import usable_place

    found, refusals = usable_place(Tree())
    if found is None:
        pytest.skip(f"no control group can be made here: {refusals}")
    return found
