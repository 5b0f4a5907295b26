"""From raw pixels to the model's int8 input, exactly as the generated header does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..graph import Layout, Tensor
from .normalization import normalization

FRACTION_BITS = 16


@dataclass(frozen=True)
class PixelMap:
    """input = clamp((pixel * multiplier[c] + offset[c]) >> 16, -128, 127), one pair per channel."""

    multipliers: tuple[int, ...]
    offsets: tuple[int, ...]

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
        """uint8 (..., C) -> int8 (..., C)."""
        m, o = np.array(self.multipliers, np.int64), np.array(self.offsets, np.int64)
        y: NDArray[np.int8] = np.clip((pixels.astype(np.int64) * m + o) >> FRACTION_BITS, -128, 127).astype(np.int8)
        return y


def pixel_map(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> PixelMap | None:
    """The map for (pixel - mean) / std, see normalization; None where the input is no image of 1 or 3 channels."""
    if len(tensor.shape) != 3 or tensor.shape[2] not in (1, 3):
        return None
    channels, found = tensor.shape[2], normalization(mean, std)
    means, stds = (np.broadcast_to(np.asarray(v), channels) for v in (found.mean, found.std))
    scale, zero = tensor.quantization.scale, tensor.quantization.zero_point
    one = 1 << FRACTION_BITS
    multipliers = np.rint(one / (stds * scale)).astype(int)
    offsets = np.rint(one * (zero - means / (stds * scale)) + one / 2).astype(int)
    if np.any(255 * np.abs(multipliers) + np.abs(offsets) >= 2**31):
        return None
    return PixelMap(tuple(multipliers.tolist()), tuple(offsets.tolist()))


def quantize_samples(samples: NDArray[np.float32], tensor: Tensor, layout: Layout) -> NDArray[np.int8]:
    """float (n, *shape in the file without batch), in the model's units -> int8 (n, bytes) in the device's order.

    layout: Graph.sample_layout. The same rounding as ONNX's QuantizeLinear: half to even.
    """
    q = tensor.quantization
    with np.errstate(over="ignore"):  # infinite steps saturate like any others
        steps = np.rint(layout.to_device(samples) / np.float32(q.scale)) + q.zero_point
    integers: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8).reshape(len(samples), -1)
    return integers
