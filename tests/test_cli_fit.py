"""`edgegauge fit`: its document, its table, its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgegauge import catalog
from edgegauge.cli import main, output
from edgegauge.device import known_ids, profiles_folder
from edgegauge.fit import DEFAULT_RECIPES, published_quality
from edgegauge.recipe import tensor_bytes

FIGURE_KEYS = {"value", "unit", "kind", "source", "low", "high"}


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *arguments])
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def document(capsys, *arguments) -> tuple[int, dict]:
    status, out, _ = run(capsys, *arguments, "--json")
    return status, json.loads(out)


def test_the_document_has_its_contract(capsys):
    status, found = document(capsys, "--device", "google-pixel-8-8gb")
    assert status == 0
    assert found["format"] == 1 and found["device"] == "google-pixel-8-8gb"
    ways = {(c["format"], c["recipe"]) for c in found["candidates"]}
    assert ways == {(f, r) for f, recipes in DEFAULT_RECIPES.items() for r in recipes}
    assert len(found["candidates"]) == len(ways) * len(catalog.known_ids())
    assert found["recommended"]["model"] == found["candidates"][0]["model"]
    for candidate in found["candidates"]:
        for key in ("decode_tok_per_s", "prefill_tok_per_s", "ttft_s", "peak_memory_bytes",
                    "energy_j_per_token"):  # fmt: skip
            assert candidate[key] is None or set(candidate[key]) == FIGURE_KEYS
        assert set(candidate["peak_memory_bytes"]) == FIGURE_KEYS
        assert candidate["passes"] == (candidate["broken"] == [])
        assert isinstance(candidate["frontier"], bool)
        for figure in (candidate["battery"] or {}).values():
            assert set(figure) == FIGURE_KEYS
        for broken in candidate["broken"]:
            assert set(broken) == {"limit", "required", "figure"}


def test_the_device_itself_is_the_memory_limit(capsys):
    _, found = document(capsys, "--device", "raspberry-pi-zero-2-w", "qwen2.5-7b", "smollm2-135m")
    by_model = {c["model"]: c for c in found["candidates"] if c["recipe"] == "q4_0"}
    assert by_model["smollm2-135m"]["passes"]
    assert by_model["qwen2.5-7b"]["broken"][0]["limit"] == "memory"
    assert by_model["qwen2.5-7b"]["broken"][0]["required"] == 345_000_000
    assert by_model["qwen2.5-7b"]["decode_tok_per_s"] is None


def test_a_recipe_stands_under_the_name_that_each_format_has_for_it(capsys):
    names = ("--recipe", "int8", "--recipe", "q8_0", "--recipe", "int4_row")
    device = ("--device", "raspberry-pi-5-8gb", "smollm2-135m")
    status, out, err = run(capsys, *device, *names, "--json")
    ways = [(c["format"], c["recipe"]) for c in json.loads(out)["candidates"]]
    assert sorted(ways) == [
        ("gguf", "q8_0"), ("onnx", "int8"), ("tflite", "int4_row"), ("tflite", "int8"),
    ]  # fmt: skip
    assert status == 0
    for refused in ("onnx", "tflite"):
        assert err.count(f"left out: {refused} has no recipe 'q8_0'") == 1  # said once


def test_the_bytes_of_a_candidate_are_those_of_its_tensors(capsys):
    _, found = document(capsys, "--device", "raspberry-pi-5-8gb", "mobilellm-ls-125m")
    spec = catalog.load()["mobilellm-ls-125m"].spec
    for candidate in found["candidates"]:
        expected = tensor_bytes(spec, candidate["recipe"], candidate["format"])
        assert candidate["file_bytes"]["value"] == expected


def test_only_the_formats_named_are_considered(capsys):
    _, found = document(capsys, "--device", "raspberry-pi-5-8gb", "smollm2-135m", "--format",
                        "onnx", "--format", "tflite")  # fmt: skip
    assert {c["format"] for c in found["candidates"]} == {"onnx", "tflite"}


def test_several_devices_are_documents_in_a_list(capsys):
    pair = ("raspberry-pi-5-4gb", "google-pixel-8-8gb")
    limits = ("smollm2-135m", "--decode", "30")
    status, found = document(capsys, "--device", pair[0], "--device", pair[1], *limits)
    assert status == 0 and set(found) == {"format", "devices"}
    assert [d["device"] for d in found["devices"]] == list(pair)
    assert found["devices"][0] == document(capsys, "--device", pair[0], *limits)[1]


def test_all_devices_are_those_of_the_list_and_one_without_anything_is_status_3(capsys):
    status, found = document(capsys, "--all-devices", "llama-3.1-8b", "--format", "gguf")
    assert [d["device"] for d in found["devices"]] == known_ids()
    empty = [d["device"] for d in found["devices"] if d["recommended"] is None]
    assert status == 3 and "raspberry-pi-zero-2-w" in empty and len(empty) < len(known_ids())
    status, out, _ = run(capsys, "--all-devices", "llama-3.1-8b", "--format", "gguf")
    fitting = len(known_ids()) - len(empty)
    assert status == 3
    assert f"Something meets every limit on {fitting} of {len(known_ids())} devices." in out


def test_several_devices_are_a_table_of_the_smallest_and_the_best(capsys):
    chosen = ("--device", "raspberry-pi-5-4gb", "--device", "apple-macbook-air-m2-8gb",
              "--device", "raspberry-pi-zero-2-w")  # fmt: skip
    status, out, _ = run(capsys, *chosen, "smollm2-135m", "smollm2-1.7b", "--decode", "15")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "smollm2-135m" in lines["raspberry-pi-5-4gb"]
    assert "smollm2-1.7b" not in lines["raspberry-pi-5-4gb"]
    assert "smollm2-135m" in lines["apple-macbook-air-m2-8gb"]
    assert "smollm2-1.7b" in lines["apple-macbook-air-m2-8gb"]
    assert "62.7 %" in lines["apple-macbook-air-m2-8gb"]
    assert status == 3 and "decode speed" in lines["raspberry-pi-zero-2-w"]
    assert "One for most of them: smollm2-135m" in out and "meets every limit on 2." in out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--device", "google-pixel-8-8gb"),
        ("--device", "raspberry-pi-zero-2-w", "--decode", "1000"),
        ("--all-devices", "--min-quality", "60", "--decode", "10"),
    ],
)
def test_tables_fit_a_terminal(capsys, monkeypatch, arguments, width):
    monkeypatch.setattr(output, "MIN_PIPE_WIDTH", width)
    _, out, _ = run(capsys, *arguments)
    rows = [line for line in out.splitlines() if "   " in line.strip()]
    assert rows and all(len(line.rstrip()) <= width for line in rows)


def test_nothing_fits_is_status_3(capsys):
    status, out, _ = run(capsys, "--device", "raspberry-pi-zero-2-w", "llama-3.1-8b")
    assert status == 3
    assert "Nothing fits" in out and "of memory, 345.0 MB allowed" in out


def test_flags_and_file_set_limits(capsys, tmp_path):
    file = tmp_path / "budget.toml"
    file.write_text('quality = { at_least = 55 }\nmemory = "1GB"\n')
    device = ("--device", "raspberry-pi-5-4gb", "--recipe", "int4")
    _, found = document(capsys, *device, "--budget", str(file), "--decode", "20")
    passing = {c["model"] for c in found["candidates"] if c["passes"]}
    assert found["recommended"]["model"] == "smollm2-360m"
    assert passing == {"smollm2-360m"} | passing
    for candidate in found["candidates"]:
        if candidate["passes"]:
            assert candidate["quality"]["value"] >= 55
            assert candidate["decode_tok_per_s"]["value"] >= 20
            assert candidate["recipe"] == ("q4_k_m" if candidate["format"] == "gguf" else "int4")


def test_quality_is_stated_and_says_it_is_not_of_the_quantised_weights(capsys):
    _, found = document(capsys, "--device", "raspberry-pi-5-4gb", "smollm2-135m")
    quality = found["candidates"][0]["quality"]
    assert (quality["value"], quality["kind"], quality["unit"]) == (50.5, "stated", "%")
    assert "not quantised" in quality["source"] and "2509.24945" in quality["source"]


def test_metrics_name_benchmark_and_shots():
    entry = catalog.load()["qwen2.5-0.5b"]
    assert published_quality(entry, "avg8_0shot").value == 52.2
    assert published_quality(entry, "MMLU_5shot").value == 47.5
    assert published_quality(entry, "mmlu").value == 47.5
    assert published_quality(entry, "avg8_5shot") is None
    assert published_quality(entry, "nothing") is None
    assert published_quality(catalog.load()["stories15m"], "TinyStories") is None  # a loss


def test_the_table_names_the_recommendation_and_the_reasons(capsys):
    status, out, err = run(capsys, "--device", "raspberry-pi-5-4gb", "--min-quality", "55",
                           "--decode", "10")  # fmt: skip
    assert status == 0 and err == ""
    assert "Raspberry Pi 5, 4 GB" in out
    lines = out.splitlines()
    assert any(line.startswith(">") and "smollm2-360m" in line for line in lines)
    assert "scores 46.3 % on avg8_0shot, 55.0 % required" in out
    assert "Not judged, quality on avg8_0shot is not known: stories260k" in out
    assert "Recommended: smollm2-360m at " in out
    assert all(len(line) <= 120 for line in lines)


def test_without_a_quality_floor_there_is_a_warning(capsys):
    _, _, err = run(capsys, "--device", "raspberry-pi-5-4gb")
    assert "no quality floor" in err


def test_a_long_context_leaves_out_models_made_for_less(capsys):
    _, out, err = run(capsys, "--device", "raspberry-pi-5-8gb", "--context", "4096", "--json")
    models = {c["model"] for c in json.loads(out)["candidates"]}
    assert "stories15m" not in models and "smollm2-135m" in models
    assert "stories15m" in err
    status, _, err = run(
        capsys, "--device", "raspberry-pi-5-8gb", "--context", "4096", "stories15m"
    )
    assert status == 1 and "made for 256 tokens" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--device", "no-such"), 1, "no device profile"),
        (("--device", "raspberry-pi-5-8gb", "no-such-model"), 1, "no model"),
        (("--device", "raspberry-pi-5-8gb", "--recipe", "q9"), 1, "no format has the recipe 'q9'"),
        (("--device", "raspberry-pi-5-8gb", "--memory", "lots"), 1, "memory: not a size"),
        (("--device", "raspberry-pi-5-8gb", "--budget", "/no/such.toml"), 1, "cannot read"),
        ((), 2, "--device"),
        (("--all-devices", "--device", "raspberry-pi-5-8gb"), 2, "--all-devices"),
        (("--device", "raspberry-pi-5-8gb", "--format", "coreml"), 2, "coreml"),
        (("--device", "raspberry-pi-5-8gb", "--decode", "fast"), 2, "fast"),
    ],
)
def test_wrong_input(capsys, arguments, status, says):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (status, "")
    assert says in err and "Traceback" not in err


def test_hostile_names_are_shown_as_they_are(capsys, tmp_path):
    profile = (profiles_folder() / "raspberry-pi-5-4gb.toml").read_text()
    file = tmp_path / "odd.toml"
    file.write_text(profile.replace('name = "Raspberry Pi 5, 4 GB"', 'name = "[/] [bold red]Pi"'))
    status, out, err = run(capsys, "--device", str(file), "smollm2-135m", "--min-quality", "1",
                           "--quality-metric", "[/metric]")  # fmt: skip
    assert (status, err) == (3, "")
    assert "[/] [bold red]Pi" in out and "quality on [/metric] is not known" in out


def test_the_whole_catalog_is_quick():
    """Processor time, which a busy machine inflates less than the clock: 0.4 s on an idle one."""
    child = (
        "import resource, sys; from edgegauge.cli import main\n"
        "try: main(['fit', '--device', 'raspberry-pi-4b-4gb'])\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert float(done.stderr.splitlines()[-1]) < 2.0
