"""`edgegauge fit`: its document, its table, its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgegauge import catalog
from edgegauge.cli import main
from edgegauge.device import profiles_folder
from edgegauge.fit import published_quality

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
    assert len(found["candidates"]) == 3 * len(catalog.known_ids())
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
            assert candidate["recipe"] == "q4_k_m"


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
    assert "Recommended: smollm2-360m at q4_0" in out
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
        (("--device", "raspberry-pi-5-8gb", "--recipe", "q9"), 1, "unknown recipe"),
        (("--device", "raspberry-pi-5-8gb", "--memory", "lots"), 1, "memory: not a size"),
        (("--device", "raspberry-pi-5-8gb", "--budget", "/no/such.toml"), 1, "cannot read"),
        ((), 2, "--device"),
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
