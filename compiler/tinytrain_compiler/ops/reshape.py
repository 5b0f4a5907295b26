"""Reshape, Flatten, Squeeze, Unsqueeze: the same bytes under another shape; no code, no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .backward import same_values
from .base import Int8, Kernel, Operator, register


@dataclass(frozen=True)
class ReshapeAttributes:
    pass


class Reshape(Operator):
    name = "reshape"
    renames = True

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        return inputs[0].reshape(tensors[node.output].shape)

    def input_gradients(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        return same_values(node, tensors, gradient)

    def gradient_kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        return None

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        return None


RESHAPE = register(Reshape())
