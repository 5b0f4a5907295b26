"""Sum or difference of two operands that broadcast; two activations of one shape are added by `add`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor
from .add import AddConstants, sum_constants
from .arrays import Int8
from .base import register
from .broadcast import Broadcast, BroadcastAttributes, BroadcastBackward
from .kernel import Kernel


@dataclass(frozen=True)
class BroadcastAddAttributes(BroadcastAttributes):
    sign_a: int = 1  # 1 or -1
    sign_b: int = 1


class BroadcastAdd(Broadcast):
    name = "broadcast_add"
    attributes = BroadcastAddAttributes

    def __init__(self) -> None:
        self.backward = BroadcastBackward(self, product=False)

    def sign(self, node: Node, which: int) -> int:
        found: int = (node.attributes.sign_a, node.attributes.sign_b)[which]
        return found

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        c, (a, b) = self._constants(node, tensors), self.operands(node, inputs)
        y = (a * c.multiplier_a + b * c.multiplier_b + c.offset) >> c.shift
        clamped: Int8 = np.clip(y, node.attributes.low, node.attributes.high).astype(np.int8)
        return clamped

    def _constants(self, node: Node, tensors: Mapping[str, Tensor]) -> AddConstants:
        signs = self.sign(node, 0), self.sign(node, 1)
        return sum_constants(self.quantizations(node, tensors), signs, tensors[node.output].quantization)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        c = self._constants(node, tensors)
        return Kernel(
            template="broadcast_add/forward",
            symbol=f"add_{self.label(node, tensors)}_q{c.shift}",
            params_type="tt_broadcast_add_params",
            shape={"SHIFT": c.shift, "LOW": node.attributes.low, "HIGH": node.attributes.high},
            code={"portable": 350},
            arrays={"operand": node.constants["operand"]} if "operand" in node.constants else {},
            scalars={"multiplier_a": c.multiplier_a, "multiplier_b": c.multiplier_b, "offset": c.offset},
            inline=self.loop_nest(node, tensors),
        )


BROADCAST_ADD = register(BroadcastAdd())
