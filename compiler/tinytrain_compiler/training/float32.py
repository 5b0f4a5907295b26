"""Single-precision helpers as the device has them: no library calls, and nothing below the smallest normal number."""

from __future__ import annotations

import math

import numpy as np


def scaled(value: np.float32, exponent: int) -> np.float32:
    """value * 2**exponent for value >= 0: 0 below the smallest normal float32, 2**127 above."""
    fraction, power = math.frexp(value)
    if fraction == 0 or power + exponent <= -126:
        return np.float32(0)
    return np.float32(2.0**127 if power + exponent > 127 else math.ldexp(value, exponent))


def root_of(mean: np.float32) -> np.float32:
    """Square root of a normal float32, to 23 bits and rounded down."""
    fraction, power = math.frexp(mean)
    e = power - 24
    odd = e & 1
    root = math.isqrt(int(fraction * 2**24) << (24 - odd))
    return scaled(np.float32(root), (e - 24 + odd) // 2)
