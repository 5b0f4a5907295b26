"""Product of two activations, matrix by matrix: scores and sums of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..graph import Multiplier, Node, Tensor, quantize_multiplier, requantize
from .arrays import Int8
from .base import Operator, register
from .kernel import WIDE_CODE, Kernel

Strides = tuple[int, int, int, int]
INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class MatMulAttributes:
    """y[i, j, m, n] = factor * sum over k of a[i, j, m, k] b[i, j, k, n], wherever the elements lie in memory.

    Strides are in elements, one for each index in that order; 0 where an input has one matrix for all of i or j.
    """

    batch: tuple[int, int]  # of i and j; 1 where there is none
    rows: int  # of m
    inner: int  # of k
    columns: int  # of n
    a_strides: Strides
    b_strides: Strides
    y_strides: Strides
    factor: float = 1.0  # such as the scale of attention
    low: int = -128
    high: int = 127

    def a_of(self, a: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view (i, j, m, k) of an array of the input's elements."""
        return _view(a, (*self.batch, self.rows, self.inner), self.a_strides)

    def b_of(self, b: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view (i, j, k, n)."""
        return _view(b, (*self.batch, self.inner, self.columns), self.b_strides)

    def y_of(self, y: NDArray[np.generic]) -> NDArray[np.generic]:
        """A view (i, j, m, n)."""
        return _view(y, (*self.batch, self.rows, self.columns), self.y_strides)


def _view(values: NDArray[np.generic], shape: tuple[int, ...], strides: Strides) -> NDArray[np.generic]:
    return as_strided(values, shape, tuple(stride * values.itemsize for stride in strides))


class MatMul(Operator):
    """acc = sum (a - z_a)(b - z_b), requantised with s_a s_b factor / s_y."""

    name = "matmul"
    attributes = MatMulAttributes
    clips = True

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        at: MatMulAttributes = node.attributes
        # float64 holds every sum exactly
        a, b = (
            np.ascontiguousarray(x).reshape(-1).astype(np.float64) - tensors[name].quantization.zero_point
            for x, name in zip(inputs, node.inputs, strict=True)
        )
        acc = (at.a_of(a).astype(np.float64) @ at.b_of(b).astype(np.float64)).astype(np.int64)
        m, target = _multiplier(node, tensors), tensors[node.output]
        y = np.zeros(target.bytes, np.int8)
        at.y_of(y)[...] = requantize(acc, m.values, m.shift, target.quantization.zero_point, at.low, at.high)
        return y.reshape(target.shape)

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        a: MatMulAttributes = node.attributes
        return a.batch[0] * a.batch[1] * a.rows * a.inner * a.columns

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        a: MatMulAttributes = node.attributes
        zeros = [tensors[name].quantization.zero_point for name in (*node.inputs, node.output)]
        m, bound = _multiplier(node, tensors), _accumulator_bound(a, zeros[0])
        if bound > INT32_MAX:
            raise ValueError(f"its accumulator, a sum of {a.inner:,} products, can exceed 32 bits")
        names = ("AI", "AJ", "AM", "AK", "BI", "BJ", "BK", "BN", "YI", "YJ", "YM", "YN")
        shape = {
            "I": a.batch[0], "J": a.batch[1], "M": a.rows, "K": a.inner, "N": a.columns,
            **dict(zip(names, (*a.a_strides, *a.b_strides, *a.y_strides), strict=True)),
            "SHIFT": m.shift, "FITS": int(bound <= INT32_MAX >> m.shift), "LOW": a.low, "HIGH": a.high,
        }  # fmt: skip
        wide = 0 if shape["FITS"] else WIDE_CODE
        return Kernel(
            template="matmul/forward",
            symbol=f"matmul_{a.batch[0] * a.batch[1]}x{a.rows}x{a.inner}x{a.columns}",
            params_type="tt_matmul_params",
            shape=shape,
            code={"portable": 700 + (400 if a.columns % 4 else 0) + wide},
            scalars={
                "multiplier": int(m.values[0]), "a_zero": zeros[0], "b_zero": zeros[1], "output_zero": zeros[2]
            },
        )  # fmt: skip


def _multiplier(node: Node, tensors: Mapping[str, Tensor]) -> Multiplier:
    a, b, y = (tensors[name].quantization.scale for name in (*node.inputs, node.output))
    return quantize_multiplier(np.array([a * b * node.attributes.factor / y]))


def _accumulator_bound(a: MatMulAttributes, zero: int) -> int:
    """Of every partial sum of the kernel, which adds raw bytes of b to -z_b sum (a - z_a)."""
    return a.inner * max(127 - zero, zero + 128) * 256


MATMUL = register(MatMul())
