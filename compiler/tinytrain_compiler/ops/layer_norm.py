"""Layer normalisation: rows of neighbouring elements with mean 0 and variance 1, then a scale and a shift each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from .arrays import Int8
from .base import Operator, register
from .kernel import Kernel

NORMAL_BITS = 20  # fraction bits of a normalised value
ROOT_BITS = 60  # a variance is brought to 2^60 .. 2^62 before its root is taken
SHIFT_BITS = 20  # fraction bits of the shifts, at most
MAX_ELEMENTS = 2**15  # of a row


@dataclass(frozen=True)
class LayerNormAttributes:
    """constants: scale float (n,), shift float (n,), in the order in which a row's elements lie in memory."""

    epsilon: float
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class LayerNormConstants:
    """docs/reference/numerics.md, "layer_norm"."""

    epsilon: int  # epsilon n^2 / s_x^2, with `fraction` bits
    fraction: int  # of the variance; even
    multipliers: NDArray[np.int32]  # scale / s_y, with shift - NORMAL_BITS fraction bits
    shifts: NDArray[np.int32]  # shift / s_y + z_y + 1/2, with shift - raised fraction bits
    raised: int
    shift: int


def layer_norm_constants(node: Node, tensors: Mapping[str, Tensor]) -> LayerNormConstants:
    """Errors: ValueError where scales are so far apart that 64 bits do not hold what is between them."""
    x, y = (tensors[name].quantization for name in (node.inputs[0], node.output))
    n = len(node.constants["scale"])
    if n > MAX_ELEMENTS:
        raise ValueError(f"it normalises {n:,} elements at once, at most {MAX_ELEMENTS:,} can be")
    epsilon, largest = node.attributes.epsilon * n**2 / x.scale**2, n**2 * 2**14
    fraction = next((f for f in range(16, -2, -2) if (largest + epsilon + 1) * 2**f < 2.0**62), None)
    scales, shifts = node.constants["scale"] / y.scale, node.constants["shift"] / y.scale + y.zero_point + 0.5
    # Sums of a product below 2^59 and a shift below 2^61 fit 64 bits, and shifted back 32.
    factor_bits = min(_bits(scales, 30), 40 - int(np.ceil(np.log2(np.abs(shifts).max() + 1))))
    if fraction is None or factor_bits < 12:
        raise ValueError("its epsilon, scale or shift is out of proportion to the scales of its input and output")
    shift_bits = _bits(shifts, SHIFT_BITS)
    return LayerNormConstants(
        round(epsilon * 2**fraction),
        fraction,
        np.rint(scales * 2.0**factor_bits).astype(np.int32),
        np.rint(shifts * 2.0**shift_bits).astype(np.int32),
        NORMAL_BITS + factor_bits - shift_bits,
        NORMAL_BITS + factor_bits,
    )


def _bits(values: NDArray[np.float64], most: int) -> int:
    """Fraction bits, at most so many, with which all values fit int32; -1 where none do."""
    largest = float(np.abs(values).max())
    return next((bits for bits in range(most, -1, -1) if largest * 2.0**bits < 2**31 - 1), -1)


class LayerNorm(Operator):
    name = "layer_norm"
    attributes = LayerNormAttributes
    clips = True

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        c, a = layer_norm_constants(node, tensors), node.attributes
        rows = inputs[0].reshape(-1, len(c.multipliers)).astype(np.int64)
        normal = np.stack([_normalized(row, c) for row in rows])
        shifts = c.shifts.astype(np.int64) << c.raised
        y = (normal * c.multipliers.astype(np.int64) + shifts) >> c.shift
        clamped: Int8 = np.clip(y, a.low, a.high).astype(np.int8).reshape(inputs[0].shape)
        return clamped

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        c, a = layer_norm_constants(node, tensors), node.attributes
        rows, n = tensors[node.output].bytes // len(c.multipliers), len(c.multipliers)
        return Kernel(
            template="layer_norm/forward",
            symbol=f"layer_norm_{rows}x{n}",
            params_type="tt_layer_norm_params",
            shape={
                "ROWS": rows, "C": n, "NORMAL_BITS": NORMAL_BITS, "ROOT_BITS": ROOT_BITS, "LOW": a.low, "HIGH": a.high,
            },
            code={"portable": 1100},
            arrays={"multipliers": c.multipliers, "shifts": c.shifts},
            scalars={"epsilon": c.epsilon, "fraction": c.fraction, "raised": c.raised, "shift": c.shift},
        )  # fmt: skip


def _normalized(row: NDArray[np.int64], c: LayerNormConstants) -> NDArray[np.int64]:
    """(n,), with NORMAL_BITS fraction bits."""
    n, total = len(row), int(row.sum())
    variance = max(((n * int((row * row).sum()) - total * total) << c.fraction) + c.epsilon, 1)
    raised = 0
    while variance < 1 << ROOT_BITS:
        variance, raised = variance << 2, raised + 1
    inverse = (1 << ROOT_BITS) // isqrt(variance)
    drop = ROOT_BITS - raised - c.fraction // 2 - NORMAL_BITS
    found: NDArray[np.int64] = ((n * row - total) * inverse + (1 << (drop - 1))) >> drop
    return found


LAYER_NORM = register(LayerNorm())
