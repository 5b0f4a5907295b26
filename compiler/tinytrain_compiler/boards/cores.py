"""What the cores can have, and how the compiler is told. Adding a core: its row in CORES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """What a core of this name can have; a board says what it has."""

    fpus: Mapping[str, str]  # fpu attribute -> -mfpu value; "" where -mcpu already says it
    v6m: bool = False  # faults on unaligned access, no fault status registers
    vtor: bool = True
    dsp: bool = False
    mve: bool = False


_NO_FPU = {"none": ""}
CORES: Mapping[str, Core] = {
    "cortex-m0": Core(_NO_FPU, v6m=True, vtor=False),
    "cortex-m0plus": Core(_NO_FPU, v6m=True),
    "cortex-m3": Core(_NO_FPU),
    "cortex-m4": Core({"none": "", "sp": "fpv4-sp-d16"}, dsp=True),
    "cortex-m7": Core({"none": "", "sp": "fpv5-sp-d16", "dp": "fpv5-d16"}, dsp=True),
    "cortex-m33": Core({"none": "", "sp": "fpv5-sp-d16"}, dsp=True),
    "cortex-m55": Core({"none": "", "dp": ""}, dsp=True, mve=True),
}
# Attributes that a core has unless its -mcpu is told otherwise: (core, attribute) -> suffix that removes it.
_REMOVED = {
    ("cortex-m33", "dsp"): "+nodsp",
    ("cortex-m33", "fpu"): "+nofp",
    ("cortex-m55", "mve"): "+nomve",
    ("cortex-m55", "fpu"): "+nofp",
}


def cpu_flags(core: str, fpu: str, attributes: Mapping[str, bool]) -> tuple[str, ...]:
    """Flags for GCC and Clang that select exactly this core. attributes: "dsp" and "mve"."""
    absent = {name for name, on in attributes.items() if not on} | ({"fpu"} if fpu == "none" else set())
    removed = "".join(suffix for (name, attribute), suffix in _REMOVED.items() if name == core and attribute in absent)
    mfpu = CORES[core].fpus[fpu]
    return (
        f"-mcpu={core}{removed}",
        *([f"-mfpu={mfpu}"] if mfpu else []),
        f"-mfloat-abi={'soft' if fpu == 'none' else 'hard'}",
        "-mthumb",
    )
