"""How far one step goes: float32 as on the device, in the order of docs/reference/numerics.md, "Updates"."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
STEP_BITS = 30


@dataclass
class Running:
    """Mean of |g|^2 of one tensor, float32 as on the device; `seen` samples so far."""

    mean: np.float32 = field(default_factory=lambda: np.float32(0))
    seen: int = 0

    def update(self, square: np.float32) -> None:
        self.seen += 1
        self.mean = np.float32(self.mean + np.float32((square - self.mean) / np.float32(self.seen)))


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


def step_length(rate: float, samples: int, norm: np.float32, mean: np.float32) -> np.float32:
    """rate / sqrt(samples) * norm / sqrt(mean), float32 like the device; 0 below the smallest normal number."""
    if mean < 2.0**-126:
        return np.float32(0)
    per_sample = np.float32(np.float32(rate) / root_of(np.float32(samples)))
    length = np.float32(np.float32(per_sample * norm) / root_of(mean))
    return length if length >= 2.0**-126 else np.float32(0)


def step_size(rate: float, samples: int, norm: np.float32, mean: np.float32) -> tuple[int, int]:
    """The same as fraction * 2**(exponent - STEP_BITS)."""
    length = step_length(rate, samples, norm, mean)
    if length == 0:
        return 0, 0
    fraction, exponent = math.frexp(length)
    return int(fraction * 2**STEP_BITS), exponent
