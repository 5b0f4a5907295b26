"""Fully connected layer: y = W x + b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor, requantize
from ..graph.gradient import Gradient, narrow, quantize_factors
from .arrays import Floats, Int8, ordered_sum, round_up
from .backward import Backward, scale_channels
from .base import Operator, register
from .conv2d import input_gradient_kernel
from .kernel import Kernel
from .weight_layout import WeightLayout
from .weight_rule import WeightRule, gradient_scratch_bytes, input_bounds, input_gradient_arguments, real_weights
from .weighted import accumulate, folded_bias, output_multiplier, requantize_scalars, requantize_shape, wide_code
from .window import Window

PIXEL = Window((1, 1))


@dataclass(frozen=True)
class FullyConnectedAttributes:
    """constants: weights int8 (O, F) in the input's memory order, bias int32 (O,), weight_scales float (O,)."""

    low: int = -128
    high: int = 127


class FullyConnectedWeights(WeightRule):
    def layout(self, node: Node) -> WeightLayout:
        """A 1x1 convolution of one pixel, whose channels are the input's values; rows of whole words."""
        outputs, inputs = node.constants["weights"].shape
        row = round_up(inputs, 4)
        return WeightLayout(1, outputs, inputs, (1, 1), outputs * row, outputs * row, row, inputs)

    def symbol(self, node: Node, tensors: Mapping[str, Tensor]) -> str:
        outputs, inputs = node.constants["weights"].shape
        return f"fully_connected_{inputs}_{outputs}"

    def window(self, node: Node) -> Window:
        return PIXEL

    def size(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        return 1, 1


WEIGHTS = FullyConnectedWeights()


class FullyConnectedBackward(Backward):
    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        weights = node.constants["weights"]
        l1, drop = input_bounds(node, WEIGHTS.layout(node))
        g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), drop)
        acc = g.mantissa.astype(np.int64) @ weights.astype(np.int64)
        return (narrow(acc.reshape(tensors[node.inputs[0]].shape), g.magnitude * l1, g.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return ((g @ real_weights(node)).reshape(tensors[node.inputs[0]].shape),)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """By output."""
        g = g * node.constants["weight_scales"].astype(np.float32)
        products = g[:, None] * node.constants["weights"].astype(np.float32)
        return (ordered_sum(products.T).reshape(tensors[node.inputs[0]].shape),)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        """A 1x1 convolution of one pixel."""
        k, o = tensors[node.inputs[0]].bytes, len(node.constants["weights"])
        shape = dict.fromkeys(("H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW"), 1) | {
            "PT": 0, "PL": 0, "C": k, "CG": k, "KP": round_up(k, 4), "O": o, "OG": o, "GROUPS": 1, "POINTWISE": 1,
        }  # fmt: skip
        arguments = input_gradient_arguments(node, WEIGHTS.layout(node), trained)
        return input_gradient_kernel(WEIGHTS.symbol(node, tensors), shape, arguments)

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        return gradient_scratch_bytes(WEIGHTS.layout(node))


class FullyConnected(Operator):
    name = "fully_connected"
    attributes = FullyConnectedAttributes
    clips = True
    classifies = True
    backward = FullyConnectedBackward()
    weights = WEIGHTS

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: FullyConnectedAttributes = node.attributes
        zero_x = tensors[node.inputs[0]].quantization.zero_point
        acc = accumulate(inputs[0].reshape(-1), node.constants["weights"], node.constants["bias"], zero_x)
        m = output_multiplier(node, tensors)
        zero_y = tensors[node.output].quantization.zero_point
        return requantize(acc, m.values, m.shift, zero_y, a.low, a.high)

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
        shape = {"K": k, "KP": round_up(k, 4), "O": len(w)} | requantize_shape(node, tensors)
        odd = wide_code(shape) + (300 if len(w) % 2 else 0)
        return Kernel(
            template="fully_connected/forward",
            symbol=WEIGHTS.symbol(node, tensors),
            params_type="tt_conv_params",
            shape=shape,
            code={"portable": 400 + odd, "dsp": 560 + odd + (450 if k % 4 else 0)},
            arrays={"weights": rows, "bias": folded_bias(node, x.quantization.zero_point), "multipliers": m.values},
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


FULLY_CONNECTED = register(FullyConnected())
