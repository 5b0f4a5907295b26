"""C names of a model's tensors, buffers and layers."""

from __future__ import annotations

from ..graph import Graph, Node
from ..memory import MemoryPlan
from .render import Identifiers


class Names:
    """C names of one model's tensors, scratch buffers and layers; unique, and alike in all files."""

    def __init__(self, graph: Graph, plan: MemoryPlan, prefix: str) -> None:
        self.prefix = prefix
        self._plan = plan
        layers = Identifiers()
        self._layers = {node.name: layers.make(node.name) for node in graph.nodes}
        tensors, scratch = Identifiers(), Identifiers()
        self.tensors = {name: f"{prefix}_at_{tensors.make(name)}".upper() for name in graph.tensors}
        own = {node.name for node in graph.nodes}  # a node's scratch goes by the node's name, others have their own
        self.scratch = {
            name: f"{prefix}_{'scratch_' if name in own else ''}{scratch.make(name)}".upper() for name in plan.scratch
        }

    def of(self, role: str, node: Node) -> str:
        """A layer's constant; the role in front keeps any layer's name from clashing with anything else."""
        return f"{self.prefix}_{role}_{self._layers[node.name]}"

    def address(self, tensor: str) -> str:
        """C expression inside run(): a region's base and the offset's macro."""
        return f"r{self._plan.tensors[tensor].region} + {self.tensors[tensor]}"

    def scratch_address(self, node: Node) -> str:
        return f"r{self._plan.scratch[node.name].region} + {self.scratch[node.name]}"
