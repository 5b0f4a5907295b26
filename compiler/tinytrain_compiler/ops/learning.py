"""What all layers with weights share on the way back: bounds of the input's gradient, and gradients of weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .backward import TRAINED_MARGIN, input_pre_shift, parameter_shift, prepare
from .base import Int8, Kernel, ParameterGradient, round_up
from .weight_layout import WeightLayout
from .window import Window

PIXEL = Window((1, 1))
BLOCK = 4  # channels, and pixels, that the DSP kernels of the backward pass take together


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


def gradient_scratch_bytes(layout: WeightLayout) -> int:
    """Of the input's gradient of a convolution: the weights of four input channels as int16 pairs of outputs."""
    return BLOCK * layout.taps * 2 * round_up(layout.outputs, 2)


def weight_gradient(
    layout: WeightLayout, window: Window, source: Tensor, x: Int8, gradient: Gradient, channels: NDArray[np.intp]
) -> ParameterGradient:
    """dW[o, ky, kx, i] = sum over pixels of (x - z_x) g, for the selected input channels i and their group's outputs.

    x: (H, W, C). channels: any order, each once.
    """
    zero = source.quantization.zero_point
    patches = window.patches(x, zero)[..., channels].astype(np.float64) - zero
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
    return ParameterGradient(values.reshape(shape), gradient.exponent + shift, source.quantization.scale, bound)


def learning_kernel(symbol: str, layout: WeightLayout, window: Mapping[str, int]) -> Kernel:
    """The C kernel of weight_gradient and the update behind it. window: Window.constants."""
    keys = ("H", "W", "OH", "OW", "KH", "KW", "SH", "SW", "DH", "DW", "PT", "PL")
    shape = {key: window[key] for key in keys} | {"O": layout.groups * layout.outputs}
    grouped = layout.groups > 1
    return Kernel(
        template="conv2d/grouped_weight_gradient" if grouped else "conv2d/weight_gradient",
        symbol=f"{symbol}_weight_gradient",
        params_type="tt_no_params",
        shape=shape | ({"OG": layout.outputs, "CG": layout.inputs} if grouped else {}),
    )


def learning_scratch_bytes(layout: WeightLayout, pixels: int, chosen: int) -> int:
    """One tap's inputs as int16 pairs of pixels, one output's gradient, and the sums of its weights; 0 for groups."""
    if layout.groups > 1:
        return 0
    pixels, channels = round_up(pixels, BLOCK), round_up(chosen, BLOCK)
    return 2 * pixels * channels + 2 * pixels + 4 * channels
