"""What is plausible of the constants before any measurement: their centres and spreads.

A spread is a standard deviation in natural logarithm. Where few rows involve a constant, these
decide.
"""

from __future__ import annotations

CENTRES = {
    # name: centre of the constant, spread in natural logarithm
    "bandwidth_share": (0.65, 0.3), "bandwidth_exponent": (0.85, 0.1), "thread": (1.0, 0.3),
    "read_share": (0.87, 0.1), "decode": (8, 0.4), "prefill": (14, 0.4),
    "layer": (60_000, 0.7), "decode_attention": (4, 0.7), "prefill_attention": (2, 0.7),
}  # fmt: skip
"""read_share: 0.9 on a Raspberry Pi 5, 0.68 to 0.77 on an i7-12700H (llama-roofline 0.2.3).
thread: what the cores of all classes read against `CLASS_STREAMS`, or against what one core of a
device was measured to read. decode and prefill: multiply-adds with Q4_0 in a cycle, three quarters
of what `kernels.csv` allows an A76."""

CLASS_SPREAD = {
    "bandwidth_share": 0.2, "thread": 0.35, "core": 0.35, "decode": 0.15, "prefill": 0.15,
    "layer": 0.4,
}  # fmt: skip
"""core: what the cores of a class do in a cycle, in decode and in prefill alike; what is peculiar
to one of them is less."""

CLASS_CORES = {"arm-in-order-plain": 0.2, "arm-in-order": 0.3, "arm-a72": 0.7, "apple": 2.0}
"""Centre of what a core of a class does in a cycle against an A76, with the same instructions. A53
and A55 begin two instructions in order, an A53 on vectors of half the width; A72 three; Apple's
cores have four vector units."""

CLASS_SHARES = {"arm-a72": 0.66}
"""Centre of a class's share of the theoretical bandwidth against the others': STREAM reaches 5.56
of a Raspberry Pi 4's 12.8 GB/s (sci-pi.org.uk)."""

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

RUNTIME_F32 = {"decode": 2, "prefill": 3.7}
"""Centre of the cost of a multiply-add with F32 in another runtime, relative to llama.cpp's Q4_0;
integers cost the same."""

KERNEL_SPREAD, TYPE_SPREAD, UNCOUNTED_SPREAD, RUNTIME_SPREAD = 0.2, 0.15, 0.5, 1.0
"""Spreads of what a kernel costs against `kernels.csv`, of what a weight type adds to that in all
sets alike, of a cost that nobody counted, and of what another runtime makes of a type."""

ATTENTION_SPREAD = 0.3
"""Of what a set of kernels makes of attention."""

FIXED = 1e-6
"""Spread of a parameter that is not fitted."""
