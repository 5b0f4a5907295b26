"""C names of a model's tensors, buffers and layers."""

from __future__ import annotations

from ..graph import Node
from ..memory import MemoryPlan
from ..schedule import Forward
from .render import Identifiers


class Names:
    """C names of one model's tensors, scratch buffers and layers; unique, and alike in all files."""

    def __init__(self, plan: MemoryPlan, prefix: str) -> None:
        self.prefix = prefix
        self._plan, graph = plan, plan.schedule.graph
        layers = Identifiers()
        self._layers = {node.name: layers.make(node.name) for node in graph.nodes}
        tensors = Identifiers()
        self.tensors = {name: f"{prefix}_at_{tensors.make(name)}".upper() for name in graph.tensors}
        self.scratch = self._scratch()

    def _scratch(self) -> dict[str, str]:
        """Offset macros of buffers; a forward kernel's scratch memory goes by its layer's name."""
        steps = self._plan.schedule.steps("forward")
        layers = {s.working.name: s.node.name for s in steps if isinstance(s, Forward) and s.working is not None}
        identifiers, found = Identifiers(), dict[str, str]()
        taken = {""}
        for name in self._plan.scratch:
            macro = ""
            while macro in taken:
                made = identifiers.make(layers.get(name, name))
                macro = f"{self.prefix}_{'scratch_' if name in layers else ''}{made}".upper()
            taken.add(macro)
            found[name] = macro
        return found

    def of(self, role: str, node: Node) -> str:
        """A layer's constant; the role in front keeps any layer's name from clashing with anything else."""
        return f"{self.prefix}_{role}_{self._layers[node.name]}"

    def local(self, role: str, node: Node) -> str:
        """The same for what one file keeps to itself: no prefix, as no other model sees it."""
        return f"{role}_{self._layers[node.name]}"

    def local_buffer(self, buffer: str) -> str:
        """A buffer's name without the model's prefix, for local variables."""
        return self.scratch[buffer].lower().removeprefix(f"{self.prefix.lower()}_")

    def address(self, tensor: str) -> str:
        """C expression inside run(): a region's base and the offset's macro."""
        return f"r{self._plan.tensors[tensor].region} + {self.tensors[tensor]}"
