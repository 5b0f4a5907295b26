"""Depthwise convolution: one filter per channel, computed in place where the input dies here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor, requantize
from ..graph.gradient import Gradient, narrow, quantize_factors
from .arrays import Floats, Int8, PixelSums, round_up
from .backward import Backward, scale_channels
from .base import Operator, register
from .conv2d import Conv2dAttributes
from .kernel import Kernel
from .weight_layout import WeightLayout
from .weight_rule import WeightRule, input_bounds, input_gradient_arguments, real_weights
from .weighted import folded_bias, output_multiplier, requantize_scalars, requantize_shape, wide_code
from .window import Window

GROUP = 4  # channels that are copied into a padded plane and computed together


class DepthwiseWeights(WeightRule):
    def layout(self, node: Node) -> WeightLayout:
        """Rows of whole groups of four channels, one a tap."""
        channels, kh, kw, _ = node.constants["weights"].shape
        row = round_up(channels, GROUP)
        return WeightLayout(channels, 1, 1, (kh, kw), kh * kw * row, group_stride=1, output_stride=0, tap_stride=row)

    def symbol(self, node: Node, tensors: Mapping[str, Tensor]) -> str:
        h, w, c = tensors[node.inputs[0]].shape
        return f"depthwise_{node.attributes.window.label()}_{h}x{w}x{c}"


WEIGHTS = DepthwiseWeights()


class DepthwiseBackward(Backward):
    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        h, w, _ = tensors[node.inputs[0]].shape
        weights = node.constants["weights"]
        l1, drop = input_bounds(node, WEIGHTS.layout(node))
        g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), drop)
        taps = g.mantissa[:, :, None, None, :].astype(np.int64) * weights[..., 0].transpose(1, 2, 0)
        return (narrow(node.attributes.window.scatter(taps, h, w), g.magnitude * l1, g.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        h, width, _ = tensors[node.inputs[0]].shape
        w = real_weights(node)[..., 0].transpose(1, 2, 0)
        return (node.attributes.window.scatter(g[:, :, None, None, :] * w, h, width),)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """By tap."""
        w = node.constants["weights"].astype(np.float32)
        sums = PixelSums(tensors[node.inputs[0]].shape, node.attributes.window)
        g = g * node.constants["weight_scales"].astype(np.float32)
        for ky, kx in np.ndindex(*node.attributes.window.kernel):
            sums.at(ky, kx)[...] += g * w[:, ky, kx, 0]
        return (sums.inside(),)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        a: Conv2dAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        rows, columns = a.window.transposed(h, 0), a.window.transposed(w, 1)
        dsp = (270 + (150 if c % 4 else 0)) * len(rows.phases) * len(columns.phases)  # an unrolled loop for each
        return Kernel(
            template="depthwise_conv2d/input_gradient",
            symbol=f"{WEIGHTS.symbol(node, tensors)}_input_gradient",
            params_type="tt_no_params",
            shape=a.window.constants(h, w)
            | {"C": c, "CP": round_up(c, GROUP)}
            | {"GH": rows.size, "GW": columns.size, "GT": rows.front, "GL": columns.front},
            code={"portable": 1050 + (300 if c % 4 else 0), "dsp": 350 + dsp + 25 * a.window.taps},
            arguments=input_gradient_arguments(node, WEIGHTS.layout(node), trained),
            inline={"rows": rows, "columns": columns},
        )

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """One channel group: its taps as int16, and its gradient in a padded int16 plane."""
        h, w, _ = tensors[node.inputs[0]].shape
        window: Window = node.attributes.window
        return 2 * GROUP * (window.taps + window.transposed(h, 0).size * window.transposed(w, 1).size)


class DepthwiseConv2d(Operator):
    """Attributes are Conv2dAttributes; constants: weights int8 (C, KH, KW, 1), bias, weight_scales (C,)."""

    name = "depthwise_conv2d"
    attributes = Conv2dAttributes
    clips = True
    backward = DepthwiseBackward()
    weights = WEIGHTS

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: Conv2dAttributes = node.attributes
        zero_x = tensors[node.inputs[0]].quantization.zero_point
        patches = a.window.patches(inputs[0], zero_x).astype(np.int32) - zero_x
        w = node.constants["weights"][..., 0].transpose(1, 2, 0).astype(np.int32)
        acc = np.einsum("yxhwc,hwc->yxc", patches, w).astype(np.int64) + node.constants["bias"]
        m = output_multiplier(node, tensors)
        zero_y = tensors[node.output].quantization.zero_point
        return requantize(acc, m.values, m.shift, zero_y, a.low, a.high)

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        oh, ow, _ = tensors[node.output].shape
        return oh * ow * int(node.constants["weights"].size)

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """The padded int8 plane of one channel group."""
        h, w, _ = tensors[node.inputs[0]].shape
        window: Window = node.attributes.window
        hp, wp = window.padded_size(h, w)
        return GROUP * hp * wp

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Legal at any stride: output pixel j of a channel overwrites input pixel j of the same channel,
        and all pixels of that channel are in the padded plane before the first one is written."""
        return (0,) if tensors[node.output].bytes <= tensors[node.inputs[0]].bytes else ()

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: Conv2dAttributes = node.attributes
        x, y = tensors[node.inputs[0]], tensors[node.output]
        h, w, c = x.shape
        m = output_multiplier(node, tensors)
        channels = round_up(c, GROUP)
        weights = node.constants["weights"][..., 0].transpose(1, 2, 0).reshape(-1, c)
        shape = a.window.constants(h, w) | {"C": c, "CP": channels} | requantize_shape(node, tensors)
        return Kernel(
            template="depthwise_conv2d/forward",
            symbol=WEIGHTS.symbol(node, tensors),
            params_type="tt_conv_params",
            shape=shape,
            code=_code(shape),
            arrays={
                "weights": _pad_last(weights, channels),
                "bias": _pad_last(folded_bias(node, x.quantization.zero_point), channels),
                "multipliers": _pad_last(m.values, channels),
            },
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


def _code(shape: Mapping[str, int]) -> dict[str, int]:
    """Of the forward kernel: compilers unroll few taps, the DSP kernel all of them."""
    taps = shape["KH"] * shape["KW"]
    portable, dsp = 1500 + (500 if taps <= 9 else 0), 960 + 32 * taps + (500 if shape["C"] % 4 else 0)
    return {"portable": portable + wide_code(shape), "dsp": dsp + wide_code(shape)}


def _pad_last(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
    """Zeros after the last channel, so that the last group is whole."""
    widths = [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])]
    return np.pad(array, widths)


DEPTHWISE_CONV2D = register(DepthwiseConv2d())
