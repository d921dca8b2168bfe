"""What is plausible of the constants before any measurement: their centres and spreads.

A spread is a standard deviation in natural logarithm. Where few rows involve a constant, these
decide.
"""

from __future__ import annotations

CENTRES = {
    # name: centre of the constant, spread in natural logarithm
    "bandwidth_share": (0.65, 0.3), "bandwidth_exponent": (0.85, 0.1), "thread": (1.0, 0.3),
    "read_share": (0.87, 0.1), "decode": (8, 0.7), "prefill": (12, 0.7),
    "layer": (60_000, 0.7), "decode_attention": (4, 0.7), "prefill_attention": (2, 0.7),
}  # fmt: skip
"""read_share: 0.9 on a Raspberry Pi 5, 0.68 to 0.77 on an i7-12700H (llama-roofline 0.2.3).
thread: what the cores of all classes read against `CLASS_STREAMS`."""

CLASS_SPREAD = {"bandwidth_share": 0.2, "thread": 0.35, "decode": 0.4, "prefill": 0.4, "layer": 0.4}

CLASS_RATES = {"arm-in-order-plain": 0.06, "arm-in-order": 0.3, "arm-a72": 0.2, "apple": 2.0}
"""Centre of a class's multiply-adds per cycle against the others'. A53 and A72 have no dot product
of bytes, A55 issues two instructions a cycle, Apple's cores have four vector units."""

CLASS_STREAMS = {
    "arm-in-order-plain": 2.3, "arm-in-order": 2.6, "arm-a72": 5, "arm-a76": 14,
    "arm-big-little": 32, "apple": 55, "x86-avx2": 30, "x86-avx512": 30,
}  # fmt: skip
"""Centre of what one core reads from memory, GB/s: it has only so many reads under way at once. By
memory benchmarks, of other devices than those of the rows but for the RK3566 and the Raspberry Pi
5: A53 (copies) 2.3, A55 2.4 to 2.8, A57 4.3, A73 (copies) 8, A78AE 9.7, A76 13.6 to 18.5
(sbc-bench), X2 32.5 (Chips and Cheese), M1 62 and M2 Pro 45, fast cores of Intel's laptops 27.6 to
39.5 (sbc-bench)."""

DEVICE_SPREAD = {"bandwidth": 0.2, "decode": 0.25, "prefill": 0.25}

HIDDEN_SPREAD = 1.0
"""The same for our own virtual machine: its clock and memory are not visible, so that its rows tell
ratios between weight types and runtimes, and nothing about its class."""

COSTS = {
    "decode": {
        "Q8_0": 1, "Q4_K": 1.15, "Q6_K": 1.55, "Q5_K": 1.5, "Q5_0": 2.2, "Q5_1": 2.2, "F16": 1.2,
        "BF16": 1.2, "F32": 2, "IQ4_NL": 1.1, "IQ4_XS": 1.2, "Q2_K": 1.2, "Q3_K": 1.6,
        "IQ2_XXS": 2.7, "IQ2_XS": 2.7, "IQ3_XXS": 3.3, "IQ3_S": 4,
    },
    "prefill": {
        "Q8_0": 1, "Q4_K": 1.2, "Q6_K": 1.8, "Q5_K": 1.6, "Q5_0": 3.3, "Q5_1": 3.3, "F16": 2.7,
        "BF16": 2.2, "F32": 3.7, "IQ4_NL": 1.2, "IQ4_XS": 2.7, "Q2_K": 1.8, "Q3_K": 2.2,
        "IQ2_XXS": 3.3, "IQ2_XS": 3.3, "IQ3_XXS": 4, "IQ3_S": 4.5,
    },
}  # fmt: skip
"""Centres of the costs of a multiply-add relative to Q4_0's."""

REPLACED = {"decode": 1.2, "prefill": 2.2}
"""Centre of the cost of a kernel that has been replaced since."""

COST_SPREAD, KERNEL_SPREAD, RUNTIME_SPREAD = 0.5, 0.3, 1.0
"""Spreads of a cost that a weight type has everywhere, of what a kernel set makes of it or of all
types that are not reordered, and of what another runtime makes of it."""

FIXED = 1e-6
"""Spread of a parameter that is not fitted."""
