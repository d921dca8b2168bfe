"""The pytest plugin: whether a model fits a device, as a test.

    @pytest.mark.edge_devices("raspberry-pi-5-4gb", "google-pixel-8-8gb")
    @pytest.mark.edge_budget(memory="900MB", decode_tok_per_s=10)
    def test_assistant_fits(assert_fits, edge_device, edge_budget):
        assert_fits("build/assistant-q4_0.gguf", edge_device, edge_budget)

Fixtures: `edge_device` (a test that takes it runs once for each device), `edge_budget`, and
`assert_fits`, which is also a function to import. The devices are those of the marker
`edge_devices`, else of the option `--edge-device`, else of the ini value `edge_devices`. The budget
is that of the marker `edge_budget`, else the file that the ini value `edge_budget` names, else one
without limits: the device's memory is always one. Paths in markers and ini values are relative to
the ini file.

pytest imports this module wherever edgegauge is installed, so it imports nothing of edgegauge until
a test asks for it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgegauge.artifact import Artifact
    from edgegauge.budget import Budget
    from edgegauge.check.outcome import Check, Outcome
    from edgegauge.check.subject import Subject
    from edgegauge.device import DeviceProfile
    from edgegauge.errors import EdgeGaugeError

Named = str | os.PathLike[str]


class CannotTellWarning(UserWarning):
    """A limit lies inside the interval of a prediction; the filter `error` makes the test fail."""


def assert_fits(
    artifact: Named | Artifact | tuple[str, str, str],
    device: Named | DeviceProfile,
    budget: Named | Mapping[str, Any] | Budget | None = None,
) -> list[Check]:
    """Every limit as it was judged, or AssertionError with every limit that is broken.

    `artifact` is a path, or (model, recipe, format) for one that does not exist yet, the model as
    `edgegauge fit` takes it. `device` is an id, a profile or its file; `budget` a budget, its file
    or its limits by name. Limits are judged as in `edgegauge check`: where nobody can tell, that is
    a CannotTellWarning. EdgeGaugeError for what cannot be read or predicted.
    """
    __tracebackhide__ = True
    from edgegauge.check.outcome import budget_checks
    from edgegauge.check.predicted import predicted_verdict
    from edgegauge.device import DeviceProfile, load
    from edgegauge.errors import EdgeGaugeError
    from edgegauge.fit import within_device

    try:
        subject = _subject(artifact)
        profile = device if isinstance(device, DeviceProfile) else load(os.fspath(device))
        limits = within_device(_budget(budget), profile)
        judged = predicted_verdict(subject, profile, limits)
    except EdgeGaugeError as error:
        raise _bare(error) from None
    checks = budget_checks(judged, limits, subject.unpredictable)
    failing, doubtful = (_said(checks, outcome) for outcome in ("fail", "cannot tell"))
    if failing:
        doubt = f"\ncannot tell:{doubtful}" if doubtful else ""
        raise AssertionError(f"{subject.name} does not fit {profile.name}:{failing}{doubt}")
    if doubtful:
        told = f"nobody can tell whether {subject.name} fits {profile.name}:{doubtful}"
        warnings.warn(told, CannotTellWarning, stacklevel=2)
    return checks


def _said(checks: list[Check], outcome: Outcome) -> str:
    return "".join(f"\n  {check.says}" for check in checks if check.outcome == outcome)


def _subject(artifact: Named | Artifact | tuple[str, str, str]) -> Subject:
    from edgegauge.artifact import open_artifact
    from edgegauge.check.subject import artifact_subject, model_subject

    if isinstance(artifact, tuple):
        return model_subject(*artifact)
    if isinstance(artifact, str | os.PathLike):
        artifact = open_artifact(Path(artifact))
    return artifact_subject(artifact)


def _budget(limits: Named | Mapping[str, Any] | Budget | None) -> Budget:
    from edgegauge.budget import Budget, load, merge

    if isinstance(limits, str | os.PathLike):
        return load(Path(limits))
    return limits if isinstance(limits, Budget) else merge(Budget(), limits or {}, "the budget")


def _bare(error: EdgeGaugeError) -> EdgeGaugeError:
    """The error with its hint, which pytest does not know of, and without where it came from."""
    if error.hint:
        error.add_note(f"hint: {error.hint}")
    return error.with_traceback(None)


def _refusal(error: EdgeGaugeError) -> BaseException:
    """The error and its hint as what a fixture raises to be reported in these words alone."""
    hint = f"\nhint: {error.hint}" if error.hint else ""
    return pytest.fail.Exception(f"{error}{hint}", pytrace=False)


@pytest.fixture(name="assert_fits", scope="session")
def _assert_fits() -> Callable[..., list[Check]]:
    """The function of this name: that an artifact fits a device within a budget."""
    return assert_fits


@pytest.fixture(scope="session")
def edge_device(request: pytest.FixtureRequest) -> DeviceProfile:
    """The profile of one device; a test that takes it runs once for each device that is named."""
    from edgegauge.device import load
    from edgegauge.errors import EdgeGaugeError

    if not hasattr(request, "param"):
        pytest.fail(
            "edge_device: no device is named; mark the test with "
            '@pytest.mark.edge_devices("ID", ...), set edge_devices in the ini file, or give '
            "--edge-device ID (`edgegauge devices list` shows all ids)",
            pytrace=False,
        )
    try:
        return load(request.param)
    except EdgeGaugeError as error:
        raise _refusal(error) from None


@pytest.fixture
def edge_budget(request: pytest.FixtureRequest) -> Budget:
    """The budget of the test's marker, of the ini file, or one without limits."""
    from edgegauge.budget import Budget, load, merge
    from edgegauge.errors import EdgeGaugeError

    marker = request.node.get_closest_marker("edge_budget")
    file = request.config.getini("edge_budget")
    if marker:
        file = marker.args[0] if marker.args else None
    try:
        base = load(_ini_folder(request.config) / file) if file else Budget()
        return merge(base, marker.kwargs if marker else {}, "the marker edge_budget")
    except EdgeGaugeError as error:
        raise _refusal(error) from None


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.invocation_params.dir


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option and the ini values."""
    named = "device ids or .toml files of profiles for tests that take edge_device"
    parser.getgroup("edgegauge").addoption(
        "--edge-device", action="append", default=[], metavar="ID",
        help="Device for tests that take edge_device and name none; may be repeated.",
    )  # fmt: skip
    parser.addini("edge_devices", f"{named} and name none", type="args", default=[])
    parser.addini("edge_budget", "budget file for tests that take edge_budget and name none")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for line in (
        "edge_devices(*ids): the devices (ids, or .toml files) that edge_device takes in the test",
        "edge_budget(file, **limits): the budget of the test: a file, limits by name, or both",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `edge_device` once for each device."""
    if "edge_device" not in metafunc.fixturenames:
        return
    config = metafunc.config
    marker = metafunc.definition.get_closest_marker("edge_devices")
    folder, names = _ini_folder(config), config.getini("edge_devices")
    if marker:
        names = marker.args
    elif config.getoption("--edge-device"):
        folder, names = config.invocation_params.dir, config.getoption("--edge-device")
    if names:
        ids = [Path(name).name.removesuffix(".toml") for name in names]
        found = [str(folder / name) if name.endswith(".toml") else name for name in names]
        metafunc.parametrize("edge_device", found, ids=ids, indirect=True, scope="session")
