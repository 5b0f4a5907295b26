"""Which outputs an operator's clip limits cut off: gradients stop there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from .arrays import Int8
from .base import operator_of


def saves_clip_mask(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the operator's limits are a Relu or Clip of the model, not only the ends of int8.

    A fused Relu shows as a lower limit that is the real zero. Elsewhere saturation is an accident of
    calibration, and gradients pass straight through.
    """
    low, high = limits(node)
    may_have_one = operator_of(node).clips and "table" not in node.constants  # a table has its Relus inside
    fused_relu = may_have_one and low == tensors[node.output].quantization.zero_point
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
