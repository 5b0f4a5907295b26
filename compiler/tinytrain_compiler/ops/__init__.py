"""The operators: one record each, one file each."""

from . import add, avg_pool, conv2d, depthwise_conv2d, fully_connected, lookup, max_pool, reshape, softmax
from .base import Int8, Kernel, Operator, operator_of, registered

__all__ = [
    "Int8", "Kernel", "Operator", "add", "avg_pool", "conv2d", "depthwise_conv2d", "fully_connected", "lookup",
    "max_pool", "operator_of", "registered", "reshape", "softmax",
]  # fmt: skip
