"""Flash that a backward pass adds: constants, and an upper bound on its code."""

from __future__ import annotations

from ..boards import Board
from ..schedule import EffectiveParameters, KernelStep, UpdateWeights
from ..training.plan import TrainingPlan

# Bytes of machine code, measured and held like those of kernels (ops/kernel.py).
LOOP_CODE = 7 * 1024  # the training loop, selection, the loss, and what all backward passes share
V6M_CODE = 8000  # longer code all over, and library code for floats, on cores without the instructions
HEAD_CODE = 1600  # what a head with weights of its own adds to that
STATEMENT_CODE = 80  # one step of the backward pass
WITH_ANOTHER = (EffectiveParameters, UpdateWeights)  # steps that another's bytes cover: of a layer's updates one counts


def training_flash(plan: TrainingPlan, board: Board) -> tuple[int, int]:
    """(bytes of constants, bound on bytes of code)."""
    steps = list(plan.schedule.steps("forward", "backward"))
    visited = [moment.node for moment in plan.schedule.of("backward") if moment.node is not None]
    constants = sum(8 * len(layer.node.constants["bias"]) + 80 + 2 * layer.chosen for layer in plan.layers)
    scale = plan.formats.gradients.element_bytes
    constants += sum(scale * len(node.constants["bias"]) + 8 for node in visited if "bias" in node.constants)
    functions = {step.kernel.identity: step.kernel for step in steps if isinstance(step, KernelStep)}
    kernels = sum(kernel.code_bytes(board) for kernel in functions.values())
    statements = sum(not isinstance(step, WITH_ANOTHER) for step in plan.schedule.steps("backward"))
    shared = LOOP_CODE + (V6M_CODE if board.core_info.v6m else 0) + (HEAD_CODE if plan.head_bytes else 0)
    return constants, shared + STATEMENT_CODE * statements + kernels
