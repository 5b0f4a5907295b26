"""The frozen prefix: layers in front of all that learn. Their features of a sample never change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..graph import Graph
from ..memory import renamed
from ..ops import operator_of


@dataclass(frozen=True)
class Cut:
    """Nodes before `step` are frozen, and `tensor` is all that the others read of what they computed."""

    step: int
    tensor: str


REPEATED = 1 / 32  # of the network's MACs may run once more in every step for the sake of fewer features


def last_cut(graph: Graph, learning: Collection[str]) -> Cut:
    """Of the cuts just in front of these nodes the one with the fewest bytes, the last of equals; at worst the input.

    A network narrows and widens again: features in front of a layer that widens are a fraction of those behind it.
    """
    root = renamed(graph)
    first = next(step for step, node in enumerate(graph.nodes) if node.name in learning)
    last_use = {root[name]: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    for kept in (graph.output, graph.features):
        last_use[root[kept]] = len(graph.nodes)
    made = [root[graph.input], *(root[node.output] for node in graph.nodes)]  # made[i] exists before step i
    macs = [operator_of(node).macs(node, graph.tensors) for node in graph.nodes]
    cuts: list[Cut] = []
    for step in range(first, -1, -1):
        if cuts and sum(macs[step : cuts[0].step]) > REPEATED * sum(macs):
            break
        live = {name for name in made[: step + 1] if last_use.get(name, -1) >= step}
        if len(live) == 1:
            cuts.append(Cut(step, live.pop()))
    return min(cuts, key=lambda cut: graph.tensors[cut.tensor].bytes)
