"""Reshape, Flatten, Squeeze, Unsqueeze: the same bytes under another shape; no code, no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph import Node, Tensor
from .arrays import Int8
from .backward import PassOn
from .base import Operator, register
from .kernel import Kernel


@dataclass(frozen=True)
class ReshapeAttributes:
    pass


class Reshape(Operator):
    name = "reshape"
    attributes = ReshapeAttributes
    keeps_scale = True
    keeps_order = True
    keeps_bytes = True
    backward = PassOn()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        return inputs[0].reshape(tensors[node.output].shape)

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        return None


RESHAPE = register(Reshape())
