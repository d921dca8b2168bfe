"""A Mac's processor, from `sysctl`: performance levels, caches and optional instructions."""

from __future__ import annotations

from edgegauge.device import Cluster, CoreClass, CpuFeature
from edgegauge.host.cpu import CpuFacts
from edgegauge.host.tree import Tree, fields, integer

FEATURES: dict[str, CpuFeature] = {
    "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.f16c": "f16c",
    "hw.optional.fma": "fma",
    "hw.optional.avx512f": "avx512f",
}
"""Apple's name of an instruction set to ours."""


def sysctl(tree: Tree) -> dict[str, str]:
    """What `sysctl` prints of the hardware and the kernel; empty where there is no such command."""
    return fields(tree.output("sysctl", "hw", "machdep.cpu", "kern.osrelease"))


def mac_cpu(values: dict[str, str]) -> CpuFacts | None:
    """The processor of a Mac; None where these are not a Mac's values."""
    brand = values.get("machdep.cpu.brand_string")
    cores = integer(values.get("hw.physicalcpu"))
    if not brand or not cores:
        return None
    features = [f for key, f in FEATURES.items() if values.get(key) == "1"]
    clusters = [
        Cluster(core=f"{brand} {kind}"[:60], count=count)
        for level, kind in (("0", "P-core"), ("1", "E-core"))
        if (count := integer(values.get(f"hw.perflevel{level}.physicalcpu")))
    ]
    return CpuFacts(
        soc=brand[:120],
        core_class=_class(brand, features),
        clusters=clusters or [Cluster(core=brand[:60], count=cores)],
        features=features,
        l2_bytes=_l2_bytes(values),
        l3_bytes=integer(values.get("hw.l3cachesize")) or None,
        order=[],  # macOS lets nobody choose a core
        notes=[],
    )


def _class(brand: str, features: list[CpuFeature]) -> CoreClass:
    if brand.startswith("Apple"):
        return "apple"
    return "x86-avx512" if "avx512f" in features else "x86-avx2"


def _l2_bytes(values: dict[str, str]) -> int | None:
    """L2 of every level: its size x the number of core groups that share one."""
    total = 0
    for level in ("0", "1"):
        size = integer(values.get(f"hw.perflevel{level}.l2cachesize")) or 0
        cores = integer(values.get(f"hw.perflevel{level}.physicalcpu")) or 0
        sharing = integer(values.get(f"hw.perflevel{level}.cpusperl2")) or cores or 1
        total += size * -(-cores // sharing)
    return total or integer(values.get("hw.l2cachesize")) or None
