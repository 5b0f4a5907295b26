"""The graph under import, and its tensors in the shape and order that an operator wants.

A tensor is reordered once for each order that anybody asks for, and shown in another shape without code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...graph import Layout, Node, Origin, Quantization, Tensor
from ...ops.reshape import ReshapeAttributes
from ...ops.transpose import TransposeAttributes


@dataclass(frozen=True)
class Activation:
    """What a name of the file stands for: a tensor of the graph, and how it lies there."""

    tensor: str
    layout: Layout
    name: str  # for tensors that hold it in another shape or order
    integers: str  # the int8 name of the file behind it


class Arranger:
    """Tensors and nodes of a graph, as far as they have been imported."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.origins: dict[str, Origin] = {}
        self._node_names: set[str] = set()
        self._arranged: dict[tuple[Any, ...], str] = {}  # tensor, attributes and shape -> the tensor made from it

    def tensor(self, name: str, shape: tuple[int, ...], quantization: Quantization) -> str:
        """A new tensor, called `name` or much like it."""
        name = name.removesuffix("_QuantizeLinear_Input")  # onnxruntime renames what stands before a QuantizeLinear
        while name in self.tensors:
            name += "'"
        self.tensors[name] = Tensor(name, shape, quantization)
        return name

    def node(self, node: Node) -> None:
        self._node_names.add(node.name)
        self.nodes.append(node)

    def arranged(self, x: Activation, layout: Layout) -> Tensor:
        """The activation as `layout` says: itself, a reshape of it, or a transpose, two where one can't do it."""
        if layout.same_order(x.layout):
            if self.tensors[x.tensor].shape == layout.device:
                return self.tensors[x.tensor]
            return self._made("reshape", x, layout, ReshapeAttributes())
        move = x.layout.move_to(layout)
        if move is None:
            plain = Layout.row_major(x.layout.shape)
            x = Activation(self.arranged(x, plain).name, plain, x.name, x.integers)
            move = plain.move_to(layout)
            assert move is not None, "the file's order has an atom for every axis"
        return self._made("transpose", x, layout, TransposeAttributes(*move))

    def _made(self, op: str, x: Activation, layout: Layout, attributes: Any) -> Tensor:
        key = (x.tensor, attributes, layout.device)
        if key not in self._arranged:
            made = self.tensor(x.name, layout.device, self.tensors[x.tensor].quantization)
            name = x.name
            while name in self._node_names:
                name += "'"
            self.node(Node(name, op, (x.tensor,), made, attributes))
            self.origins[made] = Origin(x.integers, layout)
            self._arranged[key] = made
        return self.tensors[self._arranged[key]]
