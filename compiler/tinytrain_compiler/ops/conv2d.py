"""Convolution with any kernel, stride, padding, dilation and number of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor, requantize
from ..graph.gradient import Gradient, narrow, quantize_factors
from .arrays import Floats, Int8, PixelSums, round_up
from .backward import Backward, scale_channels
from .base import Operator, register
from .kernel import Kernel
from .weight_layout import WeightLayout
from .weight_rule import (
    WeightRule,
    gradient_scratch_bytes,
    input_bounds,
    input_gradient_arguments,
    real_weights,
)
from .weighted import accumulate, folded_bias, output_multiplier, requantize_scalars, requantize_shape, wide_code
from .window import Window

BLOCK_PIXELS = 4  # pixels whose columns the DSP kernel holds at once


@dataclass(frozen=True)
class Conv2dAttributes:
    """constants: weights int8 (O, KH, KW, I/groups), bias int32 (O,), weight_scales float (O,)."""

    window: Window
    groups: int = 1
    low: int = -128  # output clip limits
    high: int = 127


def _shape(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    a: Conv2dAttributes = node.attributes
    h, w, c = tensors[node.inputs[0]].shape
    window = a.window.constants(h, w)
    per_group = c // a.groups
    k = a.window.taps * per_group
    return window | {
        "C": c, "O": len(node.constants["weights"]), "GROUPS": a.groups, "CG": per_group,
        "OG": len(node.constants["weights"]) // a.groups, "K": k, "KP": round_up(k, 4),
        "P": min(BLOCK_PIXELS, window["OH"] * window["OW"]),
        "POINTWISE": int(a.window.is_pointwise and a.groups == 1),
        "DIRECT": int(per_group % 4 == 0),  # every tap fills whole words
    } | requantize_shape(node, tensors)  # fmt: skip


def _code(shape: Mapping[str, int]) -> dict[str, int]:
    """Of the forward kernel: the branches that the shape needs."""
    portable = 700 + (0 if shape["POINTWISE"] else 400) + (400 if shape["OG"] % 4 else 0)
    dsp = 940 + (800 if shape["GROUPS"] > 1 else 0) - (160 if shape["POINTWISE"] and shape["DIRECT"] else 0)
    return {"portable": portable + wide_code(shape), "dsp": dsp + wide_code(shape)}


class Conv2dWeights(WeightRule):
    def layout(self, node: Node) -> WeightLayout:
        """Rows of whole words, one an output."""
        outputs, kh, kw, inputs = node.constants["weights"].shape
        groups = node.attributes.groups
        row = round_up(kh * kw * inputs, 4)
        per_group = outputs // groups
        return WeightLayout(groups, per_group, inputs, (kh, kw), outputs * row, per_group * row, row, inputs)

    def symbol(self, node: Node, tensors: Mapping[str, Tensor]) -> str:
        a: Conv2dAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        symbol = f"conv2d_{a.window.label()}_{h}x{w}x{c}_{len(node.constants['weights'])}"
        return symbol + (f"_g{a.groups}" if a.groups > 1 else "")


WEIGHTS = Conv2dWeights()


class Conv2dBackward(Backward):
    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """dx = convT(s_w g, W)."""
        a: Conv2dAttributes = node.attributes
        w = node.constants["weights"]
        h, width, cin = tensors[node.inputs[0]].shape
        per_in, per_out = cin // a.groups, len(w) // a.groups
        l1, drop = input_bounds(node, WEIGHTS.layout(node))
        g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), drop)
        oh, ow, _ = g.mantissa.shape
        taps = np.zeros((oh, ow, *w.shape[1:3], cin), np.int64)
        for group in range(a.groups):
            o, i = slice(group * per_out, (group + 1) * per_out), slice(group * per_in, (group + 1) * per_in)
            rows = w[o].reshape(per_out, -1).astype(np.float64)  # float64 holds every sum exactly
            product = g.mantissa[..., o].reshape(-1, per_out).astype(np.float64) @ rows
            taps[..., i] = product.reshape(oh, ow, *w.shape[1:3], per_in).astype(np.int64)
        return (narrow(a.window.scatter(taps, h, width), g.magnitude * l1, g.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        h, width, _ = tensors[node.inputs[0]].shape
        w = real_weights(node)
        per_group = len(w) // node.attributes.groups
        parts = []
        for start in range(0, len(w), per_group):
            group = slice(start, start + per_group)
            parts.append(np.einsum("yxo,ohwi->yxhwi", g[..., group], w[group], optimize=True))
        return (node.attributes.window.scatter(np.concatenate(parts, -1), h, width),)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """By tap, then by output."""
        w = node.constants["weights"].astype(np.float32)
        sums = PixelSums(tensors[node.inputs[0]].shape, node.attributes.window)
        g = g * node.constants["weight_scales"].astype(np.float32)
        per_out, per_in = len(w) // node.attributes.groups, w.shape[3]
        for ky, kx in np.ndindex(*node.attributes.window.kernel):
            target = sums.at(ky, kx)
            for o in range(len(w)):
                start = o // per_out * per_in
                target[..., start : start + per_in] += g[..., o, None] * w[o, ky, kx]
        return (sums.inside(),)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        shape = _shape(node, tensors)
        keys = (
            *("H", "W", "C", "OH", "OW", "O", "KH", "KW", "SH", "SW", "DH", "DW", "PT", "PL"),
            *("GROUPS", "CG", "OG", "KP", "POINTWISE"),
        )
        return input_gradient_kernel(
            WEIGHTS.symbol(node, tensors),
            {key: shape[key] for key in keys},
            input_gradient_arguments(node, WEIGHTS.layout(node), trained),
        )

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        return gradient_scratch_bytes(WEIGHTS.layout(node))


def input_gradient_kernel(symbol: str, shape: Mapping[str, int], arguments: Mapping[str, int]) -> Kernel:
    """Of a convolution; a fully connected layer is a 1x1 one of one pixel."""
    window = 0 if shape["POINTWISE"] else 500
    odd = (300 if shape["CG"] % 4 else 0) + (300 if shape["OG"] % 2 else 0)
    return Kernel(
        template="conv2d/input_gradient",
        symbol=f"{symbol}_input_gradient",
        params_type="tt_no_params",
        shape=shape,
        code={"portable": 1550 + window, "dsp": 640 + odd + window},
        arguments=arguments,
    )


class Conv2d(Operator):
    name = "conv2d"
    attributes = Conv2dAttributes
    clips = True
    classifies = True
    backward = Conv2dBackward()
    weights = WEIGHTS

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: Conv2dAttributes = node.attributes
        w = node.constants["weights"]
        zero_x = tensors[node.inputs[0]].quantization.zero_point
        patches = a.window.patches(inputs[0], zero_x)
        oh, ow, cin = patches.shape[0], patches.shape[1], patches.shape[4]
        per_in, per_out = cin // a.groups, len(w) // a.groups
        acc = np.concatenate(
            [
                accumulate(
                    patches[..., g * per_in : (g + 1) * per_in].reshape(oh, ow, -1),
                    w[g * per_out : (g + 1) * per_out].reshape(per_out, -1),
                    node.constants["bias"][g * per_out : (g + 1) * per_out],
                    zero_x,
                )
                for g in range(a.groups)
            ],
            axis=-1,
        )
        m = output_multiplier(node, tensors)
        zero_y = tensors[node.output].quantization.zero_point
        return requantize(acc, m.values, m.shift, zero_y, a.low, a.high)

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        oh, ow, _ = tensors[node.output].shape
        return oh * ow * int(node.constants["weights"].size)

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """int16 columns of a block of pixels, and one int8 patch where taps don't fill whole words."""
        shape = _shape(node, tensors)
        columns = 2 * shape["KP"] * shape["P"]
        return columns if shape["DIRECT"] else columns + shape["KP"]

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        x, y = tensors[node.inputs[0]], tensors[node.output]
        shape = _shape(node, tensors)
        w = node.constants["weights"]
        rows = np.zeros((len(w), shape["KP"]), np.int8)  # rows padded with zero weights to whole words
        rows[:, : shape["K"]] = w.reshape(len(w), -1)
        return Kernel(
            template="conv2d/forward",
            symbol=WEIGHTS.symbol(node, tensors),
            params_type="tt_conv_params",
            shape=shape,
            code=_code(shape),
            arrays={
                "weights": rows,
                "bias": folded_bias(node, x.quantization.zero_point),
                "multipliers": output_multiplier(node, tensors).values,
            },
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


CONV2D = register(Conv2d())
