"""Where a window lies on an image: TensorFlow's paddings as ONNX spells them."""

from __future__ import annotations

from collections.abc import Sequence

from ..file import Operator
from ..translator import CannotTranslateError

SAME, VALID = range(2)


def pads(op: Operator, image: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """[top, left, bottom, right] of a convolution or pool. image, kernel: (height, width)."""
    strides, dilations = strides_of(op), dilations_of(op)
    if op.options["padding"] == VALID:
        return [0, 0, 0, 0]
    before, after = [], []
    for size, k, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        before.append(total // 2)  # what is odd goes behind
        after.append(total - total // 2)
    return before + after


def strides_of(op: Operator) -> list[int]:
    found = [int(op.options["stride_h"]), int(op.options["stride_w"])]
    if min(found) < 1 or op.options["padding"] not in (SAME, VALID):
        raise CannotTranslateError(f"its strides {found} or its padding are none", "export the model again")
    return found


def dilations_of(op: Operator) -> list[int]:
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return [1, 1]
    found = [int(op.options["dilation_h"]), int(op.options["dilation_w"])]
    if min(found) < 1:
        raise CannotTranslateError(f"its dilations {found} are none", "export the model again")
    return found
