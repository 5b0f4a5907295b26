"""Array types that all operators share, and float32 sums whose order is fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .window import Window

Int8 = NDArray[np.int8]
Floats = NDArray[Any]  # float64 or float32, as the rules make them


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def ordered_sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum along the last axis, from the first to the last."""
    total: NDArray[np.float32] = np.add.accumulate(values, axis=-1, dtype=np.float32)[..., -1]
    return total


class PixelSums:
    """float32 sums for each pixel of an image, padding included; `at` is the part that one tap of a window reads.

    A loop over taps is a sum's order (numerics.md, "Float gradients"). Padding adds +-0 to sums that began at
    +0, which changes nothing, so taps outside the image need not be left out.
    """

    def __init__(self, shape: tuple[int, ...], window: Window) -> None:
        h, w, channels = shape
        self._window, self._size = window, (h, w)
        self._outputs = window.output_size(h, w)
        (top, left), (bottom, right) = window.pad_before, window.pad_after
        self._padded = np.zeros((h + top + bottom, w + left + right, channels), np.float32)

    def at(self, ky: int, kx: int) -> NDArray[np.float32]:
        """(OH, OW, C), a view: += adds to the pixels that this tap of every window reads."""
        (dy, dx), (sy, sx), (oh, ow) = self._window.dilation, self._window.stride, self._outputs
        y, x = ky * dy, kx * dx
        return self._padded[y : y + oh * sy : sy, x : x + ow * sx : sx]

    def inside(self) -> NDArray[np.float32]:
        (top, left), (h, w) = self._window.pad_before, self._size
        return self._padded[top : top + h, left : left + w]
