"""Maximum over windows; input and output share scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor
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
