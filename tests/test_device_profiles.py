"""The shipped device profiles: plausible figures, arithmetic that holds, sources to follow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from edgegauge.device import CpuFeature, DeviceProfile, as_document, known_ids, load
from edgegauge.units import GIB

SHIPPED = known_ids()

PROMISED = {
    "raspberry-pi-zero-2-w", "raspberry-pi-3b-plus", "raspberry-pi-4b-4gb", "raspberry-pi-5-4gb",
    "raspberry-pi-5-8gb", "raspberry-pi-5-16gb", "raspberry-pi-cm5-4gb", "orange-pi-5-8gb",
    "radxa-rock-5b-16gb", "generic-mini-pc-n100-16gb", "nvidia-jetson-nano-4gb",
    "nvidia-jetson-orin-nano-8gb", "xiaomi-redmi-9a-2gb", "samsung-galaxy-a14-4gb",
    "google-pixel-8-8gb", "samsung-galaxy-s23-8gb", "samsung-galaxy-s26-ultra-12gb",
    "apple-iphone-12", "apple-iphone-15-pro", "apple-iphone-17-pro", "apple-ipad-air-m2-8gb",
    "apple-macbook-air-m2-8gb", "generic-laptop-i5-1240p-16gb",
    "generic-laptop-ryzen-7-7840u-16gb", "generic-laptop-snapdragon-x-elite-16gb",
    "valve-steam-deck-oled-16gb",
}  # fmt: skip

Range = tuple[float, float]

PLAUSIBLE: dict[str, dict[str, Range]] = {
    "sbc": {"ram": (0.5, 32), "app": (0.5, 1), "bandwidth": (3, 70), "cores": (4, 8)},
    "module": {"ram": (1, 64), "app": (0.6, 1), "bandwidth": (3, 210), "cores": (4, 12)},
    "phone": {"ram": (2, 24), "app": (0.1, 0.6), "bandwidth": (10, 100), "cores": (6, 10)},
    "tablet": {"ram": (3, 16), "app": (0.2, 0.8), "bandwidth": (10, 160), "cores": (6, 10)},
    "handheld": {"ram": (12, 64), "app": (0.5, 1), "bandwidth": (50, 140), "cores": (4, 12)},
    "laptop": {"ram": (8, 128), "app": (0.5, 1), "bandwidth": (30, 600), "cores": (4, 24)},
    "desktop": {"ram": (8, 512), "app": (0.5, 1), "bandwidth": (30, 900), "cores": (4, 64)},
    "mini-pc": {"ram": (4, 128), "app": (0.5, 1), "bandwidth": (15, 260), "cores": (4, 24)},
}
"""Kind: GiB of memory, share of it for one application, GB/s, cores."""

WATT_HOURS = {"phone": (9, 30), "tablet": (18, 45), "handheld": (35, 80), "laptop": (35, 100)}
LOAD_W = {
    "sbc": (1, 30), "module": (2, 60), "phone": (2, 20), "tablet": (5, 40), "handheld": (5, 40),
    "laptop": (5, 120), "desktop": (10, 400), "mini-pc": (8, 120),
}  # fmt: skip

IN_ORDER = ("Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520")
WITHOUT_DOTPROD = ("Cortex-A53", "Cortex-A57", "Cortex-A72", "Cortex-A73")
CLASSES: dict[str, tuple[str, ...]] = {
    "arm-in-order": IN_ORDER,
    "arm-a72": ("Cortex-A57", "Cortex-A72", "Cortex-A73"),
    "arm-a76": ("Cortex-A76", "Cortex-A78"),
    "arm-big-little": ("Cortex-X", "Cortex-A75", "Cortex-A78", "Oryon"),
    "apple": ("Firestorm", "Avalanche", "Everest", "A17", "A18", "A19", "M3", "M4"),
    "x86-avx2": ("Gracemont", "Golden Cove", "Raptor Cove", "Redwood Cove", "Lion Cove", "Zen 2"),
    "x86-avx512": ("Zen 4", "Zen 5"),
}
"""Core class: how the names of its fastest cores begin."""


@pytest.fixture(scope="module", params=SHIPPED)
def profile(request: pytest.FixtureRequest) -> DeviceProfile:
    return load(request.param)


def test_the_promised_devices_are_there() -> None:
    assert set(SHIPPED) >= PROMISED and len(SHIPPED) >= 50


def test_the_id_is_the_file_name_and_says_the_memory(profile: DeviceProfile) -> None:
    assert profile.id in SHIPPED  # ids are file names: a profile with another one is not found
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", profile.id)
    # Memory is sold in GiB: 8 GB on the box is 8.59 here.
    gib = profile.memory.ram_gb.value * 1e9 / GIB
    assert abs(gib - round(gib * 2) / 2) < 0.01
    if said := re.search(r"-(\d+)gb$", profile.id):
        assert round(gib) == int(said[1])


def test_plausible_for_its_kind(profile: DeviceProfile) -> None:
    memory, ranges = profile.memory, PLAUSIBLE[profile.kind]
    assert within(memory.ram_gb.value * 1e9 / GIB, ranges["ram"])
    assert within(memory.app_gb.value / memory.ram_gb.value, ranges["app"])
    assert within(profile.cores, ranges["cores"])
    if memory.bandwidth_gb_per_s:
        assert within(memory.bandwidth_gb_per_s.value, ranges["bandwidth"])
    if profile.battery:
        assert within(profile.battery.capacity_wh.value, WATT_HOURS[profile.kind])
    for cluster in profile.cpu.clusters:
        assert cluster.ghz is None or 0.9 <= cluster.ghz <= 5.8
    assert profile.year and 2015 <= profile.year <= 2027


def test_measured_rates_stay_below_the_theoretical_one(profile: DeviceProfile) -> None:
    memory = profile.memory
    if memory.bandwidth_gb_per_s is None:
        return
    assert memory.bandwidth_gb_per_s.mt_per_s  # the schema checks the product
    measured = (memory.read_gb_per_s, memory.read_1_thread_gb_per_s, memory.llm_decode_gb_per_s)
    assert all(m is None or m.value < memory.bandwidth_gb_per_s.value for m in measured)


def test_power_grows_with_load(profile: DeviceProfile) -> None:
    power = profile.power
    if power is None:
        return
    assert power.idle_w or power.load_w or power.sustained_w
    for load_w in (power.inference_w, power.load_w, power.sustained_w):
        assert load_w is None or within(load_w.value, LOAD_W[profile.kind])
        assert load_w is None or power.idle_w is None or load_w.value > 1.5 * power.idle_w.value


def test_a_running_model_draws_more_than_idle_and_no_more_than_the_most_ever(
    profile: DeviceProfile,
) -> None:
    power = profile.power
    if power is None or power.inference is None:
        return
    parts, most = power.inference, power.sustained_w or power.load_w
    assert parts.prefill_w_per_thread and parts.prefill_w_per_thread > parts.decode_w_per_thread
    assert parts.decode_nj_per_byte is None or 0.01 < parts.decode_nj_per_byte < 2
    prompt_w = parts.idle_w + profile.cpu.fast_cores * parts.prefill_w_per_thread
    assert most and prompt_w < 1.1 * most.value
    assert power.idle_w is None or within(parts.idle_w / power.idle_w.value, (0.7, 1.4))


def test_core_class_agrees_with_cores_and_features(profile: DeviceProfile) -> None:
    cpu = profile.cpu
    fastest, features = cpu.clusters[0].core, set(cpu.features)
    assert fastest.startswith(CLASSES[cpu.core_class])
    arm: set[CpuFeature] = {"neon", "fp16", "bf16", "dotprod", "i8mm", "sve", "sve2", "sme"}
    if cpu.core_class.startswith("x86"):
        assert "avx2" in features and not features & arm
        assert ("avx512f" in features) == (cpu.core_class == "x86-avx512")
    else:
        assert "neon" in features <= arm
        assert ("dotprod" in features) == (not fastest.startswith(WITHOUT_DOTPROD))
        assert "dotprod" in features or "i8mm" not in features
    clocks = [c.ghz or 0 for c in cpu.clusters]
    assert clocks == sorted(clocks, reverse=True)
    if len(cpu.clusters) > 1 and cpu.clusters[-1].core.startswith(IN_ORDER):
        assert cpu.fast_cores == profile.cores - cpu.clusters[-1].count
    if fastest.startswith(("Oryon", "Zen")):  # no small cores
        assert cpu.fast_cores == profile.cores


def test_arithmetic_in_the_sources(profile: DeviceProfile) -> None:
    """What a source multiplies is what the figure states, to the digits given."""
    for value, source in sourced(as_document(profile)):
        for pattern, scale in (
            (r"([\d.]+) mAh x ([\d.]+) V", 1e-3),
            (r"at ([\d.]+) tok/s x ([\d.]+) GB", 1),
            (r"at ([\d.]+) tok/s x ([\d.]+) MiB", 2**20 / 1e9),
            (r"([\d.]+) mA x ([\d.]+) V", 1e-3),
            (r"derived[^:]*: ([\d.]+) GB x ([\d.]+) / 12", 1 / 12),
        ):
            for a, b in re.findall(pattern, source):
                assert math.isclose(value, float(a) * float(b) * scale, rel_tol=0.02), source


def test_memory_from_documents_is_converted(profile: DeviceProfile) -> None:
    """`7.4 GiB available` is 7.94 in GB."""
    app = profile.memory.app_gb
    if said := re.match(r"(?:proxy: )?([\d.]+) (GiB|MiB) available", app.source):
        size = float(said[1]) * (GIB if said[2] == "GiB" else 2**20)
        assert math.isclose(app.value * 1e9, size, rel_tol=0.01)


def test_sources_can_be_followed(profile: DeviceProfile) -> None:
    for _, source in sourced(as_document(profile)):
        # No abbreviations of a collection that the reader does not have, no "K" for knowledge.
        assert not re.search(
            r"\b(SBB|SBR|TKK|RPC|GAI|AST|FQB|LMR|EXL|STK|GSM\d|NBC|PPL|CAC|LIQ|K)\b", source
        ), source


def within(value: float, bounds: Range) -> bool:
    return bounds[0] * 0.999 <= value <= bounds[1] * 1.001  # 8 GB is 7.9997 in rounded GiB


def sourced(document: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """Every figure of a profile with its source; 0 for a source without a value of its own."""
    if "source" in document:
        yield document.get("value", 0.0), document["source"]
    for inner in document.values():
        if isinstance(inner, dict):
            yield from sourced(inner)
