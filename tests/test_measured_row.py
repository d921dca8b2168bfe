"""A measured row in a profile: it moves the prior as the published errors say it does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from changed_profiles import spec_of
from loaded_script import loaded_script

from edgegauge import measured_row, speed
from edgegauge.cli import main
from edgegauge.device import DeviceProfile, as_document, load
from edgegauge.document import read_toml
from edgegauge.errors import InputError
from edgegauge.measured_row import measured_speed, row_problems
from edgegauge.predict import predict
from edgegauge.speed import PARTS, class_speed, machine_of, priors
from edgegauge.speed_model import speed_model
from edgegauge.toml import dumps
from edgegauge.work import work_of

ROOT = Path(__file__).parents[1]
DEVICE = "orange-pi-5-8gb"
ROW = {
    "model": "qwen3-1.7b-base", "recipe": "q4_0", "threads": 4, "decode_tok_per_s": 18.0,
    "prefill_tok_per_s": 60.0, "source": "llama-bench on this board",
}  # fmt: skip


def with_rows(*rows: dict[str, object], device: str = DEVICE) -> DeviceProfile:
    values = as_document(load(device)) | {"measured": list(rows)}
    values["memory"].pop("llm_decode_gb_per_s", None)
    return DeviceProfile.model_validate(values)


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """(exit status, stdout) of `edgegauge devices ...`, executed in this process."""
    with pytest.raises(SystemExit) as left:
        main(["devices", *map(str, arguments)])
    return int(left.value.code or 0), capsys.readouterr().out


def script() -> ModuleType:
    return loaded_script("validate_predictor")


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_users_get_the_method_whose_errors_are_published(
    phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package moves the prior to a row just as the validation does, for all other rows."""
    np = pytest.importorskip("numpy")
    module, device = script(), "poco-x7-mt6899"
    rows = [replace(row, parts=PARTS) for row in module.read_rows()]
    problem = module.Problem(rows)
    x = problem.centres + np.random.default_rng(3).normal(0, 0.3, len(problem.centres)) * (
        problem.spreads
    )
    x[[i for name, i in problem.parameters.index.items() if "@" in name]] = 0
    found = json.loads((ROOT / "scripts/predictor/report.json").read_text())["half_widths"]
    profile = module.profiles()[device]
    constants = module.write.document(problem, x, rows, module.profiles(), found)
    for part in (speed, measured_row):
        monkeypatch.setattr(part, "priors", lambda: constants)
    mine = [i for i, row in enumerate(rows) if row.device == device]
    at = module.evaluate.calibration_row(rows, mine)
    row = rows[at]
    stated = {
        "model": row.model, "recipe": row.recipe, "threads": row.machine.threads,
        "prompt_tokens": row.tokens, "prefill_tok_per_s": row.prefill, "depth": row.depth,
        "decode_tok_per_s": row.decode, "source": row.source,
    }  # fmt: skip
    values = as_document(profile) | {"measured": [stated]}
    moved = measured_speed(DeviceProfile.model_validate(values), row.machine, "llama.cpp")
    assert moved is not None
    k = ("decode", "prefill").index(phase)
    predicted, _ = problem.logs(module.evaluate.adapted(problem, x, device, [at, at]))
    for i in mine:
        work = rows[i].work
        if phase == "decode":
            ours = 1 / moved.decode(work, rows[i].depth).seconds
        else:
            ours = rows[i].tokens / moved.prefill(work, rows[i].tokens).seconds
        assert ours == pytest.approx(np.exp(predicted[k, i]), rel=2e-3)


def test_a_row_draws_the_predictions_of_all_models_towards_it() -> None:
    plain = speed_model(with_rows(), "llama.cpp")
    slow = speed_model(with_rows(ROW | {"decode_tok_per_s": 9.0}), "llama.cpp")
    fast = speed_model(with_rows(ROW | {"decode_tok_per_s": 36.0}), "llama.cpp")
    for model in ("qwen3-1.7b-base", "smollm2-135m"):
        work = work_of(spec_of(model), "q8_0")
        rates = [1 / each.decode(work, 64).seconds for each in (slow, plain, fast)]
        assert rates == sorted(rates) and rates[2] > 2 * rates[0]
    own = work_of(spec_of("qwen3-1.7b-base"), "q4_0")
    # A row is uncertain, so that it draws more than half of the way.
    before, after = (1 / each.decode(own, 64).seconds for each in (plain, slow))
    assert 9.0 < after < math.sqrt(9.0 * before)


def test_each_speed_is_moved_by_its_own_and_says_by_which() -> None:
    only = {k: v for k, v in ROW.items() if k != "prefill_tok_per_s"}
    profile, work = with_rows(only), work_of(spec_of("llama-3.2-1b"), "q4_k_m")
    machine = machine_of(profile, 4)
    model, plain = speed_model(profile, "llama.cpp"), class_speed(machine)
    assert model.prefill(work, 128) == plain.prefill(work, 128)
    found = model.decode(work, 64)
    assert "moved by one row: qwen3-1.7b-base q4_0, 4 threads, 18 tok/s" in found.source
    assert "llama-bench on this board" in found.source
    low, high = priors()["class"][machine.name]["measured_decode_interval"]
    assert (found.low, found.high) == pytest.approx((found.seconds * low, found.seconds * high))


def test_of_several_rows_the_most_usual_one_counts_in_any_order() -> None:
    odd = ROW | {"recipe": "f16", "threads": 1, "decode_tok_per_s": 0.1}
    work = work_of(spec_of("llama-3.2-1b"), "q4_k_m")
    one, both = with_rows(ROW), (with_rows(ROW, odd), with_rows(odd, ROW))
    wanted = speed_model(one, "llama.cpp").decode(work, 64)
    assert all(speed_model(p, "llama.cpp").decode(work, 64) == wanted for p in both)


def test_another_runtime_is_moved_too_and_keeps_its_own_interval() -> None:
    work = work_of(spec_of("llama-3.2-1b"), "int4", "onnx")
    plain = speed_model(with_rows(), "onnxruntime").decode(work, 64)
    moved = speed_model(with_rows(ROW | {"decode_tok_per_s": 5.0}), "onnxruntime").decode(work, 64)
    assert moved.seconds > 1.5 * plain.seconds
    assert moved.high / moved.seconds == pytest.approx(plain.high / plain.seconds)
    theirs = ROW | {"runtime": "onnxruntime", "recipe": "int4", "decode_tok_per_s": 40.0}
    profile = with_rows(ROW, theirs)
    assert "int4" in speed_model(profile, "onnxruntime").decode(work, 64).source
    assert "q4_0" in speed_model(profile, "litert").decode(work, 64).source


def test_a_calibration_goes_before_a_row() -> None:
    values = as_document(with_rows(ROW))
    values["calibration"] = {
        "llama.cpp": {
            "runtime_version": "1", "threads": 4, "cache_bytes": 1e6,
            "decode": {"Q4_0": {"value": 1e-10, "error": 1e-12}},
            "prefill": {"Q4_0": {"value": 1e-10, "error": 1e-12}},
            "decode_residual": 0.1, "prefill_residual": 0.1, "source": "a calibration",
        }
    }  # fmt: skip
    work = work_of(spec_of("llama-3.2-1b"), "q4_0")
    found = speed_model(DeviceProfile.model_validate(values), "llama.cpp").decode(work, 64)
    assert "moved by one row" not in found.source


def test_a_profile_with_rows_survives_writing_and_tells_its_predictions_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(dumps(as_document(with_rows(ROW))), "utf-8")
    profile = read_toml(path, DeviceProfile)
    assert profile == with_rows(ROW)
    told = predict(profile, spec_of("llama-3.2-1b"), "q4_k_m").decode_tok_per_s
    assert told is not None and "moved by one row" in told.source
    status, shown = call(capsys, "show", path)
    assert status == 0 and "decode 18 tok/s" in " ".join(shown.split())


def test_rows_that_name_nothing_known_are_reported_by_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = (ROW | {"model": "no-such-model"}, ROW | {"recipe": "q9_9"})
    profile = with_rows(ROW, *bad)
    problems = row_problems(profile)
    assert [text.split(":")[0] for text in problems] == ["measured.1", "measured.2"]
    with pytest.raises(InputError, match=r"measured\.1"):
        speed_model(profile, "llama.cpp")
    path = tmp_path / "bad.toml"
    path.write_text(dumps(as_document(profile)), "utf-8")
    status, told = call(capsys, "validate", "--json", path)
    assert status == 1 and json.loads(told)["files"][0]["problems"] == problems


def test_a_row_has_a_speed() -> None:
    with pytest.raises(ValueError, match="decode_tok_per_s"):
        with_rows({k: v for k, v in ROW.items() if not k.endswith("_per_s")})
