"""Selection on the device: which input channels of the candidates a task trains, and what each of them costs.

TinyTrain (Kwon et al., ICML 2024, section 3.2). The scores by which the device chooses, and the choice itself, are in
runtime_c/ and, for the tests, in reference/selection.py. docs/reference/numerics.md, "Selection".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph import Graph, Node
from ..ops import weights_of
from .scheme import Scheme
from .selectors import UNLIMITED

LIST_BYTES = 2  # of a channel's number


@dataclass(frozen=True)
class Candidate:
    """One layer whose channels the device chooses, with what a channel costs; bytes and MACs are per channel."""

    node: Node
    channels: int  # input channels
    limit: int  # how many may learn, at most
    pixels: int  # of the input
    delta_bytes: int
    macs: int  # of its weight gradient, a step
    first: int  # its first entry in the table of scores

    @property
    def saved_bytes(self) -> int:
        return self.pixels


def candidates_of(graph: Graph, scheme: Scheme, delta_bytes: int) -> list[Candidate]:
    """Candidates in execution order. delta_bytes: of a weight."""
    found: list[Candidate] = []
    first = 0
    for node in graph.nodes:
        layer = scheme.layers.get(node.name)
        if layer is None or not layer.limit:
            continue
        layout = weights_of(node).layout(node)
        channels, weights = layout.channels, layout.count(1)
        pixels = graph.tensors[node.inputs[0]].bytes // channels
        outputs = graph.tensors[node.output].bytes // len(node.constants["bias"])
        found.append(Candidate(node, channels, layer.limit, pixels, delta_bytes * weights, weights * outputs, first))
        first += channels
    return found


@dataclass(frozen=True)
class Budget:
    """What a selection may use: bytes for lists and deltas, bytes of saved inputs, MACs of weight gradients a step."""

    pool: int
    saved: int
    macs: int = UNLIMITED


def layer_cost(graph: Graph, candidate: Candidate) -> np.float32:
    """What P_i is multiplied by: s_x^2, which the integer sums leave out, over parameters and MACs."""
    scale = graph.tensors[candidate.node.inputs[0]].quantization.scale
    parameters = candidate.node.constants["weights"].size
    return np.float32(scale**2 * 2.0**40 / (parameters * candidate.macs * candidate.channels))
