"""What the backward passes of all operators share (docs/numerics.md, "Backward").

SparseUpdate ("On-Device Training Under 256KB Memory", section 3) gives the rules; here every step is
integer and every accumulator's bound is a constant of the compiled model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import FACTOR_BITS, MANTISSA_BITS, MANTISSA_MAX, Factors, Gradient, shift_round
from .base import Int8

RELU_FUSES_INTO = ("add", "conv2d", "depthwise_conv2d", "fully_connected", "lookup")
ACCUMULATOR_BITS = 31
TRAINED_MARGIN = 2  # how much a trained layer's weights may outgrow the pretrained ones before gradients saturate


def saves_clip_mask(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the operator's limits are a Relu or Clip of the model, not only the ends of int8.

    A fused Relu shows as a lower limit that is the real zero. Elsewhere saturation is an accident of
    calibration, and gradients pass straight through.
    """
    low, high = limits(node)
    fused_relu = node.op in RELU_FUSES_INTO and low == tensors[node.output].quantization.zero_point
    return fused_relu or (low, high) != (-128, 127)


def limits(node: Node) -> tuple[int, int]:
    """Clip limits of the output; a reshape has none."""
    return getattr(node.attributes, "low", -128), getattr(node.attributes, "high", 127)


def clip_mask(node: Node, tensors: Mapping[str, Tensor], y: Int8) -> NDArray[np.bool_]:
    """True where the output (any shape) lies strictly between its limits: the bit a frozen layer saves."""
    if not saves_clip_mask(node, tensors):
        return np.ones(y.shape, np.bool_)
    low, high = limits(node)
    inside: NDArray[np.bool_] = (y > low) & (y < high)
    return inside


def masked(gradient: Gradient, mask: NDArray[np.bool_]) -> Gradient:
    return Gradient(np.where(mask, gradient.mantissa, 0).astype(np.int16), gradient.exponent)


def input_pre_shift(l1: int) -> int:
    """Bits dropped from gradients in front of a layer whose accumulators could otherwise leave int32."""
    return _safe_shift(MANTISSA_MAX, l1)


def scale_channels(gradient: Gradient, factors: Factors, pre_shift: int) -> Gradient:
    """Multiply each output channel (last axis) by its weight scale, and drop `pre_shift` bits."""
    product = gradient.mantissa.astype(np.int64) * factors.values
    mantissa = shift_round(product, FACTOR_BITS + pre_shift)
    return Gradient(mantissa.astype(np.int16), gradient.exponent + factors.exponent + pre_shift)


def parameter_shift(gradient: Gradient, terms: int, largest_factor: int) -> int:
    """Bits dropped from mantissas so that a sum of `terms` products with |factor| <= largest_factor fits int32."""
    return _safe_shift(gradient.magnitude, terms * largest_factor)


def _safe_shift(mantissa: int, factor: int) -> int:
    """A shift after which mantissa * factor fits int32, although rounding may have made the mantissa larger."""
    shift = max(0, (mantissa * factor).bit_length() - ACCUMULATOR_BITS)
    rounded = (mantissa + (1 << shift >> 1)) >> shift
    return shift + int(rounded * factor >= 1 << ACCUMULATOR_BITS)


def prepare(gradient: Gradient, shift: int) -> NDArray[np.int64]:
    return shift_round(gradient.mantissa.astype(np.int64), shift)


def headroom(bound: int) -> int:
    """Bits by which a value of this bound exceeds a mantissa."""
    return max(0, bound.bit_length() - MANTISSA_BITS)


def same_values(node: Node, tensors: Mapping[str, Tensor], gradient: Gradient) -> tuple[Gradient, ...]:
    """For operators that pass real values on as they are: the gradient, in the input's shape."""
    return (Gradient(gradient.mantissa.reshape(tensors[node.inputs[0]].shape), gradient.exponent),)
