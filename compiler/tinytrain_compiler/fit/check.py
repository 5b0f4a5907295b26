"""Whether a planned model fits its board's memories, and in words what is too large."""

from __future__ import annotations

from collections.abc import Mapping

from ..boards import Board
from ..errors import DoesNotFitError
from ..footprint.use import LINK_SLACK, FlashUse, SramUse
from ..memory import MemoryPlan


def sram_problem(sram: SramUse, board: Board) -> str:
    """Needed, available, missing; for a need above the budget."""
    source = "--sram allows" if sram.budget < board.ram_bytes else f"{board.name} has"
    return (
        f"SRAM: needs {sram.needed:,} bytes (arena {sram.arena:,} + session {sram.session:,} + stack {sram.stack:,} + "
        f"alignment {LINK_SLACK}), {source} {sram.budget:,}: {sram.needed - sram.budget:,} too many"
    )


def flash_problem(flash: FlashUse, board: Board) -> str:
    return (
        f"flash: needs {flash.total:,} bytes (weights {flash.weights:,} + code at most {flash.code:,}), "
        f"{board.name} has {flash.budget:,}: {flash.total - flash.budget:,} too many"
    )


def check_fit(sram: SramUse, flash: FlashUse, plan: MemoryPlan, board: Board, largest: Mapping[str, int]) -> None:
    """Raise DoesNotFitError: which memory, how much is needed, how much there is, what to do.

    largest: the biggest live buffers at the worst step, name -> bytes.
    """
    problems = []
    if sram.needed > sram.budget:
        buffers = ", ".join(f"{name} {size:,}" for name, size in largest.items())
        problems.append(
            f"{sram_problem(sram, board)}. Live at the worst step: {buffers}. "
            f"Use a smaller input resolution or a narrower network, or a board with more RAM"
        )
    elif any(size > board.bank(bank).bytes for size, bank in zip(plan.region_bytes, plan.region_banks, strict=True)):
        banks = ", ".join(f"{bank.name} {bank.bytes:,}" for bank in board.banks)
        problems.append(f"SRAM: the arena needs {plan.arena_bytes:,} bytes in one piece, the banks are {banks}")
    if flash.total > flash.budget:
        problems.append(
            f"{flash_problem(flash, board)}. Use a network with fewer parameters, or a board with more flash"
        )
    if problems:
        raise DoesNotFitError(f"the model does not fit {board.name}\n" + "\n".join(f"  {p}" for p in problems))
