"""Product of two operands that broadcast: gates such as squeeze-and-excite, or a constant for each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..graph import Multiplier, Node, Tensor, quantize_multiplier, requantize
from .arrays import Int8
from .base import register
from .broadcast import Broadcast, BroadcastBackward
from .kernel import Kernel

LARGEST = 255 * 255  # product of two bytes without their zero points


class Mul(Broadcast):
    """y = zero + (a - z_a)(b - z_b) s_a s_b / s_y, requantised."""

    name = "mul"

    def __init__(self) -> None:
        self.backward = BroadcastBackward(self, product=True)

    def sign(self, node: Node, which: int) -> int:
        return 1

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        (a, b), (qa, qb) = self.operands(node, inputs), self.quantizations(node, tensors)
        y, m, limits = tensors[node.output].quantization, self._multiplier(node, tensors), node.attributes
        product = (a - qa.zero_point) * (b - qb.zero_point)
        return requantize(product, m.values, m.shift, y.zero_point, limits.low, limits.high)

    def _multiplier(self, node: Node, tensors: Mapping[str, Tensor]) -> Multiplier:
        a, b = self.quantizations(node, tensors)
        return quantize_multiplier(np.array([a.scale * b.scale / tensors[node.output].quantization.scale]))

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        (a, b), y, m = self.quantizations(node, tensors), tensors[node.output], self._multiplier(node, tensors)
        limits = {"LOW": node.attributes.low, "HIGH": node.attributes.high}
        return Kernel(
            template="mul/forward",
            symbol=f"mul_{self.label(node, tensors)}",
            params_type="tt_mul_params",
            shape={"SHIFT": m.shift, "FITS": int(LARGEST << m.shift < 2**31), **limits},
            code={"portable": 400},
            arrays={"operand": node.constants["operand"]} if "operand" in node.constants else {},
            scalars={
                "multiplier": int(m.values[0]), "zero_a": a.zero_point, "zero_b": b.zero_point,
                "output_zero": y.quantization.zero_point,
            },
            inline=self.loop_nest(node, tensors),
        )  # fmt: skip


MUL = register(Mul())
