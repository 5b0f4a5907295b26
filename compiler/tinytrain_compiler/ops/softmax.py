"""Softmax over any axis of a tensor: the channels of each pixel, the keys of each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from .arrays import Int8
from .base import Operator, register
from .kernel import Kernel

OUTPUT_BITS = 16


@dataclass(frozen=True)
class SoftmaxAttributes:
    axis: int = -1  # of the tensor on the device
    low: int = -128
    high: int = 127


class Softmax(Operator):
    """y = zero + floor((e[d] * factor + sum / 2) / sum), d = max - x, e a table of 256 exponentials."""

    name = "softmax"
    attributes = SoftmaxAttributes
    keeps_order = True

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        table, factor = self._table(node, tensors), self._factor(node, tensors)
        x, axis = inputs[0].astype(np.int64), node.attributes.axis
        e = table[x.max(axis, keepdims=True) - x].astype(np.int64)
        total = e.sum(axis, keepdims=True)
        y = (e * factor + (total << (OUTPUT_BITS - 1))) // (total << OUTPUT_BITS)
        y += tensors[node.output].quantization.zero_point
        clamped: Int8 = np.clip(y, node.attributes.low, node.attributes.high).astype(np.int8)
        return clamped

    @staticmethod
    def _table(node: Node, tensors: Mapping[str, Tensor]) -> NDArray[np.uint32]:
        """exp(-d * s_x) for d = 0..255, scaled so that the sum over the axis stays below 2**31."""
        x = tensors[node.inputs[0]]
        bits = min(24, 30 - int(np.ceil(np.log2(x.shape[node.attributes.axis]))))
        table: NDArray[np.uint32] = np.rint(np.exp(-np.arange(256) * x.quantization.scale) * 2.0**bits).astype(
            np.uint32
        )
        return table

    @staticmethod
    def _factor(node: Node, tensors: Mapping[str, Tensor]) -> int:
        """1 / s_y with OUTPUT_BITS fraction bits."""
        factor: int = round(2**OUTPUT_BITS / tensors[node.output].quantization.scale)
        return factor

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        x, y = tensors[node.inputs[0]], tensors[node.output]
        axis = node.attributes.axis % len(x.shape)
        channels, inner = x.shape[axis], int(np.prod(x.shape[axis + 1 :]))
        return Kernel(
            template="softmax/forward",
            symbol=f"softmax_{x.bytes // channels}x{channels}" + (f"_every_{inner}" if inner > 1 else ""),
            params_type="tt_softmax_params",
            shape={
                "ROWS": x.bytes // channels,
                "C": channels,
                "INNER": inner,
                "BITS": OUTPUT_BITS,
                "LOW": node.attributes.low,
                "HIGH": node.attributes.high,
            },
            code={"portable": 1300},
            arrays={"table": self._table(node, tensors)},
            scalars={"factor": self._factor(node, tensors), "output_zero": y.quantization.zero_point},
        )


SOFTMAX = register(Softmax())
