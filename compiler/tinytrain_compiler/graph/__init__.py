"""The quantised graph: the one representation every stage after the frontends works on."""

from .graph import Graph, GraphError, Node, Tensor, verify
from .quantization import Multiplier, Quantization, quantize_multiplier, requantize

__all__ = [
    "Graph",
    "GraphError",
    "Multiplier",
    "Node",
    "Quantization",
    "Tensor",
    "quantize_multiplier",
    "requantize",
    "verify",
]
