"""Norms of pretrained tensors: what a step's length is relative to. docs/reference/numerics.md, "Updates".

Constants of a compiled model, and of the NumPy trainer that it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..ops import weights_of
from .formats import NEAREST

DELTA_BITS = NEAREST.fraction_bits  # of a weight's step
BIAS_RATE_MULTIPLIER = 4  # learning rate of biases over that of weights: docs/studies/2026-11-21-learning-rates.md


def bias_units(graph: Graph, node: Node) -> NDArray[np.float64]:
    """Real value of one step of each bias: s_w[o] s_x."""
    units: NDArray[np.float64] = node.constants["weight_scales"] * graph.tensors[node.inputs[0]].quantization.scale
    return units


def bias_norm(graph: Graph, node: Node) -> np.float32:
    """|b| of the pretrained biases, real, times how much further than weights they go."""
    return np.float32(np.sqrt(((node.constants["bias"] * bias_units(graph, node)) ** 2).sum()) * BIAS_RATE_MULTIPLIER)


def weight_norm(node: Node, channels: Sequence[int]) -> np.float32:
    """|w| of the selected channels' pretrained weights, real, times the fraction bits of a delta."""
    layout = weights_of(node).layout(node)
    real = layout.select(node.constants["weights"], channels)
    real = real * node.constants["weight_scales"][layout.outputs_of(channels)]
    return np.float32(np.sqrt((real**2).sum()) * 2**DELTA_BITS)
