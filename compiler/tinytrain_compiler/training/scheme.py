"""Which layers learn: layers, input channels and biases, chosen at compile time or left to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph import Graph, Node
from ..ops import operator_of


@dataclass(frozen=True)
class TrainedLayer:
    """One layer that learns."""

    channels: tuple[int, ...] = ()  # input channels whose weights are updated; none: the bias alone
    limit: int = 0  # the device chooses the channels, at most so many, a multiple of 4; 0: `channels` are fixed

    @property
    def learns_weights(self) -> bool:
        return bool(self.channels) or self.limit > 0


@dataclass(frozen=True)
class Scheme:
    """Trained layers by node name."""

    layers: Mapping[str, TrainedLayer]

    @property
    def candidates(self) -> list[str]:
        """Layers whose channels the device chooses."""
        return [name for name, layer in self.layers.items() if layer.limit]

    def selected(self, channels: Mapping[str, Sequence[int]]) -> Scheme:
        """The static scheme that a selection on the device amounts to. channels: candidate -> its input channels."""
        chosen = {name: TrainedLayer(tuple(channels[name])) for name in self.candidates}
        return Scheme({**self.layers, **chosen})


def embedding_layers(graph: Graph) -> list[Node]:
    """Layers with weights in front of the embedding, in execution order."""
    path = _ancestors(graph, graph.features)
    return [node for node in graph.nodes if operator_of(node).weights is not None and node.output in path]


def backward_nodes(graph: Graph, scheme: Scheme) -> list[Node]:
    """Nodes the backward pass visits, last first: on a path from a trained layer's output to the embedding."""
    path = _ancestors(graph, graph.features)
    reached: set[str] = set()
    visited: list[Node] = []
    for node in graph.nodes:
        if node.output in path and (node.name in scheme.layers or any(name in reached for name in node.inputs)):
            reached.add(node.output)
            visited.append(node)
    return visited[::-1]


def _ancestors(graph: Graph, tensor: str) -> set[str]:
    """The tensor and all it is computed from."""
    found = {tensor}
    for node in reversed(graph.nodes):
        if node.output in found:
            found.update(node.inputs)
    return found
