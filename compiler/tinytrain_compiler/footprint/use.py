"""RAM and flash that the firmware takes, and what there is of them."""

from __future__ import annotations

from dataclasses import dataclass

from ..audio import AudioPlan
from ..boards import Board
from ..codegen import KernelTable
from ..memory import MemoryPlan
from ..runtime_abi import SESSION_STRUCT, STORAGE_BLOCK
from ..training.plan import TrainingPlan
from .training import training_flash

LINK_SLACK = 64  # bytes the linker may lose to alignment between sections, per board
PARAMS_BYTES = 20  # a layer's parameter struct

# Bytes of machine code, measured and held like those of kernels (ops/kernel.py).
RUNTIME_CODE = 4700  # runtime, start-up code, UART, C library and their constants
STORAGE_CODE = 2500  # saving and loading, without the driver
V6M_CODE = 1450  # library code for 64-bit products and division, on cores without the instructions
CALL_CODE = 20  # a layer's call
AUDIO_CODE, AUDIO_V6M_CODE = 3600, 800  # the front end for sound; more where 64-bit products are calls


@dataclass(frozen=True)
class SramUse:
    """Bytes of RAM."""

    arena: int
    session: int
    static_data: int
    stack: int
    lower_bound: int
    budget: int
    audio: int = 0  # of the front end for sound

    @property
    def total(self) -> int:
        """What the model itself takes; the stack belongs to the application."""
        return self.arena + self.session + self.static_data + self.audio

    @property
    def needed(self) -> int:
        """What must be there for the firmware to link and run."""
        return self.total + self.stack + LINK_SLACK


@dataclass(frozen=True)
class FlashUse:
    """Bytes of flash; code is an upper bound until the firmware is linked."""

    weights: int
    code: int
    budget: int
    slots: int = 0  # of saved states, at the end; the image fits without them
    audio: int = 0  # of the front end for sound: constants and code

    @property
    def total(self) -> int:
        """The image."""
        return self.weights + self.code + self.audio

    @property
    def left(self) -> int:
        """Behind the image, in front of the slots."""
        return self.budget - self.total - self.slots


def session_bytes(classes: int, features: int, trains: bool) -> int:
    """sizeof(<name>_session) on a 32-bit core: the struct, int16 sums, uint16 shots; twice these where it trains."""
    prototypes = 2 * classes * (features + 1) * (2 if trains else 1)
    return SESSION_STRUCT + -(-prototypes // 4) * 4


def state_bytes(classes: int, features: int, state: int) -> int:
    """<NAME>_STATE_BYTES: flash that one of the two slots of a saved state needs."""
    payload = state + 2 * classes * (features + 1)
    return (2 + -(-payload // STORAGE_BLOCK)) * STORAGE_BLOCK


def code_bound(kernels: KernelTable, board: Board) -> int:
    functions = {use.symbol: use.kernel for use in kernels.uses}
    own = sum(kernel.code_bytes(board) for kernel in functions.values()) + CALL_CODE * len(kernels.uses)
    return RUNTIME_CODE + STORAGE_CODE + (V6M_CODE if board.core_info.v6m else 0) + own


def sram_use(
    plan: MemoryPlan, board: Board, session: int, limit: int | None = None, audio: AudioPlan | None = None
) -> SramUse:
    """limit: bytes that the model may use where the application needs the rest; None for all that the board has."""
    budget = board.ram_bytes if limit is None else limit
    front_end = 0 if audio is None else audio.state_bytes
    return SramUse(plan.arena_bytes, session, 0, board.stack_bytes, plan.lower_bound_bytes, budget, front_end)


def flash_use(
    kernels: KernelTable, board: Board, training: TrainingPlan | None = None, audio: AudioPlan | None = None
) -> FlashUse:
    weights = sum(use.kernel.flash_bytes + PARAMS_BYTES for use in kernels.uses)
    code = code_bound(kernels, board)
    if training is not None:
        constants, more = training_flash(training, board)
        weights, code = weights + constants, code + more
    return FlashUse(weights, code, board.flash_bytes, audio=_audio_flash(board, audio))


def _audio_flash(board: Board, audio: AudioPlan | None) -> int:
    if audio is None:
        return 0
    return audio.table_bytes + AUDIO_CODE + (AUDIO_V6M_CODE if board.core_info.v6m else 0)
