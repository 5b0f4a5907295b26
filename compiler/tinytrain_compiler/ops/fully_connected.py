"""Fully connected layer: y = W x + b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor, requantize
from ..graph.gradient import Gradient, narrow, quantize_factors
from .backward import scale_channels
from .base import Int8, Kernel, Operator, ParameterGradient, register, round_up
from .learning import (
    PIXEL,
    gradient_scratch_bytes,
    input_bounds,
    learning_kernel,
    learning_scratch_bytes,
    weight_gradient,
)
from .weight_layout import WeightLayout
from .weighted import accumulate, folded_bias, output_multiplier, requantize_scalars, requantize_shape


@dataclass(frozen=True)
class FullyConnectedAttributes:
    """constants: weights int8 (O, F) in the input's memory order, bias int32 (O,), weight_scales float (O,)."""

    low: int = -128
    high: int = 127


class FullyConnected(Operator):
    name = "fully_connected"

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: FullyConnectedAttributes = node.attributes
        zero_x = tensors[node.inputs[0]].quantization.zero_point
        acc = accumulate(inputs[0].reshape(-1), node.constants["weights"], node.constants["bias"], zero_x)
        m = output_multiplier(node, tensors)
        zero_y = tensors[node.output].quantization.zero_point
        return requantize(acc, m.values, m.shift, zero_y, a.low, a.high)

    def input_gradients(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        weights = node.constants["weights"]
        l1, drop = input_bounds(node, self.weight_layout(node))
        g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), drop)
        acc = g.mantissa.astype(np.int64) @ weights.astype(np.int64)
        return (narrow(acc.reshape(tensors[node.inputs[0]].shape), g.magnitude * l1, g.exponent),)

    def gradient_kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        """A 1x1 convolution of one pixel."""
        k, o = tensors[node.inputs[0]].bytes, len(node.constants["weights"])
        l1, drop = input_bounds(node, self.weight_layout(node), trained)
        shape = dict.fromkeys(("H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW"), 1) | {
            "PT": 0, "PL": 0, "C": k, "CG": k, "KP": round_up(k, 4), "O": o, "OG": o,
            "GROUPS": 1, "POINTWISE": 1, "L1": l1, "DROP": drop,
        }  # fmt: skip
        return Kernel("conv2d/input_gradient", f"fully_connected_{k}_{o}_input_gradient", "tt_no_params", shape)

    def gradient_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        return gradient_scratch_bytes(self.weight_layout(node))

    def learning_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        layout = self.weight_layout(node)
        return learning_kernel(f"fully_connected_{layout.inputs}_{layout.outputs}", layout, PIXEL.constants(1, 1))

    def learning_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor], chosen: int) -> int:
        return learning_scratch_bytes(self.weight_layout(node), 1, chosen)

    def weight_layout(self, node: Node) -> WeightLayout:
        """A 1x1 convolution of one pixel, whose channels are the input's values; rows of whole words."""
        outputs, inputs = node.constants["weights"].shape
        row = round_up(inputs, 4)
        return WeightLayout(1, outputs, inputs, (1, 1), outputs * row, outputs * row, row, inputs)

    def weight_gradient(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, gradient: Gradient, channels: NDArray[np.intp]
    ) -> ParameterGradient:
        values = x.reshape(1, 1, -1)
        return weight_gradient(self.weight_layout(node), PIXEL, tensors[node.inputs[0]], values, gradient, channels)

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        return int(node.constants["weights"].size)

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """The input widened to int16."""
        return 2 * round_up(tensors[node.inputs[0]].bytes, 4)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        x, y = tensors[node.inputs[0]], tensors[node.output]
        w = node.constants["weights"]
        m = output_multiplier(node, tensors)
        k = x.bytes
        rows = np.zeros((len(w), round_up(k, 4)), np.int8)
        rows[:, :k] = w
        return Kernel(
            template="fully_connected/forward",
            symbol=f"fully_connected_{k}_{len(w)}",
            params_type="tt_conv_params",
            shape={"K": k, "KP": round_up(k, 4), "O": len(w)} | requantize_shape(node, tensors),
            arrays={"weights": rows, "bias": folded_bias(node, x.quantization.zero_point), "multipliers": m.values},
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


FULLY_CONNECTED = register(FullyConnected())
