"""Layers that train: what each keeps in the training state, and where."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops import weights_of
from ..runtime_abi import RUNNING_BYTES, SELECTED_BYTES
from ..schedule import align
from .formats import Rounding
from .scheme import Scheme


@dataclass(frozen=True)
class LayerState:
    """Where a trained layer's state lies inside the training state; offsets and counts."""

    node: Node
    chosen: int  # input channels, fixed at compile time; 0 also for a candidate
    limit: int  # input channels, at most
    bias_offset: int
    running_offset: int  # weights' and biases' running means
    deltas_offset: int
    deltas: int  # how many
    selected_offset: int | None = None  # of a candidate: its tt_selected

    @property
    def learns_weights(self) -> bool:
        return self.limit > 0

    @property
    def is_candidate(self) -> bool:
        """Whether the device chooses its channels."""
        return self.selected_offset is not None

    @property
    def parameter_bytes(self) -> tuple[int, int]:
        """(weights, biases) of the effective copy; no weights where only the bias trains."""
        weights = weights_of(self.node).layout(self.node).bytes if self.learns_weights else 0
        biases = -(-len(self.node.constants["bias"]) // 4) * 4  # depthwise kernels read whole groups of four
        return align(weights), align(4 * biases)


def lay_out(graph: Graph, scheme: Scheme, rounding: Rounding) -> tuple[list[LayerState], int]:
    """The trained layers in execution order, one after the other, and the bytes of all."""
    layers, offset = [], 0
    candidates = set(scheme.candidates)
    for node in graph.nodes:
        if node.name not in scheme.layers:
            continue
        chosen = len(scheme.layers[node.name].channels)
        deltas = weights_of(node).layout(node).count(chosen)
        bias_offset = offset
        running_offset = bias_offset + 4 * len(node.constants["bias"])
        deltas_offset = running_offset + 2 * RUNNING_BYTES
        selected = deltas_offset if node.name in candidates else None
        size = rounding.delta_bytes * deltas if selected is None else SELECTED_BYTES
        offset = -(-(deltas_offset + size) // 8) * 8
        limit = scheme.layers[node.name].limit or chosen
        layers.append(LayerState(node, chosen, limit, bias_offset, running_offset, deltas_offset, deltas, selected))
    return layers, offset
