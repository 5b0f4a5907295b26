"""Convolution with any kernel, stride, padding, dilation and number of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor, requantize
from ..graph.gradient import Gradient, narrow, quantize_factors
from .backward import (
    TRAINED_MARGIN,
    input_pre_shift,
    l1_bound,
    parameter_shift,
    prepare,
    scale_channels,
)
from .base import Int8, Kernel, NoBackwardRuleError, Operator, ParameterGradient, register, round_up
from .weighted import accumulate, folded_bias, output_multiplier, requantize_scalars, requantize_shape
from .window import Window

BLOCK_PIXELS = 4  # pixels whose columns the DSP kernel holds at once
BLOCK_CHANNELS = 4  # input channels that the DSP kernels of the backward pass compute together


@dataclass(frozen=True)
class Conv2dAttributes:
    """constants: weights int8 (O, KH, KW, I/groups), bias int32 (O,), weight_scales float (O,)."""

    window: Window
    groups: int = 1
    low: int = -128  # output clip limits
    high: int = 127


class Conv2d(Operator):
    name = "conv2d"

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

    def input_gradients(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """dx = convT(s_w g, W)."""
        a: Conv2dAttributes = node.attributes
        w = node.constants["weights"]
        h, width, cin = tensors[node.inputs[0]].shape
        per_in, per_out = cin // a.groups, len(w) // a.groups
        l1, drop = self._l1(node), self._drop(node)
        g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), drop)
        oh, ow, _ = g.mantissa.shape
        taps = np.zeros((oh, ow, *w.shape[1:3], cin), np.int64)
        for group in range(a.groups):
            o, i = slice(group * per_out, (group + 1) * per_out), slice(group * per_in, (group + 1) * per_in)
            rows = w[o].reshape(per_out, -1).astype(np.float64)  # float64 holds every sum exactly
            product = g.mantissa[..., o].reshape(-1, per_out).astype(np.float64) @ rows
            taps[..., i] = product.reshape(oh, ow, *w.shape[1:3], per_in).astype(np.int64)
        return (narrow(a.window.scatter(taps, h, width), g.magnitude * l1, g.exponent),)

    def gradient_kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        shape = self._shape(node, tensors)
        keys = (
            *("H", "W", "C", "OH", "OW", "O", "KH", "KW", "SH", "SW", "DH", "DW", "PT", "PL"),
            *("GROUPS", "CG", "OG", "KP", "POINTWISE"),
        )
        return Kernel(
            template="conv2d_input_gradient",
            symbol=f"{self._symbol(node, tensors)}_input_gradient",
            params_type="tt_no_params",
            shape={key: shape[key] for key in keys}
            | {"L1": self._l1(node, trained), "DROP": self._drop(node, trained)},
        )

    def gradient_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """The weights of four input channels as int16 pairs of outputs."""
        shape = self._shape(node, tensors)
        return BLOCK_CHANNELS * shape["KH"] * shape["KW"] * 2 * round_up(shape["OG"], 2)

    def learning_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        if node.attributes.groups != 1:
            raise NoBackwardRuleError(f"{node.name}: a grouped convolution cannot learn its weights")
        shape = self._shape(node, tensors)
        keys = ("H", "W", "OH", "OW", "O", "KH", "KW", "SH", "SW", "DH", "DW", "PT", "PL")
        return Kernel(
            template="conv2d_weight_gradient",
            symbol=f"{self._symbol(node, tensors)}_weight_gradient",
            params_type="tt_no_params",
            shape={key: shape[key] for key in keys},
        )

    def learning_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor], chosen: int) -> int:
        """One tap's inputs as int16 pairs of pixels, one output's gradient, and the sums of its weights."""
        oh, ow, _ = tensors[node.output].shape
        pixels, channels = round_up(oh * ow, BLOCK_PIXELS), round_up(chosen, BLOCK_CHANNELS)
        return 2 * pixels * channels + 2 * pixels + 4 * channels

    @staticmethod
    def _symbol(node: Node, tensors: Mapping[str, Tensor]) -> str:
        a: Conv2dAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        symbol = f"conv2d_{a.window.label()}_{h}x{w}x{c}_{len(node.constants['weights'])}"
        return symbol + (f"_g{a.groups}" if a.groups > 1 else "")

    @staticmethod
    def _l1(node: Node, trained: bool = False) -> int:
        """The largest sum of |w| over the outputs and taps that read one input channel, of any group."""
        w = node.constants.get("pretrained", node.constants["weights"])
        per_out = len(w) // node.attributes.groups
        margin = TRAINED_MARGIN if trained or "pretrained" in node.constants else 1
        return margin * max(l1_bound(w[o : o + per_out], (0, 1, 2)) for o in range(0, len(w), per_out))

    def _drop(self, node: Node, trained: bool = False) -> int:
        """Bits of the gradient that no input of int32 accumulators has room for, whatever trained weights become."""
        w = node.constants["weights"]
        worst = 128 * (len(w) // node.attributes.groups) * w.shape[1] * w.shape[2]
        learns = trained or "pretrained" in node.constants
        return input_pre_shift(worst if learns else self._l1(node))

    def weight_gradient(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, gradient: Gradient, channels: NDArray[np.intp]
    ) -> ParameterGradient:
        """dW[o, ky, kx, i] = sum over pixels of (x - z_x) g, for the selected input channels i (groups = 1)."""
        if node.attributes.groups != 1:
            raise NoBackwardRuleError(f"{node.name}: a grouped convolution cannot learn its weights")
        source = tensors[node.inputs[0]].quantization
        patches = node.attributes.window.patches(x, source.zero_point)[..., channels]
        oh, ow, kh, kw, selected = patches.shape
        shift = parameter_shift(gradient, oh * ow, 255)
        g = prepare(gradient, shift).reshape(oh * ow, -1).astype(np.float64)
        columns = patches.reshape(oh * ow, -1).astype(np.float64) - source.zero_point
        values = (g.T @ columns).astype(np.int64).reshape(-1, kh, kw, selected)
        bound = (gradient.magnitude * oh * ow * 255) >> shift
        return ParameterGradient(values, gradient.exponent + shift, source.scale, bound)

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        oh, ow, _ = tensors[node.output].shape
        return oh * ow * int(node.constants["weights"].size)

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """int16 columns of a block of pixels, and one int8 patch where taps don't fill whole words."""
        shape = self._shape(node, tensors)
        columns = 2 * shape["KP"] * shape["P"]
        return columns if shape["DIRECT"] else columns + shape["KP"]

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        x, y = tensors[node.inputs[0]], tensors[node.output]
        shape = self._shape(node, tensors)
        w = node.constants["weights"]
        rows = np.zeros((len(w), shape["KP"]), np.int8)  # rows padded with zero weights to whole words
        rows[:, : shape["K"]] = w.reshape(len(w), -1)
        return Kernel(
            template="conv2d",
            symbol=self._symbol(node, tensors),
            params_type="tt_conv_params",
            shape=shape,
            arrays={
                "weights": rows,
                "bias": folded_bias(node, x.quantization.zero_point),
                "multipliers": output_multiplier(node, tensors).values,
            },
            scalars=requantize_scalars(x.quantization, y.quantization),
        )

    @staticmethod
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


CONV2D = register(Conv2d())
