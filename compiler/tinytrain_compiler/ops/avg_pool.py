"""Average pooling over windows or over the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Multiplier, Node, Tensor, quantize_multiplier, requantize
from ..graph.gradient import FACTOR_BITS, Factors, Gradient, narrow, quantize_factors, shift_round
from .arrays import Floats, Int8, PixelSums
from .backward import Backward
from .base import Operator, register
from .kernel import WIDE_CODE, Kernel
from .weighted import requantize_scalars
from .window import Window


@dataclass(frozen=True)
class AvgPoolAttributes:
    window: Window
    count_include_pad: bool = False
    low: int = -128
    high: int = 127
    raw_mean: bool = False  # the mean of the bytes themselves, ties away from zero, where input and output share scales


def _divides(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether bytes are summed as they are and divided, as TensorFlow Lite does."""
    a: AvgPoolAttributes = node.attributes
    x, y = tensors[node.inputs[0]], tensors[node.output]
    same = x.quantization == y.quantization and not a.count_include_pad
    return a.raw_mean and same and int(a.window.valid_counts(*x.shape[:2]).min()) > 0


def _by_count(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether windows at the border divide by fewer taps than those inside."""
    a: AvgPoolAttributes = node.attributes
    h, w, _ = tensors[node.inputs[0]].shape
    return not a.count_include_pad and int(a.window.valid_counts(h, w).min()) < a.window.taps


class AvgPoolBackward(Backward):
    """Each tap of a window gets its share, 1 / taps."""

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        a: AvgPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        counts = a.window.valid_counts(h, w) if _by_count(node, tensors) else np.full((1, 1), a.window.taps)
        least, shares = self._shares(node, tensors)
        factors = shares.values[counts - least][..., None].astype(np.int64)
        g = shift_round(gradient.mantissa.reshape(*a.window.output_size(h, w), -1) * factors, FACTOR_BITS)
        taps = np.broadcast_to(g[:, :, None, None, :], (*g.shape[:2], *a.window.kernel, g.shape[2]))
        bound = int(np.abs(g).max(initial=0)) * a.window.overlap(h, w)
        return (narrow(a.window.scatter(taps, h, w), bound, gradient.exponent + shares.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        a: AvgPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        counts = a.window.taps if a.count_include_pad else a.window.valid_counts(h, w)[..., None]
        share = g.reshape(*a.window.output_size(h, w), -1) / counts
        taps = np.broadcast_to(share[:, :, None, None, :], (*share.shape[:2], *a.window.kernel, share.shape[2]))
        return (a.window.scatter(taps, h, w),)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """By window, first to last: a pixel's first window reads it with its last tap."""
        a: AvgPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        counts = np.full((1, 1), a.window.taps) if a.count_include_pad else a.window.valid_counts(h, w)
        share = g.reshape(*a.window.output_size(h, w), -1) * (np.float32(1) / counts.astype(np.float32))[..., None]
        sums = PixelSums(tensors[node.inputs[0]].shape, a.window)
        kh, kw = a.window.kernel
        for ky, kx in np.ndindex(kh, kw):
            sums.at(kh - 1 - ky, kw - 1 - kx)[...] += share
        return (sums.inside(),)

    def _shares(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, Factors]:
        """The least number of taps that a window divides by, and 1 / taps from there on."""
        a: AvgPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        least = int(a.window.valid_counts(h, w).min()) if _by_count(node, tensors) else a.window.taps
        return least, quantize_factors(1.0 / np.arange(least, a.window.taps + 1))

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        a: AvgPoolAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        least, shares = self._shares(node, tensors)
        shape = a.window.constants(h, w) | {
            "C": c, "BY_COUNT": int(_by_count(node, tensors)), "COUNT": least, "EXPONENT": shares.exponent,
            "OVERLAP": a.window.overlap(h, w),
        }  # fmt: skip
        return Kernel(
            template="avg_pool/input_gradient",
            symbol=f"avg_pool_{a.window.label()}_{h}x{w}x{c}_input_gradient",
            params_type="tt_no_params",
            shape=shape,
            code={"portable": 1200},
            inline={"shares": shares.values.tolist()},
        )


class AvgPool(Operator):
    name = "avg_pool"
    attributes = AvgPoolAttributes
    backward = AvgPoolBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: AvgPoolAttributes = node.attributes
        x, y = tensors[node.inputs[0]], tensors[node.output]
        if _divides(node, tensors):
            sums = a.window.patches(inputs[0], 0).astype(np.int64).sum((2, 3))
            taps = a.window.valid_counts(*x.shape[:2])[..., None]
            means = np.sign(sums) * ((np.abs(sums) + taps // 2) // taps)
            clamped: Int8 = np.clip(means, a.low, a.high).astype(np.int8).reshape(y.shape)
            return clamped
        zero_x = x.quantization.zero_point
        # Padding reads the zero point, so it adds nothing to the sum, whether it is counted or not.
        patches = a.window.patches(inputs[0], zero_x).astype(np.int64) - zero_x
        m = self._multipliers(node, tensors)
        counts = a.window.valid_counts(*x.shape[:2]) if _by_count(node, tensors) else 0 * patches[..., 0, 0, 0]
        per_window = m.values[np.broadcast_to(counts, patches.shape[:2])][..., None]
        return requantize(patches.sum((2, 3)), per_window, m.shift, y.quantization.zero_point, a.low, a.high).reshape(
            y.shape
        )

    def _multipliers(self, node: Node, tensors: Mapping[str, Tensor]) -> Multiplier:
        """s_x / (s_y * taps): one for all windows, or one for each number of valid taps (index 0 unused)."""
        a: AvgPoolAttributes = node.attributes
        factor = tensors[node.inputs[0]].quantization.scale / tensors[node.output].quantization.scale
        if not _by_count(node, tensors):
            return quantize_multiplier(np.array([factor / a.window.taps]))
        counts = np.arange(a.window.taps + 1, dtype=np.float64)
        counts[0] = np.inf  # a window of padding alone is the zero point
        return quantize_multiplier(factor / counts)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: AvgPoolAttributes = node.attributes
        x, y = tensors[node.inputs[0]], tensors[node.output]
        h, w, c = x.shape
        if _divides(node, tensors):
            return Kernel(
                template="avg_pool/raw_mean",
                symbol=f"avg_pool_{a.window.label()}_{h}x{w}x{c}_raw_mean",
                params_type="tt_no_params",
                shape=a.window.constants(h, w) | {"C": c, "LOW": a.low, "HIGH": a.high},
                code={"portable": 700},
            )
        m = self._multipliers(node, tensors)
        shape = a.window.constants(h, w) | {
            "C": c, "BY_COUNT": int(_by_count(node, tensors)), "LOW": a.low, "HIGH": a.high, "SHIFT": m.shift,
            "FITS": int((255 * a.window.taps) << m.shift < 2**31),
        }  # fmt: skip
        return Kernel(
            template="avg_pool/forward",
            symbol=f"avg_pool_{a.window.label()}_{h}x{w}x{c}" + ("_by_count" if shape["BY_COUNT"] else ""),
            params_type="tt_pool_params",
            shape=shape,
            code={"portable": 1000 + (0 if shape["FITS"] else WIDE_CODE)},
            arrays={"multipliers": m.values},
            scalars=requantize_scalars(x.quantization, y.quantization),
        )


AVG_POOL = register(AvgPool())
