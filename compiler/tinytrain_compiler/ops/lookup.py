"""Any function of one byte as a table of 256: an activation, a lone Relu or Clip, or a change of scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import FACTOR_BITS, Gradient, quantize_factors, shift_round
from .arrays import Floats, Int8
from .backward import Backward
from .base import Operator, register
from .kernel import Kernel
from .rescale import rescale_table


@dataclass(frozen=True)
class LookupAttributes:
    """Clip limits, in steps of the output."""

    low: int = -128
    high: int = 127


class LookupBackward(Backward):
    """With a table of its own, the gradient times the slope at the input's byte; else as it is."""

    needs_inputs = True
    in_place = True

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        if "slopes" not in node.constants:
            return (gradient,)
        factors = quantize_factors(node.constants["slopes"])
        product = gradient.mantissa.astype(np.int64) * factors.values[inputs[0].view(np.uint8)]
        mantissa = shift_round(product, FACTOR_BITS).astype(np.int16)
        return (Gradient(mantissa, gradient.exponent + factors.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        if "slopes" not in node.constants:
            return (g,)
        return (g * node.constants["slopes"].astype(g.dtype)[inputs[0].view(np.uint8)],)

    def values(self, node: Node, which: int) -> Mapping[str, int]:
        return {"x": 0} if "slopes" in node.constants else {}

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        if "slopes" not in node.constants:
            return None
        slopes, n = node.constants["slopes"], tensors[node.output].bytes
        factors = quantize_factors(slopes)
        return Kernel(
            template="lookup/input_gradient",
            symbol=f"lookup_{n}_input_gradient",
            params_type="tt_no_params",
            shape={"N": n, "EXPONENT": factors.exponent},
            code={"portable": 80 + factors.values.nbytes},
            inline={"slopes": factors.values, "real_slopes": slopes.astype(np.float32)},
        )


class Lookup(Operator):
    """Constants: none (a change of scale, within the limits), or `table`, int8 (256,), by the input byte read as
    unsigned, and `slopes`, float64 (256,), the derivative of the real function there."""

    name = "lookup"
    attributes = LookupAttributes
    clips = True
    keeps_order = True
    backward = LookupBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        return self._table(node, tensors)[inputs[0].view(np.uint8)]

    @staticmethod
    def _table(node: Node, tensors: Mapping[str, Tensor]) -> NDArray[np.int8]:
        """int8 (256,), indexed by the input byte read as unsigned."""
        low, high = node.attributes.low, node.attributes.high
        if "table" in node.constants:
            clipped: NDArray[np.int8] = np.clip(node.constants["table"], low, high)
            return clipped
        x, y = tensors[node.inputs[0]].quantization, tensors[node.output].quantization
        return rescale_table(x, y, low, high)

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        n = tensors[node.output].bytes
        return Kernel(
            template="lookup/forward",
            symbol=f"lookup_{n}",
            params_type="tt_lookup_params",
            shape={"N": n},
            code={"portable": 60},
            arrays={"table": self._table(node, tensors)},
        )


LOOKUP = register(Lookup())
