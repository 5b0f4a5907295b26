"""Training with float32 gradients, in NumPy: the oracle of C generated with --gradients float32.

IEEE single precision without contraction; every sum in the order that docs/numerics.md, "Float gradients", gives.
A loop here is a sum's order; what NumPy does at once are different results. Padding adds +-0 to sums that began at
+0, which changes nothing, so taps outside the picture need not be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import Gradient
from ..ops import Int8, operator_of
from ..ops.learning import PIXEL
from ..ops.window import Window
from .float_backward import FLOAT64, Rules
from .steps import Floats, ordered_sum

MOVE_MAX = np.float32(2147483520)  # the largest float32 below 2**31


def from_mantissas(gradient: Gradient) -> Floats:
    """The loss hands over int16 mantissas; as floats they are exact."""
    unit = np.float32(np.ldexp(1.0, gradient.exponent))
    return gradient.mantissa.astype(np.float32) * unit


def squared_norm(gradient: Floats) -> np.float32:
    """Of each output's values in memory order, then of the outputs' sums."""
    return np.float32(ordered_sum(ordered_sum((gradient * gradient).reshape(len(gradient), -1))))


def rounded_moves(gradient: Floats, length: np.float32, inverse: Floats) -> NDArray[np.int64]:
    """gradient times length / scale, in steps of a delta: rounded half up, saturating.

    inverse: 1 / scale, broadcast against the gradient.
    """
    move = gradient * (length * inverse) + np.float32(0.5)
    move = np.where(~(move < MOVE_MAX), MOVE_MAX, np.where(~(move > -MOVE_MAX), -MOVE_MAX, move))
    return np.floor(move).astype(np.int64)


class _Sums:
    """Sums for each pixel of a layer's input, padding included; `at` is the part that one tap reads."""

    def __init__(self, graph: Graph, node: Node, window: Window) -> None:
        h, w, self._channels = graph.tensors[node.inputs[0]].shape
        self._window, self._size = window, (h, w)
        self._outputs = window.output_size(h, w)
        (top, left), (bottom, right) = window.pad_before, window.pad_after
        self._padded = np.zeros((h + top + bottom, w + left + right, self._channels), np.float32)

    def at(self, ky: int, kx: int) -> Floats:
        """(OH, OW, C), a view: += adds to the pixels that this tap of every window reads."""
        (dy, dx), (sy, sx), (oh, ow) = self._window.dilation, self._window.stride, self._outputs
        y, x = ky * dy, kx * dx
        return self._padded[y : y + oh * sy : sy, x : x + ow * sx : sx]

    def inside(self) -> Floats:
        (top, left), (h, w) = self._window.pad_before, self._size
        return self._padded[top : top + h, left : left + w]


def _conv2d(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    """By tap, then by output."""
    w = node.constants["weights"].astype(np.float32)
    sums = _Sums(graph, node, node.attributes.window)
    g = g * node.constants["weight_scales"].astype(np.float32)
    per_out, per_in = len(w) // node.attributes.groups, w.shape[3]
    for ky, kx in np.ndindex(*node.attributes.window.kernel):
        target = sums.at(ky, kx)
        for o in range(len(w)):
            start = o // per_out * per_in
            target[..., start : start + per_in] += g[..., o, None] * w[o, ky, kx]
    return (sums.inside(),)


def _depthwise(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    w = node.constants["weights"].astype(np.float32)
    sums = _Sums(graph, node, node.attributes.window)
    g = g * node.constants["weight_scales"].astype(np.float32)
    for ky, kx in np.ndindex(*node.attributes.window.kernel):
        sums.at(ky, kx)[...] += g * w[:, ky, kx, 0]
    return (sums.inside(),)


def _fully_connected(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    g = g * node.constants["weight_scales"].astype(np.float32)
    products = g[:, None] * node.constants["weights"].astype(np.float32)
    return (ordered_sum(products.T).reshape(graph.tensors[node.inputs[0]].shape),)


def _avg_pool(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    """By window, first to last: a pixel's first window reads it with its last tap."""
    a = node.attributes
    h, w, _ = graph.tensors[node.inputs[0]].shape
    counts = np.full((1, 1), a.window.taps) if a.count_include_pad else a.window.valid_counts(h, w)
    share = g.reshape(*a.window.output_size(h, w), -1) * (np.float32(1) / counts.astype(np.float32))[..., None]
    sums = _Sums(graph, node, a.window)
    kh, kw = a.window.kernel
    for ky, kx in np.ndindex(kh, kw):
        sums.at(kh - 1 - ky, kw - 1 - kx)[...] += share
    return (sums.inside(),)


def _max_pool(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    """By window, first to last, where the pixel won: the first of equal ones."""
    window = node.attributes.window
    patches = window.patches(values[node.inputs[0]].astype(np.int16), -129)
    winners = patches.reshape(*patches.shape[:2], -1, patches.shape[-1]).argmax(2)
    sums = _Sums(graph, node, window)
    kh, kw = window.kernel
    for ky, kx in reversed(list(np.ndindex(kh, kw))):
        sums.at(ky, kx)[...] += np.where(winners == ky * kw + kx, g, np.float32(0))
    return (sums.inside(),)


def _weight_gradient(graph: Graph, node: Node, x: Int8, g: Floats, channels: list[int]) -> Floats:
    """(outputs of a group, KH, KW, selected) in units of the input's scale; by pixel."""
    zero = graph.tensors[node.inputs[0]].quantization.zero_point
    layout, window = operator_of(node).weight_layout(node), getattr(node.attributes, "window", PIXEL)
    if node.op == "fully_connected":
        x = x.reshape(1, 1, -1)
    patches = window.patches(x, zero)[..., channels].astype(np.float32) - np.float32(zero)
    pixels = patches.reshape(-1, *patches.shape[2:])
    outputs = layout.outputs_of(channels)
    sums = np.zeros((layout.outputs, *pixels.shape[1:]), np.float32)
    for pixel, row in zip(pixels, g.reshape(len(pixels), -1), strict=True):
        sums += row[outputs] * pixel
    return sums


def _bias_gradient(g: Floats) -> Floats:
    return ordered_sum(g.reshape(-1, g.shape[-1]).T)


_OWN: dict[str, Any] = {
    "conv2d": _conv2d, "depthwise_conv2d": _depthwise, "fully_connected": _fully_connected, "avg_pool": _avg_pool,
    "max_pool": _max_pool,
}  # fmt: skip
FLOAT32 = Rules({**FLOAT64.inputs, **_OWN}, _weight_gradient, _bias_gradient)
