"""Average pooling over windows or over the whole picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Multiplier, Node, Tensor, quantize_multiplier, requantize
from .base import Int8, Kernel, Operator, register
from .weighted import requantize_scalars
from .window import Window


@dataclass(frozen=True)
class AvgPoolAttributes:
    window: Window
    count_include_pad: bool = False
    low: int = -128
    high: int = 127


class AvgPool(Operator):
    name = "avg_pool"

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: AvgPoolAttributes = node.attributes
        x, y = tensors[node.inputs[0]], tensors[node.output]
        zero_x = x.quantization.zero_point
        # Padding reads the zero point, so it adds nothing to the sum, whether it is counted or not.
        patches = a.window.patches(inputs[0], zero_x).astype(np.int64) - zero_x
        m = self._multipliers(node, tensors)
        counts = a.window.valid_counts(*x.shape[:2]) if self._by_count(node, tensors) else 0 * patches[..., 0, 0, 0]
        per_window = m.values[np.broadcast_to(counts, patches.shape[:2])][..., None]
        return requantize(patches.sum((2, 3)), per_window, m.shift, y.quantization.zero_point, a.low, a.high).reshape(
            y.shape
        )

    @staticmethod
    def _by_count(node: Node, tensors: Mapping[str, Tensor]) -> bool:
        """Whether windows at the border divide by fewer taps than those inside."""
        a: AvgPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        return not a.count_include_pad and int(a.window.valid_counts(h, w).min()) < a.window.taps

    def _multipliers(self, node: Node, tensors: Mapping[str, Tensor]) -> Multiplier:
        """s_x / (s_y * taps): one for all windows, or one for each number of valid taps (index 0 unused)."""
        a: AvgPoolAttributes = node.attributes
        factor = tensors[node.inputs[0]].quantization.scale / tensors[node.output].quantization.scale
        if not self._by_count(node, tensors):
            return quantize_multiplier(np.array([factor / a.window.taps]))
        counts = np.arange(a.window.taps + 1, dtype=np.float64)
        counts[0] = np.inf  # a window of padding alone is the zero point
        return quantize_multiplier(factor / counts)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: AvgPoolAttributes = node.attributes
        x, y = tensors[node.inputs[0]], tensors[node.output]
        h, w, c = x.shape
        m = self._multipliers(node, tensors)
        shape = a.window.constants(h, w) | {
            "C": c, "BY_COUNT": int(self._by_count(node, tensors)), "LOW": a.low, "HIGH": a.high, "SHIFT": m.shift,
            "FITS": int((255 * a.window.taps) << m.shift < 2**31),
        }  # fmt: skip
        return Kernel(
            template="avg_pool",
            symbol=f"avg_pool_{a.window.label()}_{h}x{w}x{c}" + ("_by_count" if shape["BY_COUNT"] else ""),
            params_type="tt_pool_params",
            shape=shape,
            arrays={"multipliers": m.values},
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


AVG_POOL = register(AvgPool())
