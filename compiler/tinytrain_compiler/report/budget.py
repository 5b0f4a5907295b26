"""Memory the firmware needs, by purpose, against what the board has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..boards import Board
from ..codegen import KernelTable
from ..errors import DoesNotFitError
from ..memory import MemoryPlan

LINK_SLACK = 64  # bytes the linker may lose to alignment between sections, per board
SESSION_STRUCT = 28  # sizeof(tt_session) with 32-bit pointers
RUNTIME_CODE = 6 * 1024  # runtime, start-up code, UART, C library
PARAMS_BYTES = 20  # a layer's parameter struct

# Upper bounds of one kernel's machine code, in bytes, over all shapes and cores; tests/test_code_size.py
# builds real firmware and holds them against it.
KERNEL_CODE = {
    "conv2d": 1200,
    "depthwise_conv2d": 1600,
    "fully_connected": 700,
    "add": 360,
    "avg_pool": 500,
    "max_pool": 400,
    "lookup": 100,
    "softmax": 500,
}
DEPTHWISE_TAP_CODE = 40  # a depthwise kernel unrolls its taps


@dataclass(frozen=True)
class SramUse:
    """Bytes of RAM."""

    arena: int
    session: int
    static_data: int
    stack: int
    lower_bound: int
    budget: int

    @property
    def total(self) -> int:
        """What the model itself takes; the stack belongs to the application."""
        return self.arena + self.session + self.static_data


@dataclass(frozen=True)
class FlashUse:
    """Bytes of flash; code is an upper bound until the firmware is linked."""

    weights: int
    code: int
    budget: int

    @property
    def total(self) -> int:
        return self.weights + self.code


def session_bytes(classes: int, features: int) -> int:
    """sizeof(<name>_session) on a 32-bit core: the struct, int16 sums, uint16 shots."""
    return SESSION_STRUCT + -(-2 * classes * (features + 1) // 4) * 4


def code_bound(kernels: KernelTable) -> int:
    shapes = {use.symbol: use.kernel for use in kernels.uses}
    return RUNTIME_CODE + sum(
        KERNEL_CODE[kernel.template]
        + (DEPTHWISE_TAP_CODE * kernel.shape["KH"] * kernel.shape["KW"] if kernel.template == "depthwise_conv2d" else 0)
        for kernel in shapes.values()
    )


def sram_use(plan: MemoryPlan, board: Board, session: int) -> SramUse:
    return SramUse(plan.arena_bytes, session, 0, board.stack_bytes, plan.lower_bound_bytes, board.ram_bytes)


def flash_use(kernels: KernelTable, board: Board) -> FlashUse:
    weights = sum(use.kernel.flash_bytes + PARAMS_BYTES for use in kernels.uses)
    return FlashUse(weights, code_bound(kernels), board.flash_bytes)


def check_fit(sram: SramUse, flash: FlashUse, plan: MemoryPlan, board: Board, largest: Mapping[str, int]) -> None:
    """Raise DoesNotFitError: which memory, how much is needed, how much there is, what to do.

    largest: the biggest live buffers at the worst step, name -> bytes.
    """
    problems = []
    need = sram.total + sram.stack
    if need + LINK_SLACK > sram.budget:
        buffers = ", ".join(f"{name} {size:,}" for name, size in largest.items())
        problems.append(
            f"SRAM: needs {need:,} bytes (arena {sram.arena:,} + session {sram.session:,} + stack {sram.stack:,}), "
            f"{board.name} has {sram.budget:,}: {need - sram.budget:,} too many. Live at the worst step: {buffers}. "
            f"Use a smaller input resolution or a narrower network, or a board with more RAM"
        )
    elif any(size > board.bank(bank).bytes for size, bank in zip(plan.region_bytes, plan.region_banks, strict=True)):
        banks = ", ".join(f"{bank.name} {bank.bytes:,}" for bank in board.banks)
        problems.append(f"SRAM: the arena needs {plan.arena_bytes:,} bytes in one piece, the banks are {banks}")
    if flash.total > flash.budget:
        problems.append(
            f"flash: needs {flash.total:,} bytes (weights {flash.weights:,} + code at most {flash.code:,}), "
            f"{board.name} has {flash.budget:,}: {flash.total - flash.budget:,} too many. "
            f"Use a network with fewer parameters, or a board with more flash"
        )
    if problems:
        raise DoesNotFitError(f"the model does not fit {board.name}\n" + "\n".join(f"  {p}" for p in problems))
