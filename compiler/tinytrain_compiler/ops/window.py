"""Sliding windows: the geometry that convolutions and pools share."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Phase:
    """Input positions of one axis that are equal modulo the stride; the same taps read all of them."""

    first: int  # position
    taps: tuple[int, ...]  # by ascending output
    start: int  # place in the padded gradient of what the first tap meets at the first position


@dataclass(frozen=True)
class Transposed:
    """One axis of the transposed window: inputs gather from outputs, which lie padded with zeros."""

    phases: tuple[Phase, ...]
    step: int  # from tap to tap of a phase, in outputs
    front: int  # zeros in front of the first output
    size: int  # of the padded gradient


@dataclass(frozen=True)
class Window:
    """Pairs are (vertical, horizontal), in pixels; pads are added before the first and after the last."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad_before: tuple[int, int] = (0, 0)
    pad_after: tuple[int, int] = (0, 0)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def is_pointwise(self) -> bool:
        return self.taps == 1 and self.stride == (1, 1) and self.pad_before == (0, 0) == self.pad_after

    def extent(self, axis: int) -> int:
        """Pixels from a window's first tap to its last, both counted."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        sizes = [
            (size + self.pad_before[i] + self.pad_after[i] - self.extent(i)) // self.stride[i] + 1
            for i, size in enumerate((height, width))
        ]
        return sizes[0], sizes[1]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that the windows touch, padding in front included."""
        oh, ow = self.output_size(height, width)
        return (oh - 1) * self.stride[0] + self.extent(0), (ow - 1) * self.stride[1] + self.extent(1)

    def transposed(self, size: int, axis: int) -> Transposed:
        """How the inputs of an axis (0 vertical) gather what the taps that read them met."""
        stride, dilation, pad = self.stride[axis], self.dilation[axis], self.pad_before[axis]
        taps = [
            [tap for tap in reversed(range(self.kernel[axis])) if (first + pad - tap * dilation) % stride == 0]
            for first in range(min(stride, size))
        ]
        # The output that tap `tap` of input `first` belongs to; beyond the ends it is padding.
        outputs = [[(first + pad - tap * dilation) // stride for tap in some] for first, some in enumerate(taps)]
        front = max(0, -min((some[0] for some in outputs if some), default=0))
        ends = [some[-1] + (size - 1 - first) // stride + 1 for first, some in enumerate(outputs) if some]
        phases = [
            Phase(first, tuple(some), outputs[first][0] + front if some else 0) for first, some in enumerate(taps)
        ]
        return Transposed(tuple(phases), dilation // gcd(stride, dilation), front, front + max(ends, default=1))

    def patches(self, x: NDArray[Any], pad_value: int) -> NDArray[Any]:
        """x (H, W, C) -> (OH, OW, KH, KW, C), out-of-bounds taps reading `pad_value`."""
        h, w, _ = x.shape
        (top, left), (bottom, right) = self.pad_before, self.pad_after
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=pad_value)
        oh, ow = self.output_size(h, w)
        view = np.lib.stride_tricks.sliding_window_view(padded, (self.extent(0), self.extent(1)), (0, 1))
        view = view[:: self.stride[0], :: self.stride[1], :, :: self.dilation[0], :: self.dilation[1]]
        return view[:oh, :ow].transpose(0, 1, 3, 4, 2)

    def valid_counts(self, height: int, width: int) -> NDArray[np.int64]:
        """(OH, OW): taps of each window that lie inside the image."""
        inside = np.zeros((height, width, 1), np.int8)
        counts: NDArray[np.int64] = self.patches(inside + 1, 0).sum((2, 3, 4), dtype=np.int64)
        return counts

    def overlap(self, height: int, width: int) -> int:
        """The largest number of windows that read one pixel."""
        oh, ow = self.output_size(height, width)
        return int(self.scatter(np.ones((oh, ow, *self.kernel, 1), np.int64), height, width).max())

    def constants(self, height: int, width: int) -> dict[str, int]:
        """Names and values for a kernel template."""
        oh, ow = self.output_size(height, width)
        hp, wp = self.padded_size(height, width)
        return {
            "H": height, "W": width, "OH": oh, "OW": ow, "HP": hp, "WP": wp,
            "KH": self.kernel[0], "KW": self.kernel[1], "SH": self.stride[0], "SW": self.stride[1],
            "DH": self.dilation[0], "DW": self.dilation[1], "PT": self.pad_before[0], "PL": self.pad_before[1],
        }  # fmt: skip

    def label(self) -> str:
        """Part of a kernel's symbol: kernel, stride, dilation and padding."""
        text = f"{self.kernel[0]}x{self.kernel[1]}"
        if self.stride != (1, 1):
            text += f"_s{self.stride[0]}" + (f"x{self.stride[1]}" if self.stride[0] != self.stride[1] else "")
        if self.dilation != (1, 1):
            text += f"_d{self.dilation[0]}x{self.dilation[1]}"
        pads = (*self.pad_before, *self.pad_after)
        return text + ("_p" + "".join(str(p) for p in pads) if any(pads) else "")

    def scatter(self, taps: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        """The transpose of `patches`: taps (OH, OW, KH, KW, C), each added to the pixel it was read from.

        Returns (height, width, C); what falls into the padding is dropped.
        """
        (top, left), (bottom, right) = self.pad_before, self.pad_after
        oh, ow, kh, kw, c = taps.shape
        padded = np.zeros((height + top + bottom, width + left + right, c), taps.dtype)
        for ky in range(kh):
            for kx in range(kw):
                y, x = ky * self.dilation[0], kx * self.dilation[1]
                rows = slice(y, y + oh * self.stride[0], self.stride[0])
                columns = slice(x, x + ow * self.stride[1], self.stride[1])
                padded[rows, columns] += taps[:, :, ky, kx]
        return padded[top : top + height, left : left + width]
