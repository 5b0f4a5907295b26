"""The freeze boundary: layers before it are frozen, and their features of a sample never change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..graph import Graph
from ..ops import operator_of
from ..schedule import renamed


@dataclass(frozen=True)
class FreezeBoundary:
    """The nodes before it, and the tensor that is all that the others read of what these computed."""

    frozen: tuple[str, ...]
    tensor: str


REPEATED = 1 / 32  # of the network's MACs may run once more in every step for the sake of fewer features


def freeze_boundary(graph: Graph, trained: Collection[str]) -> FreezeBoundary:
    """Of the boundaries at or before the first of these nodes, or the end where there are none, the one with the
    fewest bytes.

    Of equals the last; at worst the network's input.
    A network narrows and widens again: features in front of a layer that widens are a fraction of those behind it.
    """
    first = next((i for i, node in enumerate(graph.nodes) if node.name in trained), len(graph.nodes))
    crossing = _single_crossings(graph)
    macs = [operator_of(node).macs(node, graph.tensors) for node in graph.nodes]
    most, repeated = REPEATED * sum(macs), 0
    found: list[int] = []
    for i in range(first, -1, -1):
        repeated += macs[i] if found else 0
        if repeated > most:
            break
        if i in crossing:
            found.append(i)
    best = min(found, key=lambda i: graph.tensors[crossing[i]].bytes)
    return FreezeBoundary(tuple(node.name for node in graph.nodes[:best]), crossing[best])


def _single_crossings(graph: Graph) -> dict[int, str]:
    """Number of nodes in front -> the tensor, where only one is made by these and read by others or as a result."""
    root = renamed(graph)
    readers = {root[name]: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    readers |= {root[name]: len(graph.nodes) for name in (graph.output, graph.features)}
    found: dict[int, str] = {}
    live = {root[graph.input]}
    for i in range(len(graph.nodes) + 1):
        live = {name for name in live if readers.get(name, -1) >= i}
        if len(live) == 1:
            found[i] = next(iter(live))
        if i < len(graph.nodes):
            live.add(root[graph.nodes[i].output])
    return found
