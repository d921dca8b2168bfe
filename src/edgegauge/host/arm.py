"""ARM core names by implementer and part number, as `/proc/cpuinfo` and MIDR_EL1 print them.

Source: the MIDR values of Arm's technical reference manuals and of the Linux kernel's
arch/arm64/include/asm/cputype.h.
"""

from __future__ import annotations

_ARM, _QUALCOMM, _APPLE, _NVIDIA = 0x41, 0x51, 0x61, 0x4E

CORES: dict[tuple[int, int], str] = {
    (_ARM, 0xC07): "Cortex-A7",
    (_ARM, 0xD04): "Cortex-A35",
    (_ARM, 0xD03): "Cortex-A53",
    (_ARM, 0xD05): "Cortex-A55",
    (_ARM, 0xD46): "Cortex-A510",
    (_ARM, 0xD80): "Cortex-A520",
    (_ARM, 0xD07): "Cortex-A57",
    (_ARM, 0xD08): "Cortex-A72",
    (_ARM, 0xD09): "Cortex-A73",
    (_ARM, 0xD0A): "Cortex-A75",
    (_ARM, 0xD0B): "Cortex-A76",
    (_ARM, 0xD0E): "Cortex-A76AE",
    (_ARM, 0xD0D): "Cortex-A77",
    (_ARM, 0xD41): "Cortex-A78",
    (_ARM, 0xD42): "Cortex-A78AE",
    (_ARM, 0xD4B): "Cortex-A78C",
    (_ARM, 0xD47): "Cortex-A710",
    (_ARM, 0xD4D): "Cortex-A715",
    (_ARM, 0xD81): "Cortex-A720",
    (_ARM, 0xD87): "Cortex-A725",
    (_ARM, 0xD44): "Cortex-X1",
    (_ARM, 0xD4C): "Cortex-X1C",
    (_ARM, 0xD48): "Cortex-X2",
    (_ARM, 0xD4E): "Cortex-X3",
    (_ARM, 0xD82): "Cortex-X4",
    (_ARM, 0xD85): "Cortex-X925",
    (_ARM, 0xD0C): "Neoverse-N1",
    (_ARM, 0xD49): "Neoverse-N2",
    (_ARM, 0xD8E): "Neoverse-N3",
    (_ARM, 0xD40): "Neoverse-V1",
    (_ARM, 0xD4F): "Neoverse-V2",
    (_QUALCOMM, 0x001): "Oryon",
    (_QUALCOMM, 0x800): "Kryo 2xx Gold",
    (_QUALCOMM, 0x801): "Kryo 2xx Silver",
    (_QUALCOMM, 0x802): "Kryo 3xx Gold",
    (_QUALCOMM, 0x803): "Kryo 3xx Silver",
    (_QUALCOMM, 0x804): "Kryo 4xx Gold",
    (_QUALCOMM, 0x805): "Kryo 4xx Silver",
    (_NVIDIA, 0x003): "Denver 2",
    (_NVIDIA, 0x004): "Carmel",
    (_APPLE, 0x022): "Icestorm (M1)",
    (_APPLE, 0x023): "Firestorm (M1)",
    (_APPLE, 0x032): "Blizzard (M2)",
    (_APPLE, 0x033): "Avalanche (M2)",
}

IN_ORDER = frozenset(
    {
        "Cortex-A7", "Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520",
        "Kryo 2xx Silver", "Kryo 3xx Silver", "Kryo 4xx Silver",
    }
)  # fmt: skip
"""Two-wide, in-order cores: the Kryo Silver ones are A53 and A55 relatives."""

WITHOUT_DOT_PRODUCT = frozenset({"Cortex-A57", "Cortex-A72", "Cortex-A73", "Kryo 2xx Gold"})
"""Out-of-order cores older than the int8 dot product."""

PHONE_ONLY = frozenset(
    {
        "Cortex-X1", "Cortex-X2", "Cortex-X3", "Cortex-X4", "Cortex-X925", "Cortex-A710",
        "Cortex-A715", "Cortex-A725", "Kryo 3xx Gold", "Kryo 4xx Gold",
    }
)  # fmt: skip
"""Fast cores that come beside small ones in phone chips, whatever system runs on them."""

APPLE = _APPLE


def core_name(implementer: int, part: int) -> str | None:
    """`Cortex-A76` for (0x41, 0xd0b); None for a core that is not in the table."""
    return CORES.get((implementer, part))
