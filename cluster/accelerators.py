"""How much memory an accelerator has, by Ray's name of its type."""

from __future__ import annotations

from collections.abc import Mapping

MEMORY_GIB: Mapping[str, float] = {
    "T4": 15,
    "V100": 16,
    "P100": 16,
    "P4": 7.5,
    "L4": 22.5,
    "A10G": 22.5,
    "L40S": 45,
    "A100": 40,
    "A100-40G": 40,
    "A100-80G": 80,
    "H100": 80,
    "H20": 96,
    "H200": 141,
    "B200": 180,
    "B300": 270,
    "RTX-PRO-6000": 96,
}
"""What an engine finds of it, from the vendors' data sheets less what error correction takes. Of a type that
comes in two sizes the smaller; `memory_gib` of a pool's accelerator says otherwise."""
