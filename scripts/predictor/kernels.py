"""What llama.cpp's kernels cost, known before anybody measured a device.

    cost("Q5_K", "dotprod", "decode")     # 2.3 times a multiply-add with Q4_0
    kernel("Q4_K", "avx2", "2025-01", "prefill")      # "Q4_K~": replaced since

`kernels.csv` holds, for each set of kernels, weight type and layout, what a multiply-add takes: by
one token and by many at once. *Stored* weights are multiplied as they are in the file, *reordered*
ones were rearranged for the set's widest instructions while loading, *tiled* ones are unpacked for
256 tokens together.

- ARM: instructions and vector instructions per multiply-add, counted while llama.cpp's products of
  a matrix of 256 x 2048 ran in an emulator (ggml 0.25.3 with llamafile's products, as llama.cpp
  builds it; gcc 12, -O3; 1 and 32 tokens; weights of arbitrary bytes, on which no count depends).
  Cores like an A76 begin four instructions a cycle, of which two are on vectors: the larger of
  instructions / 4 and vector instructions / 2 is the time. Wider cores have more of both.
- x86: nanoseconds on one thread of an AMD EPYC (Zen 4), the same matrix in its second-level cache,
  the fastest of 480 products by one token and of 48 by 128, built once for AVX2 and once for
  AVX-512.

The fit moves each of these costs a little (`KERNEL_SPREAD`), where rows tell.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

from edgegauge.measured_row import Phase
from edgegauge.speed import KernelSet

ISSUED, ISSUED_VECTORS = 4, 2
"""Instructions that a core begins in a cycle: an A76 by Arm's optimization guide."""

ARM_SINCE = {
    "Q4_0": "2024-06", "IQ4_NL": "2024-11", "Q4_K": "2025-06", "Q8_0": "2025-10",
    "Q5_K": "2026", "Q6_K": "2026",
}  # fmt: skip
X86_SINCE = {"Q4_0": "2024-11", "Q4_K": "2025-03", "IQ4_NL": "2025-08"}
REORDERED_SINCE: dict[KernelSet, dict[str, str]] = {
    "plain": {}, "dotprod": ARM_SINCE, "i8mm": ARM_SINCE,
    "avx2": X86_SINCE, "avx512": {**X86_SINCE, "Q2_K": "2025-07"},
}  # fmt: skip
"""When llama.cpp began to reorder weights of a type (ggml/src/ggml-cpu/repack.cpp and its history,
pull requests 12332, 14904 and 14373; other months approximate). Rows from before then were measured
with kernels that have been replaced."""

TILED = (
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS",
    "IQ3_S",
)  # fmt: skip
TILED_SINCE = "2026-09"
"""Types of which x86 unpacks the weights for many tokens together, where they are not reordered
(pull request 27851, opened on 28 August 2026; the month of its release approximate)."""

REFERENCES = ("dotprod", "avx2", "avx512")
"""Sets whose Q4_0 costs are relative to: the first on all of ARM, the others to their own."""

UNCOUNTED = {"BF16": {"decode": 1.2, "prefill": 2.2}}
"""Assumed on ARM, against Q4_0 of the same set: which instructions multiply these differs between
cores of one set."""


def kernel(kind: str, kernels: KernelSet, date: str, phase: Phase) -> str:
    """What multiplied weights of a type at that time: the type, with ~ where it was replaced."""
    since = REORDERED_SINCE[kernels].get(kind)
    if since is None and phase == "prefill" and kernels.startswith("avx") and kind in TILED:
        since = TILED_SINCE
    return kind if since is None or date >= since else f"{kind}~"


def cost(name: str, kernels: KernelSet, phase: Phase) -> float:
    """Of a multiply-add with a kernel, relative to Q4_0's of `REFERENCES`."""
    reference = kernels if kernels in REFERENCES else REFERENCES[0]
    return _time(name, kernels, phase) / _time("Q4_0", reference, phase)


def is_counted(kind: str, kernels: KernelSet) -> bool:
    """Whether `kernels.csv` has this type in this set."""
    return (kernels, kind, "stored", "1") in _table()


def types() -> list[str]:
    """All weight types that are known."""
    return list(dict.fromkeys(key[1] for key in _table()))


def _time(name: str, kernels: KernelSet, phase: Phase) -> float:
    kind = name.removesuffix("~")
    if not is_counted(kind, kernels):
        return UNCOUNTED[kind][phase] * _time("Q4_0", kernels, phase)
    layouts = ["stored"] if name.endswith("~") else ["reordered", "tiled", "stored"]
    many = "1" if phase == "decode" else "many"
    for tokens in (many, "1"):  # Where nothing is gained from many, each takes as long as one.
        for layout in layouts:
            found = _table().get((kernels, kind, layout, tokens))
            if found is not None:
                return found
    raise KeyError(name)


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str, str, str], float]:
    with Path(__file__).with_name("kernels.csv").open(newline="") as stream:
        return {
            (e["kernels"], e["type"], e["layout"], e["tokens"]): _per_product(e)
            for e in csv.DictReader(stream)
        }


def _per_product(entry: dict[str, str]) -> float:
    if entry["ns"]:
        return float(entry["ns"])
    return max(float(entry["instructions"]) / ISSUED, float(entry["vector"]) / ISSUED_VECTORS)
