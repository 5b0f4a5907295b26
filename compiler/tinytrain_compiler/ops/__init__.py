"""The operators: one record each, one file each."""

from . import (
    add,
    avg_pool,
    broadcast_add,
    concat,
    conv2d,
    depthwise_conv2d,
    fully_connected,
    layer_norm,
    lookup,
    matmul,
    max_pool,
    mul,
    reshape,
    softmax,
    take,
    transpose,
)
from .arrays import Int8
from .base import Operator, backward_of, operator_of, register, registered, weights_of
from .kernel import Kernel

__all__ = [
    "Int8", "Kernel", "Operator", "add", "avg_pool", "backward_of", "broadcast_add", "concat", "conv2d",
    "depthwise_conv2d", "fully_connected", "layer_norm", "lookup", "matmul", "max_pool", "mul", "operator_of",
    "register", "registered", "reshape", "softmax", "take", "transpose", "weights_of",
]  # fmt: skip
