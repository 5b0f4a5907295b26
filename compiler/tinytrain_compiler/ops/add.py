"""Element-wise sum of two activations with scales of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import Node, Quantization, Tensor
from .arrays import Int8
from .backward import PassOn
from .base import Operator, register
from .kernel import Kernel

MAX_SHIFT = 24


@dataclass(frozen=True)
class AddAttributes:
    low: int = -128
    high: int = 127


@dataclass(frozen=True)
class AddConstants:
    """y = (a * multiplier_a + b * multiplier_b + offset) >> shift: one rounding for both inputs."""

    multiplier_a: int
    multiplier_b: int
    offset: int
    shift: int


def add_constants(node: Node, tensors: Mapping[str, Tensor]) -> AddConstants:
    """Those of a sum of two activations."""
    a, b = (tensors[name].quantization for name in node.inputs)
    return sum_constants((a, b), (1, 1), tensors[node.output].quantization)


def sum_constants(inputs: tuple[Quantization, Quantization], signs: tuple[int, int], y: Quantization) -> AddConstants:
    """The largest shift for which no int8 inputs can make the sum leave int32. signs: 1, or -1 for what is subtracted.

    Raises ValueError where there is none.
    """
    a, b = inputs
    for shift in range(MAX_SHIFT, 0, -1):
        ma, mb = (sign * round(q.scale / y.scale * 2**shift) for q, sign in zip(inputs, signs, strict=True))
        offset = (y.zero_point << shift) + (1 << (shift - 1)) - a.zero_point * ma - b.zero_point * mb
        if 128 * (abs(ma) + abs(mb)) + abs(offset) < 2**31:
            return AddConstants(ma, mb, offset, shift)
    raise ValueError("its inputs' scales are out of proportion to its output's")


class Add(Operator):
    name = "add"
    attributes = AddAttributes
    clips = True
    keeps_order = True
    backward = PassOn()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        c = add_constants(node, tensors)
        a, b = (x.astype(np.int64) for x in inputs)
        y = (a * c.multiplier_a + b * c.multiplier_b + c.offset) >> c.shift
        clamped: Int8 = np.clip(y, node.attributes.low, node.attributes.high).astype(np.int8)
        return clamped

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0, 1)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        c = add_constants(node, tensors)
        n = tensors[node.output].bytes
        return Kernel(
            template="add/forward",
            symbol=f"add_{n}_q{c.shift}",
            params_type="tt_add_params",
            shape={"N": n, "SHIFT": c.shift, "LOW": node.attributes.low, "HIGH": node.attributes.high},
            code={"portable": 200, "dsp": 320},
            scalars={"multiplier_a": c.multiplier_a, "multiplier_b": c.multiplier_b, "offset": c.offset},
        )


ADD = register(Add())
