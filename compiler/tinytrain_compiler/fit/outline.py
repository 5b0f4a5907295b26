"""Refuses, by the shapes of a model alone, what cannot fit: before calibration and quantisation, which take long."""

from __future__ import annotations

from collections.abc import Sequence

from ..boards import Board
from ..errors import DoesNotFitError
from ..graph.outline import LayerOutline


def check_outline(layers: Sequence[LayerOutline], board: Board, sram_limit: int | None) -> None:
    """Raise DoesNotFitError where one layer's activations, or the weights of all, are more than the memory.

    sram_limit: bytes the model may use, None for all that the board has. What passes may still be too large. A
    fused operator that never holds all of a layer's input or output has to be known to LayerOutline first.
    """
    problems = []
    budget = board.ram_bytes if sram_limit is None else sram_limit
    worst = max(layers, key=lambda layer: layer.live_bytes, default=None)
    if worst is not None and worst.live_bytes + board.stack_bytes > budget:
        source = "--sram allows" if budget < board.ram_bytes else f"{board.name} has"
        problems.append(
            f"SRAM: needs at least {worst.live_bytes + board.stack_bytes:,} bytes (layer '{worst.name}' reads "
            f"{worst.input_bytes:,} and writes {worst.output_bytes:,}, the stack takes {board.stack_bytes:,}), "
            f"{source} {budget:,}: {worst.live_bytes + board.stack_bytes - budget:,} too many. "
            f"Use a smaller input resolution or a narrower network, or a board with more RAM"
        )
    weights = sum(layer.weight_bytes for layer in layers)
    if weights > board.flash_bytes:
        problems.append(
            f"flash: needs at least {weights:,} bytes for weights, {board.name} has {board.flash_bytes:,}: "
            f"{weights - board.flash_bytes:,} too many. Use a network with fewer parameters, or a board with more flash"
        )
    if problems:
        raise DoesNotFitError(f"the model does not fit {board.name}\n" + "\n".join(f"  {p}" for p in problems))
