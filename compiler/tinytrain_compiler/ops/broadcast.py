"""Operators of two operands that broadcast: their loops, constants in place of an operand, gradients of either.

Shapes are aligned at their last axes; an operand's axis of size 1 is read again along the output's. Axes that all
operands walk alike are one loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Quantization, Tensor
from ..graph.gradient import FACTOR_BITS, MANTISSA_MAX, Gradient, narrow, quantize_factors, shift_round
from .arrays import Floats, Int8, ordered_sum
from .backward import Backward, headroom
from .base import Operator
from .kernel import Kernel

VARIABLES = "ijklmn"  # of the loops in C, outermost first


@dataclass(frozen=True)
class BroadcastAttributes:
    """Clip limits of the output, in steps; scale and zero point of a constant operand (`operand` among the node's
    constants, int8), which stands behind the one input."""

    low: int = -128
    high: int = 127
    operand_scale: float = 1.0
    operand_zero: int = 0


@dataclass(frozen=True)
class Loop:
    """So many rounds, in each of which every array moves on by its own stride, in elements."""

    size: int
    strides: tuple[int, ...]


def loops_of(output: tuple[int, ...], *operands: tuple[int, ...]) -> list[Loop]:
    """The loops over an output (first stride) and arrays that broadcast to it, outermost first; none of size 1."""
    arrays = [_strides(output, shape) for shape in (output, *operands)]
    loops: list[Loop] = []
    for axis, size in enumerate(output):
        inner = Loop(size, tuple(strides[axis] for strides in arrays))
        if size == 1:
            continue
        if loops and loops[-1].strides == tuple(size * stride for stride in inner.strides):
            loops[-1] = Loop(loops[-1].size * size, inner.strides)
        else:
            loops.append(inner)
    return loops


def _strides(output: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """Of an array along the output's axes; 0 where it is read again."""
    padded = (1,) * (len(output) - len(shape)) + shape
    return [prod(padded[axis + 1 :]) if padded[axis] > 1 else 0 for axis in range(len(output))]


def index(loops: Sequence[Loop], which: int, variables: Sequence[str]) -> str:
    """C: where one of the arrays stands inside the loops."""
    terms = [(v, loop.strides[which]) for v, loop in zip(variables, loops, strict=True) if loop.strides[which]]
    return " + ".join(v if stride == 1 else f"{v} * {stride}" for v, stride in terms) or "0"


def text_of(loops: Sequence[Loop], variables: Sequence[str]) -> list[dict[str, Any]]:
    """The loops for a template."""
    return [{"variable": v, "size": loop.size} for v, loop in zip(variables, loops, strict=True)]


class Broadcast(Operator):
    """What `mul` and `broadcast_add` share."""

    attributes = BroadcastAttributes
    clips = True

    @staticmethod
    def quantizations(node: Node, tensors: Mapping[str, Tensor]) -> tuple[Quantization, Quantization]:
        """Of both operands."""
        first = tensors[node.inputs[0]].quantization
        if "operand" in node.constants:
            return first, Quantization(node.attributes.operand_scale, node.attributes.operand_zero)
        return first, tensors[node.inputs[1]].quantization

    @staticmethod
    def shapes(node: Node, tensors: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Likewise."""
        second = node.constants["operand"].shape if "operand" in node.constants else tensors[node.inputs[1]].shape
        return tensors[node.inputs[0]].shape, second

    @staticmethod
    def operands(node: Node, inputs: Sequence[Int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        second = node.constants["operand"] if "operand" in node.constants else inputs[1]
        return inputs[0].astype(np.int64), second.astype(np.int64)

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        size = tensors[node.output].bytes
        return tuple(i for i, name in enumerate(node.inputs) if tensors[name].bytes == size)

    def loop_nest(self, node: Node, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """For a template: the loops, and where output and operands stand in them."""
        loops = loops_of(tensors[node.output].shape, *self.shapes(node, tensors))
        names = VARIABLES[: len(loops)]
        places = {name: index(loops, i, names) for i, name in enumerate(("at_y", "at_a", "at_b"))}
        return {"loops": text_of(loops, names), "has_operand": "operand" in node.constants, **places}

    def label(self, node: Node, tensors: Mapping[str, Tensor]) -> str:
        """Part of a kernel's symbol: the shapes of both operands."""
        return "_by_".join("x".join(map(str, shape)) for shape in self.shapes(node, tensors))

    @abstractmethod
    def sign(self, node: Node, which: int) -> int:
        """1 or -1: how operand `which` enters a sum."""


class BroadcastBackward(Backward):
    """The gradient of either operand: that of the output, times the other operand (of a product), summed over the
    axes along which this one was read again."""

    in_place = True

    def __init__(self, operator: Broadcast, product: bool) -> None:
        self._operator, self._product = operator, product
        self.needs_inputs = product

    # -- rules -----------------------------------------------------------------------------------

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        return tuple(self._int16(node, tensors, inputs, gradient, which) for which in range(len(node.inputs)))

    def _int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient, which: int
    ) -> Gradient:
        terms = gradient.mantissa.astype(np.int64) * self._operator.sign(node, which)
        shape, count = self._operator.shapes(node, tensors)[which], self._count(node, tensors, which)
        if not self._product:
            sums = _reduced(terms, shape).sum(-1).reshape(shape)
            return narrow(sums, gradient.magnitude * count, gradient.exponent)
        other = self._operator.quantizations(node, tensors)[1 - which]
        values = self._operator.operands(node, inputs)[1 - which] - other.zero_point
        reach, factor = int(np.abs(values).max()), quantize_factors(np.array([other.scale]))
        terms = terms * values
        sums = _reduced(terms, shape).sum(-1).reshape(shape)
        drop = headroom(gradient.magnitude * reach * count)
        scaled = shift_round(sums * int(factor.values[0]), FACTOR_BITS + drop)
        mantissa = np.clip(scaled, -MANTISSA_MAX, MANTISSA_MAX).astype(np.int16)
        return Gradient(mantissa, gradient.exponent + factor.exponent + drop)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return tuple(
            _reduced(self._terms(node, tensors, inputs, g, which), shape).sum(-1).reshape(shape)
            for which, shape in enumerate(self._operator.shapes(node, tensors)[: len(node.inputs)])
        )

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """Sums in the output's memory order."""
        found = []
        for which, shape in enumerate(self._operator.shapes(node, tensors)[: len(node.inputs)]):
            terms = _reduced(self._terms(node, tensors, inputs, g, which), shape)
            alone = self._count(node, tensors, which) == 1
            found.append((terms[..., 0] if alone else ordered_sum(terms) + np.float32(0)).reshape(shape))
        return tuple(found)

    def _terms(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats, which: int
    ) -> Floats:
        """What is summed, in the output's shape and the gradient's type."""
        if not self._product:
            return g if self._operator.sign(node, which) > 0 else -g
        other = self._operator.quantizations(node, tensors)[1 - which]
        values = self._operator.operands(node, inputs)[1 - which] - other.zero_point
        found: Floats = g * (values.astype(g.dtype) * g.dtype.type(other.scale))
        return found

    # -- C ---------------------------------------------------------------------------------------

    def values(self, node: Node, which: int) -> Mapping[str, int]:
        return {"other": 1 - which} if self._product and len(node.inputs) == 2 else {}

    def kernels(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> tuple[Kernel | None, ...]:
        return tuple(self._kernel(node, tensors, which) for which in range(len(node.inputs)))

    def _kernel(self, node: Node, tensors: Mapping[str, Tensor], which: int) -> Kernel | None:
        sign, count = self._operator.sign(node, which), self._count(node, tensors, which)
        twice = len(set(node.inputs)) < len(node.inputs)
        if not self._product and sign > 0 and count == 1 and not twice:
            return None
        shapes, output = self._operator.shapes(node, tensors), tensors[node.output]
        loops = loops_of(output.shape, shapes[which], shapes[1 - which])
        outer, inner = ([loop for loop in loops if bool(loop.strides[1]) == kept] for kept in (True, False))
        names = VARIABLES[: len(loops)]
        places = {name: index(outer + inner, i, names) for i, name in enumerate(("at_g", "at_dx", "at_other"))}
        texts = text_of(outer + inner, names)
        nest = {"outer": texts[: len(outer)], "inner": texts[len(outer) :], **places}
        extra: dict[str, Any] = {}
        shape = {"N": output.bytes, "COUNT": count}
        if self._product:
            other = self._operator.quantizations(node, tensors)[1 - which]
            factor = quantize_factors(np.array([other.scale]))
            shape |= {"ZERO": other.zero_point, "FACTOR": int(factor.values[0]), "EXPONENT": factor.exponent}
            shape["OTHERS"] = prod(shapes[1 - which])
            extra["scale"] = other.scale
            extra["other"] = "operand" if "operand" in node.constants else "other"
        return Kernel(
            template=f"{self._operator.name}/input_gradient",
            symbol=f"{self._operator.name}_{self._operator.label(node, tensors)}_gradient_{'ab'[which]}",
            params_type="tt_no_params",
            shape=shape,
            code={"portable": 700},
            inline={**nest, **extra, "sign": "-" if sign < 0 else ""},
        )

    # -- bounds ----------------------------------------------------------------------------------

    def _count(self, node: Node, tensors: Mapping[str, Tensor], which: int) -> int:
        """How many elements of the output read one of the operand."""
        return tensors[node.output].bytes // prod(self._operator.shapes(node, tensors)[which])


def _reduced(terms: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Terms in an output's shape -> (elements of the operand, terms of each), both in memory order."""
    padded = (1,) * (terms.ndim - len(shape)) + shape
    kept = [axis for axis in range(terms.ndim) if padded[axis] > 1]
    summed = [axis for axis in range(terms.ndim) if padded[axis] == 1]
    return terms.transpose(*kept, *summed).reshape(prod(shape), -1)
