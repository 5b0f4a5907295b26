"""The quantised graph: the one representation every stage after the frontends works on."""

from .graph import Graph, GraphError, Node, Origin, Tensor, verify
from .layout import Layout
from .quantization import Multiplier, Quantization, quantize_multiplier, requantize

__all__ = [
    "Graph",
    "GraphError",
    "Layout",
    "Multiplier",
    "Node",
    "Origin",
    "Quantization",
    "Tensor",
    "quantize_multiplier",
    "requantize",
    "verify",
]
