"""Fold a Relu or Clip that kept a node of its own into the operator in front of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph import Graph, Node


def _clips(node: Node) -> bool:
    """Whether it does nothing but clip and change the scale."""
    return node.op == "lookup" and "table" not in node.constants


@dataclass(frozen=True)
class FuseClip:
    """lookup(op(x)) -> op(x) with narrower limits, where both outputs have one scale and nobody else reads op(x)."""

    name: str = "fuse-clip"

    def apply(self, graph: Graph) -> Graph:
        nodes: list[Node] = []
        dropped: set[str] = set()
        for node in graph.nodes:
            producer = next((n for n in nodes if _clips(node) and n.output == node.inputs[0]), None)
            if producer is None or not self._fusible(graph, producer, node):
                nodes.append(node)
                continue
            # The second clip moves the first one's limits, also where the two ranges do not meet.
            low, high = (
                min(max(limit, node.attributes.low), node.attributes.high)
                for limit in (producer.attributes.low, producer.attributes.high)
            )
            attributes = replace(producer.attributes, low=low, high=high)
            nodes[nodes.index(producer)] = replace(producer, output=node.output, attributes=attributes)
            dropped.add(producer.output)
        tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in dropped}
        origins = {name: origin for name, origin in graph.origins.items() if name not in dropped}
        return replace(graph, nodes=nodes, tensors=tensors, origins=origins)

    @staticmethod
    def _fusible(graph: Graph, producer: Node, node: Node) -> bool:
        before, after = graph.tensors[node.inputs[0]], graph.tensors[node.output]
        return (
            hasattr(producer.attributes, "low")
            and before.quantization == after.quantization
            and len(graph.consumers(before.name)) == 1
            and before.name not in (graph.output, graph.features)
        )
