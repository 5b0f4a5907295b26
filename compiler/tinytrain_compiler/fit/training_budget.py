"""Flash that a backward pass adds: constants, and an upper bound on its code."""

from __future__ import annotations

from ..boards import Board
from ..ops import Kernel
from ..training.plan import TrainingPlan

# Bytes, measured and held like those of fit/budget.py.
LOOP_CODE = 7 * 1024  # the training loop, selection, the loss, and what all backward passes share
V6M_CODE = 6000  # longer code all over, and library code for floats, on cores without the instructions
HEAD_CODE = 1600  # what a head with weights of its own adds to that
STATEMENT_CODE = 80  # one call
FLOAT_KERNEL_CODE = 2200  # each
KERNEL_CODE = {  # template: (portable, dsp)
    "avg_pool/input_gradient": (1200, 1200),
    "conv2d/input_gradient": (1550, 640),
    "conv2d/weight_gradient": (1250, 1500),
    "depthwise_conv2d/input_gradient": (1050, 350),
    "conv2d/grouped_weight_gradient": (1400, 1300),
    "max_pool/input_gradient": (650, 650),
    "max_pool/winners": (420, 420),
}


def training_flash(plan: TrainingPlan, board: Board) -> tuple[int, int]:
    """(bytes of constants, bound on bytes of code)."""
    visited = {action.node.name: action.node for action in plan.actions}.values()
    constants = sum(8 * len(layer.node.constants["bias"]) + 80 + 2 * layer.chosen for layer in plan.layers)
    scale = plan.formats.gradients.element_bytes
    constants += sum(scale * len(node.constants["bias"]) + 8 for node in visited if "bias" in node.constants)
    functions = {(kernel.identity, repr(kernel.inline)): kernel for kernel in plan.kernels}
    kernels = sum(gradient_code(kernel, board.dsp) for kernel in functions.values())
    shared = LOOP_CODE + (V6M_CODE if board.core_info.v6m else 0) + (HEAD_CODE if plan.head_bytes else 0)
    return constants, shared + STATEMENT_CODE * len(plan.actions) + kernels


def gradient_code(kernel: Kernel, dsp: bool) -> int:
    """What one C function may take, by its template and the branches of it that its shape needs."""
    s = kernel.shape
    if kernel.template.endswith("_float32"):
        return FLOAT_KERNEL_CODE
    code = KERNEL_CODE[kernel.template][dsp]
    if kernel.template == "conv2d/input_gradient" and dsp:
        return code + (300 if s["CG"] % 4 else 0) + (300 if s["OG"] % 2 else 0) + (0 if s["POINTWISE"] else 500)
    if kernel.template == "conv2d/input_gradient":
        return code + (0 if s["POINTWISE"] else 500)
    if kernel.template == "depthwise_conv2d/input_gradient" and dsp:  # a loop with unrolled taps for each phase
        phases = len(kernel.inline["rows"].phases) * len(kernel.inline["columns"].phases)
        return code + (270 + (150 if s["C"] % 4 else 0)) * phases + 25 * s["KH"] * s["KW"]
    if kernel.template == "depthwise_conv2d/input_gradient":
        return code + (300 if s["C"] % 4 else 0)
    return code
