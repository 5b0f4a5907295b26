"""The layers of a graph as policies see them, and what a policy trains of them."""

from __future__ import annotations

from ..errors import UsageError
from ..graph import Graph, Node
from ..ops import operator_of, weights_of
from .heads import HeadKind
from .policy import Policy
from .scheme import Layer, Scheme, ancestors


def scheme_of(policy: Policy, graph: Graph, head: HeadKind) -> Scheme | None:
    """What a policy trains of its graph (Policy.prepare); None where nothing trains, the head neither.

    Errors: UsageError for a network without layers that can train, and what Policy.scheme raises.
    """
    layers = trainable_layers(graph)
    if policy.trains_layers and not layers:
        raise UsageError(f"--policy {policy.name}: no layer with weights stands in front of the embedding")
    scheme = policy.scheme(layers)
    return scheme if scheme.layers or head.learns else None


def trainable_layers(graph: Graph) -> list[Layer]:
    """Layers with weights in front of the embedding, in execution order."""
    found = []
    for node in embedding_layers(graph):
        layout = weights_of(node).layout(node)
        found.append(Layer(node.name, layout.channels, layout.inputs, layout.outputs, layout.groups))
    return found


def embedding_layers(graph: Graph) -> list[Node]:
    """Their nodes."""
    path = ancestors(graph, graph.features)
    return [node for node in graph.nodes if operator_of(node).weights is not None and node.output in path]
