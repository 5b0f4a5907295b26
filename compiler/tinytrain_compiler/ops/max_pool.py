"""Maximum over windows; input and output share scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor
from ..graph.gradient import Gradient, narrow
from .base import Int8, Kernel, Operator, register
from .window import Window


@dataclass(frozen=True)
class MaxPoolAttributes:
    window: Window
    low: int = -128
    high: int = 127


class MaxPool(Operator):
    name = "max_pool"

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: MaxPoolAttributes = node.attributes
        y = a.window.patches(inputs[0], -128).max((2, 3))
        clamped: Int8 = np.clip(y, a.low, a.high).astype(np.int8)
        return clamped

    needs_inputs = True

    def input_gradients(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """The whole gradient goes to the first tap inside the picture that holds the maximum."""
        a: MaxPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        patches = a.window.patches(inputs[0].astype(np.int16), -129)  # padding loses against -128 too
        oh, ow, kh, kw, c = patches.shape
        winner = patches.reshape(oh, ow, kh * kw, c).argmax(2)
        taps = (np.arange(kh * kw)[:, None] == winner[:, :, None, :]) * gradient.mantissa[:, :, None, :].astype(
            np.int64
        )
        overlap = int(a.window.scatter(np.ones((oh, ow, kh, kw, 1), np.int64), h, w).max())
        spread = a.window.scatter(taps.reshape(oh, ow, kh, kw, c), h, w)
        return (narrow(spread, gradient.magnitude * overlap, gradient.exponent),)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: MaxPoolAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        return Kernel(
            template="max_pool",
            symbol=f"max_pool_{a.window.label()}_{h}x{w}x{c}",
            params_type="tt_no_params",
            shape=a.window.constants(h, w) | {"C": c, "LOW": a.low, "HIGH": a.high},
        )


MAX_POOL = register(MaxPool())
