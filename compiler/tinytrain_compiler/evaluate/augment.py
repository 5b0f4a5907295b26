"""Augmented images for training, computed on the device's own input bytes in integers.

For an image x, int8 (H, W, C) with zero point z, four draws in this order from `Draws(seed)` (reference/draws.py;
below(n) is one step of xorshift32, then state * n >> 32):

    dy         = below(2 * (H / 8) + 1) - H / 8          rows, division rounds down
    dx         = below(2 * (W / 8) + 1) - W / 8          columns
    contrast   = below(129) + 192                        192 .. 320 in 1/256: 0.75 .. 1.25
    brightness = below(13057) - 6528                     in 1/256 of a step: +-25.5 steps, 0.2 of the half range 127.5

Pixel (i, j) of the result comes from (reflect(i - dy, H), reflect(j - dx, W)), where reflect mirrors about
the edge pixel's centre: -1 -> 1, n -> n - 2. Its bytes become

    y = clamp(z + (((x - z) * contrast + brightness + 128) >> 8), -128, 127)

with an arithmetic shift, so rounding is to nearest, halves up. Every value fits int32: |x - z| <= 255, hence
|(x - z) * contrast + brightness + 128| < 2^17. All channels share the draws. With dy = dx = 0, contrast = 256
and brightness = 0 the image is unchanged. The table of 256 outcomes may be computed once an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ops import Int8
from ..reference.draws import Draws

ONE = 256  # contrast 1, and a step of brightness
CONTRAST_RANGE = 64
BRIGHTNESS_RANGE = 6528
SHIFT_DIVISOR = 8


@dataclass(frozen=True)
class Augmentation:
    """One outcome of the draws; the default changes nothing."""

    dy: int = 0  # rows down
    dx: int = 0  # columns to the right
    contrast: int = ONE  # in 1/256
    brightness: int = 0  # in 1/256 of an input step


def draw(shape: tuple[int, ...], seed: int) -> Augmentation:
    """The augmentation of an image of shape (H, W, C). seed: one that mix() made, so that all its bits count."""
    draws = Draws(seed)
    height, width = shape[0] // SHIFT_DIVISOR, shape[1] // SHIFT_DIVISOR
    return Augmentation(
        dy=draws.between(-height, height),
        dx=draws.between(-width, width),
        contrast=draws.between(ONE - CONTRAST_RANGE, ONE + CONTRAST_RANGE),
        brightness=draws.between(-BRIGHTNESS_RANGE, BRIGHTNESS_RANGE),
    )


def apply(x: Int8, zero_point: int, augmentation: Augmentation) -> Int8:
    """x: int8 (H, W, C) -> a new array of the same shape. |dy| < H and |dx| < W."""
    a = augmentation
    steps = np.arange(-128, 128, dtype=np.int32) - zero_point
    moved = zero_point + ((steps * a.contrast + a.brightness + ONE // 2) >> 8)
    table = np.roll(np.clip(moved, -128, 127).astype(np.int8), 128)  # indexed by the byte's bits
    rows, columns = _reflected(x.shape[0], a.dy), _reflected(x.shape[1], a.dx)
    y: Int8 = table[x.view(np.uint8)[rows][:, columns]]
    return y


def augment(x: Int8, zero_point: int, seed: int) -> Int8:
    """The image's augmented copy that belongs to a seed of mix(). x: int8 (H, W, C)."""
    return apply(x, zero_point, draw(x.shape, seed))


def _reflected(size: int, shift: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Where each of `size` pixels comes from."""
    source = np.abs(np.arange(size) - shift)
    return np.where(source < size, source, 2 * (size - 1) - source)
