"""The forward pass as steps: the whole schedule of a model that does not train."""

from __future__ import annotations

from ..graph import Graph, Node
from ..ops import operator_of
from .places import BufferNames, BufferSpec
from .schedule import Moment, Schedule
from .steps import Forward


def inference_schedule(graph: Graph) -> Schedule:
    """One moment a node."""
    names = BufferNames()
    return Schedule(graph, tuple(Moment("forward", node, (forward_step(graph, node, names),)) for node in graph.nodes))


def forward_step(graph: Graph, node: Node, names: BufferNames, parameters: BufferSpec | None = None) -> Forward:
    """parameters: where the effective weights and biases of a layer that trains are."""
    size = operator_of(node).scratch_bytes(node, graph.tensors)
    working = names.buffer(f"{node.name} (scratch)", size, "inference") if size else None
    return Forward(node=node, parameters=parameters, working=working)


def renamed(graph: Graph) -> dict[str, str]:
    """For each tensor the one whose bytes it shows: itself, unless a node without code made it."""
    root = {name: name for name in graph.tensors}
    for node in graph.nodes:
        if operator_of(node).keeps_bytes:
            root[node.output] = root[node.inputs[0]]
    return root
