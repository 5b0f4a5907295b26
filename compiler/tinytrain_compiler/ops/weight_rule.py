"""How weights learn: one rule for all layers that have any, and the bounds of the gradients that pass them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .arrays import Floats, Int8, round_up
from .backward import TRAINED_MARGIN, input_pre_shift, parameter_shift, prepare
from .kernel import Kernel
from .weight_layout import WeightLayout
from .window import Window

BLOCK = 4  # channels, and pixels, that the DSP kernels of the backward pass take together
_WINDOW = ("H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW", "PT", "PL")  # of Window.constants


@dataclass(frozen=True)
class ParameterGradient:
    """dLoss/dparameter in real units = values * 2**exponent * scale; values hold int32 accumulators."""

    values: NDArray[np.int64]
    exponent: int
    scale: float  # s_x for weights, 1 for biases
    bound: int  # no |value| exceeds it; known before the first value is computed

    @property
    def real(self) -> NDArray[np.float64]:
        real: NDArray[np.float64] = np.ldexp(self.values.astype(np.float64), self.exponent) * self.scale
        return real


class WeightRule(ABC):
    """Gradients and updates of an operator's weights. Every layer is a convolution here (WeightLayout says how).

    Gradients have the shape (outputs of a group, KH, KW, selected input channels).
    """

    @abstractmethod
    def layout(self, node: Node) -> WeightLayout:
        """Which weights belong to an input channel, and where the kernel's constants hold them."""

    @abstractmethod
    def symbol(self, node: Node, tensors: Mapping[str, Tensor]) -> str:
        """What C calls the layer: operator and shape."""

    def window(self, node: Node) -> Window:
        window: Window = node.attributes.window
        return window

    def size(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Height and width that the window slides over."""
        h, w, _ = tensors[node.inputs[0]].shape
        return h, w

    # -- gradients -----------------------------------------------------------------------------

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, gradient: Gradient, channels: NDArray[np.intp]
    ) -> ParameterGradient:
        """dW[o, ky, kx, i] = sum over pixels of (x - z_x) g, for input channels i (any order, each once) and their
        group's outputs. x: the input's values; gradient: the output's."""
        layout, q = self.layout(node), tensors[node.inputs[0]].quantization
        patches = self._patches(node, tensors, x, q.zero_point)[..., channels].astype(np.float64) - q.zero_point
        pixels = patches.shape[0] * patches.shape[1]
        columns = patches.reshape(pixels, layout.taps, len(channels))
        shift = parameter_shift(gradient, pixels, 255)
        g = prepare(gradient, shift).reshape(pixels, layout.groups, layout.outputs).astype(np.float64)
        values = np.zeros((layout.outputs, layout.taps, len(channels)), np.int64)
        group_of = channels // layout.inputs
        for group in np.unique(group_of):  # float64 holds every sum exactly
            members = group_of == group
            of_group = columns[..., members]
            product = g[:, group].T @ of_group.reshape(pixels, -1)
            values[..., members] = product.reshape(layout.outputs, *of_group.shape[1:]).astype(np.int64)
        bound = (gradient.magnitude * pixels * 255) >> shift
        shape = (layout.outputs, *layout.kernel, len(channels))
        return ParameterGradient(values.reshape(shape), gradient.exponent + shift, q.scale, bound)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, g: Floats, channels: list[int]
    ) -> NDArray[np.float64]:
        """In real units."""
        layout, q = self.layout(node), tensors[node.inputs[0]].quantization
        patches = self._patches(node, tensors, (x.astype(np.float64) - q.zero_point) * q.scale, 0)
        g = g.reshape(*patches.shape[:2], layout.groups, layout.outputs)
        parts = []
        for c in channels:
            own = g[:, :, c // layout.inputs]
            parts.append(np.einsum("yxhw,yxo->ohw", patches[..., c], own, optimize=True))
        return np.stack(parts, -1)

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, g: Floats, channels: list[int]
    ) -> NDArray[np.float32]:
        """In units of the input's scale; summed by pixel."""
        layout, zero = self.layout(node), tensors[node.inputs[0]].quantization.zero_point
        patches = self._patches(node, tensors, x, zero)[..., channels].astype(np.float32) - np.float32(zero)
        pixels = patches.reshape(-1, *patches.shape[2:])
        outputs = layout.outputs_of(channels)
        sums = np.zeros((layout.outputs, *pixels.shape[1:]), np.float32)
        for pixel, row in zip(pixels, g.reshape(len(pixels), -1), strict=True):
            sums += row[outputs] * pixel
        return sums

    def _patches(self, node: Node, tensors: Mapping[str, Tensor], x: NDArray[Any], pad_value: int) -> NDArray[Any]:
        return self.window(node).patches(x.reshape(*self.size(node, tensors), -1), pad_value)

    # -- the C kernel of int16 and of the update behind it; that of float32 differs by its template alone --------

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        layout, window = self.layout(node), self.window(node).constants(*self.size(node, tensors))
        shape = {key: window[key] for key in _WINDOW} | {"O": layout.groups * layout.outputs}
        grouped = layout.groups > 1
        return Kernel(
            template="conv2d/grouped_weight_gradient" if grouped else "conv2d/weight_gradient",
            symbol=f"{self.symbol(node, tensors)}_weight_gradient",
            params_type="tt_no_params",
            shape=shape | ({"OG": layout.outputs, "CG": layout.inputs} if grouped else {}),
            code={"portable": 1400} if grouped else {"portable": 1250, "dsp": 1500},
        )

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor], chosen: int) -> int:
        """Of the kernel, for so many input channels: one tap's inputs as int16 pairs of pixels, one output's gradient,
        and the sums of its weights; 0 for groups, which take none."""
        layout = self.layout(node)
        if layout.groups > 1:
            return 0
        oh, ow = self.window(node).output_size(*self.size(node, tensors))
        pixels, channels = round_up(oh * ow, BLOCK), round_up(chosen, BLOCK)
        return 2 * pixels * channels + 2 * pixels + 4 * channels


# -- gradients that pass a layer with weights on their way to its input ----------------------------


def input_bounds(node: Node, layout: WeightLayout, trained: bool = False) -> tuple[int, int]:
    """(L1, pre-shift): the largest sum of |w| that meets in one input element, and the bits that gradients lose.

    A layer whose weights learn counts its L1 twice, and its pre-shift holds whatever its weights become.
    """
    learns = trained or "pretrained" in node.constants
    weights = node.constants.get("pretrained", node.constants["weights"]).astype(np.int64)
    l1 = int(np.abs(layout.by_group(weights)).sum((1, 2, 3)).max())
    if not learns:
        return l1, input_pre_shift(l1)
    return TRAINED_MARGIN * l1, input_pre_shift(128 * layout.outputs * layout.taps)


def input_gradient_arguments(node: Node, layout: WeightLayout, trained: bool) -> dict[str, int]:
    """Of the C kernels, by name: bounds are no part of their identity, so that layers of one shape share a function."""
    l1, drop = input_bounds(node, layout, trained)
    return {"l1": l1, "drop": drop}


def gradient_scratch_bytes(layout: WeightLayout) -> int:
    """Of the input's gradient of a convolution: the weights of four input channels as int16 pairs of outputs."""
    return BLOCK * layout.taps * 2 * round_up(layout.outputs, 2)


def real_weights(node: Node) -> NDArray[np.float64]:
    """Weights in real units."""
    w = node.constants["weights"].astype(np.float64)
    real: NDArray[np.float64] = w * node.constants["weight_scales"].reshape(-1, *[1] * (w.ndim - 1))
    return real
