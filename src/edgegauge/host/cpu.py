"""The processor: which cores, how fast, which instructions, how much cache.

Linux and Android tell this in /proc/cpuinfo and /sys/devices/system/cpu. Cores are grouped into
clusters by kind and highest clock; hyper-threads count once; only CPUs that this process may use
count at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast, get_args

from edgegauge.device import Cluster, CoreClass, CpuFeature
from edgegauge.errors import EdgeGaugeError
from edgegauge.host import arm
from edgegauge.host.tree import Tree, cpu_list, fields, integer
from edgegauge.units import MIB

ARM_FEATURES: dict[str, CpuFeature] = {
    "asimd": "neon", "neon": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "bf16": "bf16",
    "i8mm": "i8mm", "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip
"""The kernel's name of an instruction set (a `Features` word) to ours."""

SAME_CLOCK = 0.9
"""Cores of one kind whose highest clocks differ by less than this ratio are one cluster: chips are
binned, and desktop processors let one favoured core run a little faster."""

CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFacts:
    """What the system tells of its processor; caches in bytes."""

    soc: str
    core_class: CoreClass
    clusters: list[Cluster]
    features: list[CpuFeature]
    l2_bytes: int | None
    l3_bytes: int | None
    order: list[int]
    """Usable CPU numbers, fastest first, second hyper-threads last; empty where unknown."""
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Cpu:
    """One logical CPU; `siblings` are the logical CPUs of its core."""

    number: int
    kind: str
    ghz: float | None
    capacity: int
    siblings: tuple[int, ...]

    @property
    def speed(self) -> tuple[int, bool, float]:
        """Sorts fast cores last: the kernel's capacity, then kind, then clock."""
        return self.capacity, self.kind not in (*arm.IN_ORDER, "E-core"), self.ghz or 0.0


def linux_cpu(tree: Tree, *, android: bool = False) -> CpuFacts | None:
    """The processor of a Linux or Android tree; None where /proc/cpuinfo says nothing.

    Raises EdgeGaugeError for a processor that none of our core classes describes.
    """
    blocks = _blocks(tree.text("proc/cpuinfo"))
    if not blocks:
        return None
    usable, notes = _usable(tree, blocks)
    cpus = _cpus(tree, blocks, usable)
    features = _features(blocks)
    soc = _soc(tree, blocks)
    clusters = _clusters(cpus, soc)
    core_class, doubt = _classify(blocks, clusters, set(features), android=android)
    caches = _caches(tree, usable)
    return CpuFacts(
        soc=soc,
        core_class=core_class,
        clusters=clusters,
        features=features,
        l2_bytes=caches.get(2),
        l3_bytes=caches.get(3),
        order=_order(cpus),
        notes=notes + doubt,
    )


def _blocks(cpuinfo: str | None) -> dict[int, dict[str, str]]:
    """The blocks of /proc/cpuinfo by processor number, general lines added to each."""
    general: dict[str, str] = {}
    blocks: dict[int, dict[str, str]] = {}
    for text in re.split(r"\n\s*\n", cpuinfo or ""):
        block = fields(text)
        number = integer(block.get("processor"))
        if number is None:
            general |= block
        else:
            blocks[number] = block
    return {n: general | b for n, b in blocks.items()}


def _usable(tree: Tree, blocks: dict[int, dict[str, str]]) -> tuple[list[int], list[str]]:
    """CPUs that are online and allowed to this process, and a note where those are not all."""
    allowed = cpu_list(fields(tree.text("proc/self/status")).get("Cpus_allowed_list"))
    usable = sorted(set(blocks) & set(allowed)) if allowed else sorted(blocks)
    if not usable or len(usable) == len(blocks):
        return sorted(blocks), []
    return usable, [f"This process may use {len(usable)} of {len(blocks)} CPUs (affinity)."]


def _cpus(tree: Tree, blocks: dict[int, dict[str, str]], usable: list[int]) -> list[_Cpu]:
    performance = set(cpu_list(tree.text("sys/devices/cpu_core/cpus")))
    efficient = set(cpu_list(tree.text("sys/devices/cpu_atom/cpus")))
    cpus = []
    for n in usable:
        khz = tree.integer(f"{CPUS}/cpu{n}/cpufreq/cpuinfo_max_freq")
        topology = f"{CPUS}/cpu{n}/topology"
        siblings = cpu_list(
            tree.text(f"{topology}/core_cpus_list") or tree.text(f"{topology}/thread_siblings_list")
        )
        kind = (
            "P-core" if n in performance else "E-core" if n in efficient else _arm_core(blocks[n])
        )
        cpus.append(
            _Cpu(
                number=n,
                kind=kind,
                ghz=round(khz / 1e6, 2) if khz and 0 < khz < 10_000_000 else None,
                capacity=tree.integer(f"{CPUS}/cpu{n}/cpu_capacity") or 0,
                siblings=tuple(s for s in siblings if s in usable) or (n,),
            )
        )
    return cpus


def _arm_core(block: dict[str, str]) -> str:
    """The core's name on ARM; empty on x86, where the model name says it."""
    implementer, part = (_hex(block.get(k)) for k in ("CPU implementer", "CPU part"))
    if implementer is None or part is None:
        return ""
    return arm.core_name(implementer, part) or f"ARM core {implementer:#04x}/{part:#05x}"


def _hex(text: str | None) -> int | None:
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-fA-F]{1,4}", text) else None


def _clusters(cpus: list[_Cpu], soc: str) -> list[Cluster]:
    """Cores grouped by kind and clock, fastest first; one without a kind is named as its chip."""
    groups: list[list[_Cpu]] = []
    for cpu in sorted(cpus, key=lambda c: c.speed, reverse=True):
        for group in groups:
            fastest = group[0].ghz or 0.0
            if group[0].kind == cpu.kind and (cpu.ghz or 0.0) >= SAME_CLOCK * fastest:
                group.append(cpu)
                break
        else:
            groups.append([cpu])
    return [
        Cluster(core=g[0].kind or soc[:60], count=len({c.siblings for c in g}), ghz=g[0].ghz)
        for g in groups
    ]


def _order(cpus: list[_Cpu]) -> list[int]:
    """CPU numbers, the first hyper-thread of every core before any second one."""
    by_speed = sorted(cpus, key=lambda c: c.speed, reverse=True)
    return [c.number for c in sorted(by_speed, key=lambda c: c.siblings.index(c.number))]


def _features(blocks: dict[int, dict[str, str]]) -> list[CpuFeature]:
    """Instruction sets that every core has, in the order of the schema."""
    per_cpu: list[set[str]] = []
    for block in blocks.values():
        words = (block.get("flags") or block.get("Features") or "").split()
        per_cpu.append({ARM_FEATURES.get(w, w) for w in words})
    common = set.intersection(*per_cpu)
    return [f for f in cast(tuple[CpuFeature, ...], get_args(CpuFeature)) if f in common]


def _soc(tree: Tree, blocks: dict[int, dict[str, str]]) -> str:
    """The chip's name: x86 model name, the device tree's last `compatible`, or Android's."""
    block = next(iter(blocks.values()))
    compatible = (tree.text("proc/device-tree/compatible") or "").split("\0")[-1]
    name = (
        (block.get("model name") if "flags" in block else None)
        or compatible.split(",")[-1].upper()
        or block.get("Hardware")
        or block.get("model name")
        or _arm_core(block)
        or "unknown processor"
    )
    return chip_name(name) or "unknown processor"


def chip_name(text: str) -> str:
    """A processor's name without trademarks, clock and generation, so that sources agree on it."""
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*|\b\d+th Gen\b", " ", text)
    return " ".join(name.split())[:120]


def _caches(tree: Tree, usable: list[int]) -> dict[int, int]:
    """Bytes of data cache by level, each shared cache counted once."""
    found: dict[tuple[int, str], int] = {}
    for n in usable:
        for index in tree.names(f"{CPUS}/cpu{n}/cache"):
            at = f"{CPUS}/cpu{n}/cache/{index}"
            level, size = tree.integer(f"{at}/level"), cache_bytes(tree.text(f"{at}/size"))
            if level is None or size is None or tree.text(f"{at}/type") == "Instruction":
                continue
            found[level, tree.text(f"{at}/shared_cpu_list") or str(n)] = size
    totals: dict[int, int] = {}
    for (level, _), size in found.items():
        totals[level] = totals.get(level, 0) + size
    return totals


def cache_bytes(text: str | None) -> int | None:
    """Bytes from the kernel's `512K` or `105M`."""
    match = re.fullmatch(r"([0-9]{1,9})([KM]?)", text or "")
    if not match or int(match[1]) == 0:
        return None
    return int(match[1]) * {"": 1, "K": 1024, "M": MIB}[match[2]]


def _classify(
    blocks: dict[int, dict[str, str]],
    clusters: list[Cluster],
    features: set[CpuFeature],
    *,
    android: bool,
) -> tuple[CoreClass, list[str]]:
    """The core class, and a note where the processor does not fit it well."""
    block = next(iter(blocks.values()))
    if "flags" in block:
        if "avx512f" in features:
            return "x86-avx512", []
        doubt = [] if "avx2" in features else ["No AVX2: slower than its class, x86-avx2."]
        return "x86-avx2", doubt
    if "CPU implementer" not in block:
        raise EdgeGaugeError(
            f"no core class fits this processor ({clusters[0].core}): it is neither x86 nor ARM",
            hint="describe it by hand: see docs/how-to/add-a-device.md",
        )
    if _hex(block["CPU implementer"]) == arm.APPLE:
        return "apple", []
    return _classify_arm([c.core for c in clusters], features, android=android)


def _classify_arm(
    cores: list[str], features: set[CpuFeature], *, android: bool
) -> tuple[CoreClass, list[str]]:
    fastest = cores[0]
    if fastest in arm.IN_ORDER:
        return "arm-in-order", []
    if fastest in arm.WITHOUT_DOT_PRODUCT or "dotprod" not in features:
        return "arm-a72", []
    if fastest in arm.PHONE_ONLY or (android and len(cores) > 1):
        return "arm-big-little", []
    doubt = [f"{fastest} is not in the table of cores."] if fastest.startswith("ARM core") else []
    return "arm-a76", doubt
