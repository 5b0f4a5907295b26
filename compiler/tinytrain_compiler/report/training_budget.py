"""Flash that a backward pass adds: constants, and an upper bound on its code."""

from __future__ import annotations

from ..training.plan import TrainingPlan

LOOP_CODE = 6 * 1024  # the training loop, the loss, and what all backward passes share
HEAD_CODE = 1600  # what a head with weights of its own adds to that
STATEMENT_CODE = 80  # one call
GRADIENT_KERNEL_CODE = 900
LEARNING_KERNEL_CODE = 1400


def training_flash(plan: TrainingPlan) -> tuple[int, int]:
    """(bytes of constants, bound on bytes of code)."""
    visited = {action.node.name: action.node for action in plan.actions}.values()
    constants = sum(8 * len(layer.node.constants["bias"]) + 80 + 2 * layer.chosen for layer in plan.layers)
    scale = plan.formats.gradients.element_bytes
    constants += sum(scale * len(node.constants["bias"]) + 8 for node in visited if "bias" in node.constants)
    propagated = sum(action.kind == "propagate" for action in plan.actions)
    learnt = sum(layer.learns_weights for layer in plan.layers)
    calls = STATEMENT_CODE * len(plan.actions)
    loop = LOOP_CODE + (HEAD_CODE if plan.head_bytes else 0)
    return constants, loop + calls + GRADIENT_KERNEL_CODE * propagated + LEARNING_KERNEL_CODE * learnt
