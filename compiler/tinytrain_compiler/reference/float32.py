"""Training with float32 gradients, in NumPy: the oracle of C generated with --gradients float32.

IEEE single precision without contraction; every sum in the order that numerics.md, "Float gradients", gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..graph.gradient import Gradient
from ..ops.arrays import ordered_sum
from .float_backward import Rules
from .steps import Floats

MOVE_MAX = np.float32(2147483520)  # the largest float32 below 2**31


def from_mantissas(gradient: Gradient) -> Floats:
    """The loss hands over int16 mantissas; as floats they are exact."""
    unit = np.float32(np.ldexp(1.0, gradient.exponent))
    return gradient.mantissa.astype(np.float32) * unit


def squared_norm(gradient: Floats) -> np.float32:
    """Of each output's values in memory order, then of the outputs' sums."""
    return np.float32(ordered_sum(ordered_sum((gradient * gradient).reshape(len(gradient), -1))))


def rounded_moves(gradient: Floats, length: np.float32, inverse: Floats) -> NDArray[np.int64]:
    """gradient times length / scale, in steps of a delta: rounded half up, saturating.

    inverse: 1 / scale, broadcast against the gradient.
    """
    move = gradient * (length * inverse) + np.float32(0.5)
    move = np.where(~(move < MOVE_MAX), MOVE_MAX, np.where(~(move > -MOVE_MAX), -MOVE_MAX, move))
    return np.floor(move).astype(np.int64)


def _bias_gradient(g: Floats) -> Floats:
    return ordered_sum(g.reshape(-1, g.shape[-1]).T)


FLOAT32 = Rules(lambda rule: rule.float32, lambda rule: rule.float32, _bias_gradient)
