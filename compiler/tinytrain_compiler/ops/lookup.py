"""Any function of one byte as a table of 256: a lone Relu or Clip, or a change of scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor, quantize_multiplier, requantize
from .arrays import Int8
from .backward import PassOn
from .base import Operator, register
from .kernel import Kernel


@dataclass(frozen=True)
class LookupAttributes:
    """Clip limits, in steps of the output."""

    low: int = -128
    high: int = 127


class Lookup(Operator):
    name = "lookup"
    attributes = LookupAttributes
    clips = True
    keeps_order = True
    backward = PassOn()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        return self._table(node, tensors)[inputs[0].view(np.uint8)]

    @staticmethod
    def _table(node: Node, tensors: Mapping[str, Tensor]) -> NDArray[np.int8]:
        """int8 (256,), indexed by the input byte read as unsigned."""
        x, y = tensors[node.inputs[0]].quantization, tensors[node.output].quantization
        m = quantize_multiplier(np.array([x.scale / y.scale]))
        values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64) - x.zero_point
        return requantize(values, m.values, m.shift, y.zero_point, node.attributes.low, node.attributes.high)

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
