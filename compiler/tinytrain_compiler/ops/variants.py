"""Kernel variants: for each kind of core the fastest way to write a kernel. All compute the same bytes.

A variant of a kernel is a template, `templates/kernels/<operator>/<what>.<variant>.c.j2`. `portable` has all of
them; another variant has those it does better. All use the same scratch memory, so one set of sources serves every
core and the C preprocessor chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..boards import Board


@dataclass(frozen=True)
class Variant:
    """One way to write kernels."""

    name: str
    condition: str  # what the preprocessor asks; empty: always true
    header: str  # of the runtime, which its kernels include
    on: Callable[[Board], bool]  # whether a board's core runs it
    host: bool = False  # for studies on this machine: in <name>_kernels_host.c, which no firmware compiles


DSP = Variant("dsp", "TT_USE_DSP", "tt_dsp.h", on=lambda board: board.dsp)
VECTOR = Variant("vector", "TT_USE_VECTOR", "tt_vector.h", on=lambda board: False, host=True)
PORTABLE = Variant("portable", "", "tt_kernel.h", on=lambda board: True)

VARIANTS = (DSP, VECTOR, PORTABLE)  # fastest first


def variants_of(board: Board) -> tuple[Variant, ...]:
    """Those that a board's core runs, fastest first; a kernel runs the first that it has a template for."""
    return tuple(variant for variant in VARIANTS if variant.on(board))
