"""Scales, fixed-point multipliers and the one rounding rule (docs/reference/numerics.md, "Requantisation")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INT8_MIN, INT8_MAX = -128, 127
MULTIPLIER_BITS = 32  # a multiplier is a fraction of 2**(32 - shift)
MAX_SHIFT = 30


@dataclass(frozen=True)
class Quantization:
    """real = scale * (integer - zero_point); int8, one scale for a whole activation tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Multiplier:
    """Real factors as integers: factor[i] ~ values[i] / 2**(32 - shift).

    values: int32 (n,), 0 <= values < 2**31; shift: one for the whole layer, 0 unless a factor is 0.5 or more.
    """

    values: NDArray[np.int32]
    shift: int


def quantize_multiplier(factors: NDArray[np.float64]) -> Multiplier:
    """Round real factors (n,) >= 0 to fixed point with the smallest shift that keeps all below 2**31."""
    factors = np.atleast_1d(np.asarray(factors, dtype=np.float64))
    if not np.all(np.isfinite(factors)) or np.any(factors < 0):
        raise ValueError("requantisation factors must be finite and non-negative")
    shift = 0
    while np.any(np.rint(factors * 2.0 ** (MULTIPLIER_BITS - shift)) >= 2.0**31):
        shift += 1
        if shift > MAX_SHIFT:
            raise ValueError(f"a requantisation factor of {factors.max():.3g} is out of range")
    return Multiplier(np.rint(factors * 2.0 ** (MULTIPLIER_BITS - shift)).astype(np.int32), shift)


def requantize(
    acc: NDArray[np.int64], multiplier: NDArray[np.int32], shift: int, zero_point: int, low: int, high: int
) -> NDArray[np.int8]:
    """clamp(zero_point + floor((acc * multiplier + 2**(31 - shift)) / 2**(32 - shift)), low, high).

    acc: int64 holding values of int32 range; multiplier broadcasts against it. Rounds half up.
    """
    scaled = (acc * multiplier.astype(np.int64) + (1 << (31 - shift))) >> (32 - shift)
    y: NDArray[np.int8] = np.clip(scaled + zero_point, low, high).astype(np.int8)
    return y
