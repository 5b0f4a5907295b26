"""The layers of a graph as policies see them, what a policy trains of them, and which layers no policy can train."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError, listed
from ..graph import Graph, Node
from ..ops import operator_of, weights_of
from .heads import HeadKind
from .policy import Policy
from .scheme import Layer, Scheme, ancestors


@dataclass(frozen=True)
class FrozenLayers:
    """Layers that stay as they are because gradients cannot pass a node behind them."""

    behind: Node  # of such nodes on the way to the embedding, the one that is nearest to these layers
    names: tuple[str, ...]  # in execution order

    @property
    def reason(self) -> str:
        return f"{self.behind.op} '{self.behind.name}' behind them has no backward rule"


def scheme_of(policy: Policy, graph: Graph, head: HeadKind) -> Scheme | None:
    """What a policy trains of its graph (Policy.prepare); None where nothing trains, the head neither.

    Errors: UsageError for a network without layers that can train, and what Policy.scheme raises.
    """
    layers = trainable_layers(graph)
    frozen = frozen_layers(graph)
    because = "; ".join(f"{listed(group.names)}: frozen, {group.reason}" for group in frozen)
    if policy.trains_layers and not layers:
        what = "no layer with weights stands in front of the embedding"
        if frozen:
            what = f"gradients reach no layer with weights ({because}); use --policy none with --head linear"
        raise UsageError(f"--policy {policy.name}: {what}")
    try:
        scheme = policy.scheme(layers)
    except UsageError as error:
        raise UsageError(f"{error} ({because})") if frozen else error from None
    return scheme if scheme.layers or head.learns else None


def trainable_layers(graph: Graph) -> list[Layer]:
    """Layers with weights that gradients reach from the embedding, in execution order."""
    found = []
    for node in embedding_layers(graph):
        layout = weights_of(node).layout(node)
        found.append(Layer(node.name, layout.channels, layout.inputs, layout.outputs, layout.groups))
    return found


def embedding_layers(graph: Graph) -> list[Node]:
    """Their nodes."""
    stopped = _stopped(graph)
    return [node for node in _layers(graph) if node.output not in stopped]


def frozen_layers(graph: Graph) -> list[FrozenLayers]:
    """Layers with weights in front of the embedding whose gradients would have to pass a node without a rule."""
    stopped = _stopped(graph)
    found: dict[str, tuple[Node, list[str]]] = {}
    for node in _layers(graph):
        if node.output in stopped:
            by = stopped[node.output]
            found.setdefault(by.name, (by, []))[1].append(node.name)
    return [FrozenLayers(by, tuple(names)) for by, names in found.values()]


def _layers(graph: Graph) -> list[Node]:
    path = ancestors(graph, graph.features)
    return [node for node in graph.nodes if operator_of(node).weights is not None and node.output in path]


def _stopped(graph: Graph) -> dict[str, Node]:
    """Tensors in front of the embedding, gradients of which are not or not completely known -> what stops them.

    One way around a node without a rule is not enough: what is missing of a gradient would make it wrong.
    """
    path = ancestors(graph, graph.features)
    found: dict[str, Node] = {}
    for node in reversed(graph.nodes):
        if node.output == graph.features or node.output not in path:
            continue
        readers = [reader for reader in graph.consumers(node.output) if reader.output in path]
        for reader in readers:
            if operator_of(reader).backward is None:
                found[node.output] = reader
            elif reader.output in found:
                found.setdefault(node.output, found[reader.output])
    return found
