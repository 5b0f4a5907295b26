"""The frozen prefix: layers in front of all that learn. Their features of a sample never change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..graph import Graph
from ..memory import renamed


@dataclass(frozen=True)
class Cut:
    """Nodes before `step` are frozen, and `tensor` is all that the others read of what they computed."""

    step: int
    tensor: str


def last_cut(graph: Graph, learning: Collection[str]) -> Cut:
    """The last cut in front of these nodes, or, without any, of the network; at worst the network's input."""
    root = renamed(graph)
    first = next((step for step, node in enumerate(graph.nodes) if node.name in learning), len(graph.nodes))
    last_use = {root[name]: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    for kept in (graph.output, graph.features):
        last_use[root[kept]] = len(graph.nodes)
    made = [root[graph.input], *(root[node.output] for node in graph.nodes)]  # made[i] exists before step i
    for step in range(first, 0, -1):
        live = {name for name in made[: step + 1] if last_use.get(name, -1) >= step}
        if len(live) == 1:
            return Cut(step, live.pop())
    return Cut(0, graph.input)
