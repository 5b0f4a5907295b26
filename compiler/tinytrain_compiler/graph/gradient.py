"""Gradients as integers: int16 mantissas and one power-of-two exponent a tensor (numerics.md, "Gradients").

A gradient is always with respect to the *real* value of a tensor, so an addition passes it on unchanged
and no activation scale appears in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 15  # magnitude; int16 with its sign
MANTISSA_MAX = 2**MANTISSA_BITS - 1
FACTOR_BITS = 15  # fraction bits of real factors


@dataclass(frozen=True)
class Gradient:
    """dLoss/d(real tensor) = mantissa * 2**exponent; mantissa int16 in the tensor's shape."""

    mantissa: NDArray[np.int16]
    exponent: int

    @property
    def real(self) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.ldexp(self.mantissa.astype(np.float64), self.exponent)
        return values

    @property
    def magnitude(self) -> int:
        """The largest mantissa's magnitude."""
        return int(np.abs(self.mantissa.astype(np.int32)).max(initial=0))


@dataclass(frozen=True)
class Factors:
    """Real factors as integers: values * 2**(exponent - FACTOR_BITS), values int16 (n,) of magnitude <= 2**15 - 1."""

    values: NDArray[np.int16]
    exponent: int


def quantize_factors(real: NDArray[np.float64]) -> Factors:
    """Share one exponent, the smallest for which all values fit."""
    largest = float(np.max(np.abs(real)))
    exponent = int(np.frexp(largest)[1]) if largest > 0 else 0
    if np.rint(np.ldexp(largest, FACTOR_BITS - exponent)) > MANTISSA_MAX:
        exponent += 1
    return Factors(np.rint(np.ldexp(real, FACTOR_BITS - exponent)).astype(np.int16), exponent)


def shift_round(values: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """values / 2**shift, rounded half up; the only rounding rule there is. shift 0 does nothing."""
    return values if shift == 0 else (values + (1 << (shift - 1))) >> shift


def narrow(acc: NDArray[np.int64], bound: int, exponent: int) -> Gradient:
    """acc * 2**exponent as mantissas, shifted so that even |acc| = bound fits int16; beyond, it saturates.

    The bound is computed from the largest mantissa that went in and the layer's constants, so the shift is
    known before the first element is computed and no second pass is needed. What it wastes is the distance
    from the bound to the largest element; the next layer starts again from the true largest mantissa.
    """
    shift = max(0, bound.bit_length() - MANTISSA_BITS)
    mantissa = np.clip(shift_round(acc, shift), -MANTISSA_MAX, MANTISSA_MAX)
    return Gradient(mantissa.astype(np.int16), exponent + shift)


def add_gradients(a: Gradient, b: Gradient) -> Gradient:
    """The sum of two gradients of one tensor that several operators read.

    At the larger exponent; one bit is given up only where the magnitudes say that the sum may need it.
    """
    exponent = max(a.exponent, b.exponent)
    if sum((g.magnitude >> min(exponent - g.exponent, 31)) + 1 for g in (a, b)) > MANTISSA_MAX:
        exponent += 1
    x, y = (shift_round(g.mantissa.astype(np.int64), min(exponent - g.exponent, 31)) for g in (a, b))
    mantissa = np.clip(x + y, -MANTISSA_MAX, MANTISSA_MAX)  # 32767 / 2 rounds up, twice
    return Gradient(mantissa.astype(np.int16), exponent)


def quantize_gradient(real: NDArray[np.float64]) -> Gradient:
    """Float gradients, such as the loss's, as mantissas that use all bits."""
    largest = float(np.abs(real).max(initial=0.0))
    if largest == 0.0:
        return Gradient(np.zeros(real.shape, np.int16), 0)
    exponent = int(np.frexp(largest)[1]) - MANTISSA_BITS
    mantissa = np.clip(np.rint(np.ldexp(real, -exponent)), -MANTISSA_MAX, MANTISSA_MAX)
    return Gradient(mantissa.astype(np.int16), exponent)
