"""The operators: one record each, one file each."""

from . import (
    add,
    avg_pool,
    conv2d,
    depthwise_conv2d,
    fully_connected,
    layer_norm,
    lookup,
    matmul,
    max_pool,
    reshape,
    softmax,
    transpose,
)  # fmt: skip
from .arrays import Int8
from .base import Operator, backward_of, operator_of, register, registered, weights_of
from .kernel import Kernel

__all__ = [
    "Int8", "Kernel", "Operator", "add", "avg_pool", "backward_of", "conv2d", "depthwise_conv2d", "fully_connected",
    "layer_norm", "lookup", "matmul", "max_pool", "operator_of", "register", "registered", "reshape", "softmax",
    "transpose", "weights_of",
]  # fmt: skip
