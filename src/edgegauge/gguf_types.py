"""Tables of the GGUF format: tensor types and their blocks, file types and their usual width.

Block sizes: `gguf-py/gguf/constants.py` of llama.cpp (tests compare with the `gguf` package). Usual
widths: `tools/quantize/README.md` of llama.cpp, bits per weight of Llama-3.1-8B; where that table
has no line, the width of the type's own block.
"""

from __future__ import annotations

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
"""Number in the file: name, elements of one block along a row, bytes of one block."""

FILE_TYPES: dict[int, tuple[str, float]] = {
    0: ("F32", 32.0), 1: ("F16", 16.0), 2: ("Q4_0", 4.5), 3: ("Q4_1", 5.0), 7: ("Q8_0", 8.5),
    8: ("Q5_0", 5.5), 9: ("Q5_1", 6.0), 10: ("Q2_K", 3.16), 11: ("Q3_K_S", 3.64),
    12: ("Q3_K_M", 4.0), 13: ("Q3_K_L", 4.3), 14: ("Q4_K_S", 4.67), 15: ("Q4_K_M", 4.89),
    16: ("Q5_K_S", 5.57), 17: ("Q5_K_M", 5.7), 18: ("Q6_K", 6.56), 19: ("IQ2_XXS", 2.38),
    20: ("IQ2_XS", 2.59), 21: ("Q2_K_S", 2.97), 22: ("IQ3_XS", 3.5), 23: ("IQ3_XXS", 3.25),
    24: ("IQ1_S", 2.0), 25: ("IQ4_NL", 4.68), 26: ("IQ3_S", 3.66), 27: ("IQ3_M", 3.76),
    28: ("IQ2_S", 2.74), 29: ("IQ2_M", 2.93), 30: ("IQ4_XS", 4.46), 31: ("IQ1_M", 2.15),
    32: ("BF16", 16.0), 36: ("TQ1_0", 1.69), 37: ("TQ2_0", 2.06),
}  # fmt: skip
"""`general.file_type`: its name, and the bits per weight that the name makes one expect."""

VALUE_FORMATS: dict[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Number of a scalar metadata type: its `struct` letter."""

STRING, ARRAY = 8, 9
