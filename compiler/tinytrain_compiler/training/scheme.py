"""Which layers train: layers, input channels and biases, chosen at compile time or left to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph import Graph, Node

MULTIPLE = 4  # the device takes channels by fours: whole words of deltas and saved inputs


@dataclass(frozen=True)
class Layer:
    """A layer with weights in front of the embedding, as policies see it."""

    name: str
    channels: int  # input channels that can be selected, of all groups
    inputs: int  # of a group
    outputs: int  # of a group
    groups: int

    def whole(self) -> TrainedLayer:
        """All input channels, at compile time."""
        return TrainedLayer(tuple(range(self.channels)))


@dataclass(frozen=True)
class TrainedLayer:
    """One layer that trains."""

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


def as_candidates(layers: Sequence[Layer], scheme: Scheme) -> Scheme:
    """The layers of a static scheme as candidates: the device chooses which channels, and how many at most is kept,
    rounded up to a multiple of four where the layer has as many."""
    channels = {layer.name: layer.channels for layer in layers}

    def candidate(name: str, layer: TrainedLayer) -> TrainedLayer:
        count = min(len(layer.channels) + MULTIPLE - 1, channels[name])
        return TrainedLayer(limit=count // MULTIPLE * MULTIPLE)

    return Scheme({name: candidate(name, layer) for name, layer in scheme.layers.items()})


def backward_nodes(graph: Graph, scheme: Scheme) -> list[Node]:
    """Nodes the backward pass visits, last first: on a path from a trained layer's output to the embedding."""
    path = ancestors(graph, graph.features)
    reached: set[str] = set()
    visited: list[Node] = []
    for node in graph.nodes:
        if node.output in path and (node.name in scheme.layers or any(name in reached for name in node.inputs)):
            reached.add(node.output)
            visited.append(node)
    return visited[::-1]


def ancestors(graph: Graph, tensor: str) -> set[str]:
    """The tensor and all it is computed from."""
    found = {tensor}
    for node in reversed(graph.nodes):
        if node.output in found:
            found.update(node.inputs)
    return found
