"""Maximum over windows; input and output share scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Tensor
from ..graph.gradient import Gradient, narrow
from .arrays import Floats, Int8, PixelSums
from .backward import Backward
from .base import Operator, register
from .kernel import Kernel
from .window import Window


@dataclass(frozen=True)
class MaxPoolAttributes:
    window: Window
    low: int = -128
    high: int = 127


class MaxPoolBackward(Backward):
    needs_inputs = True

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """The whole gradient goes to the first tap inside the image that holds the maximum."""
        a: MaxPoolAttributes = node.attributes
        h, w, _ = tensors[node.inputs[0]].shape
        patches = a.window.patches(inputs[0].astype(np.int16), -129)  # padding loses against -128 too
        oh, ow, kh, kw, c = patches.shape
        argmax = patches.reshape(oh, ow, kh * kw, c).argmax(2)
        taps = (np.arange(kh * kw)[:, None] == argmax[:, :, None, :]) * gradient.mantissa[:, :, None, :].astype(
            np.int64
        )
        spread = a.window.scatter(taps.reshape(oh, ow, kh, kw, c), h, w)
        return (narrow(spread, gradient.magnitude * a.window.overlap(h, w), gradient.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        h, w, _ = tensors[node.inputs[0]].shape
        patches = node.attributes.window.patches(inputs[0].astype(np.int16), -129)
        oh, ow, kh, kw, c = patches.shape
        is_argmax = np.arange(kh * kw)[:, None] == patches.reshape(oh, ow, kh * kw, c).argmax(2)[:, :, None, :]
        return (node.attributes.window.scatter((is_argmax * g[:, :, None, :]).reshape(patches.shape), h, w),)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """By window, first to last, where the pixel is the argmax: the first of equal ones."""
        window: Window = node.attributes.window
        patches = window.patches(inputs[0].astype(np.int16), -129)
        argmax_indices = patches.reshape(*patches.shape[:2], -1, patches.shape[-1]).argmax(2)
        sums = PixelSums(tensors[node.inputs[0]].shape, window)
        kh, kw = window.kernel
        for ky, kx in reversed(list(np.ndindex(kh, kw))):
            sums.at(ky, kx)[...] += np.where(argmax_indices == ky * kw + kx, g, np.float32(0))
        return (sums.inside(),)

    def saved_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """The argmax index (a tap) of every output, packed into words: two bits where the window is 2x2."""
        per_word = self._packing(node.attributes.window)["PER_WORD"]
        return 4 * -(-tensors[node.output].bytes // per_word)

    def saving_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        return self._kernel(node, tensors, "max_pool/argmax_indices", "argmax_indices", 420)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        return self._kernel(node, tensors, "max_pool/input_gradient", "input_gradient", 650)

    @classmethod
    def _kernel(cls, node: Node, tensors: Mapping[str, Tensor], template: str, what: str, code: int) -> Kernel:
        window: Window = node.attributes.window
        h, w, c = tensors[node.inputs[0]].shape
        return Kernel(
            template=template,
            symbol=f"max_pool_{window.label()}_{h}x{w}x{c}_{what}",
            params_type="tt_no_params",
            shape=window.constants(h, w) | {"C": c, "OVERLAP": window.overlap(h, w)} | cls._packing(window),
            code={"portable": code},
        )

    @staticmethod
    def _packing(window: Window) -> dict[str, int]:
        """Bits of a tap's number, and how many of them a word holds; none lies across two words."""
        bits = max(1, (window.taps - 1).bit_length())
        return {"BITS": bits, "PER_WORD": 32 // bits}


class MaxPool(Operator):
    name = "max_pool"
    attributes = MaxPoolAttributes
    keeps_scale = True
    backward = MaxPoolBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        a: MaxPoolAttributes = node.attributes
        y = a.window.patches(inputs[0], -128).max((2, 3))
        clamped: Int8 = np.clip(y, a.low, a.high).astype(np.int8)
        return clamped

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: MaxPoolAttributes = node.attributes
        h, w, c = tensors[node.inputs[0]].shape
        return Kernel(
            template="max_pool/forward",
            symbol=f"max_pool_{a.window.label()}_{h}x{w}x{c}",
            params_type="tt_no_params",
            shape=a.window.constants(h, w) | {"C": c, "LOW": a.low, "HIGH": a.high},
            code={"portable": 880},
        )


MAX_POOL = register(MaxPool())
