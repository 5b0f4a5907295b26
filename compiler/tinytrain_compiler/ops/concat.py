"""Tensors one behind the other along an axis, each brought to the output's scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .arrays import Floats, Int8
from .backward import Backward
from .base import Operator, register
from .kernel import Kernel, input_names
from .rescale import rescale_table

WHOLE = (-128, 127)


@dataclass(frozen=True)
class ConcatAttributes:
    """axis: of the tensors in memory, whose other axes are equal."""

    axis: int
    low: int = WHOLE[0]
    high: int = WHOLE[1]


@dataclass(frozen=True)
class Part:
    """One input's place: in each of the output's `rows` of `stride` elements, `run` from `start` on."""

    rows: int
    run: int
    start: int
    stride: int


def parts(node: Node, tensors: Mapping[str, Tensor]) -> list[Part]:
    """By input."""
    axis = node.attributes.axis
    runs = [prod(tensors[name].shape[axis:]) for name in node.inputs]
    starts = np.cumsum([0, *runs]).tolist()
    rows = prod(tensors[node.output].shape[:axis])
    return [Part(rows, run, start, starts[-1]) for run, start in zip(runs, starts, strict=False)]


class ConcatBackward(Backward):
    """Each input gets its part of the gradient."""

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        return tuple(Gradient(part, gradient.exponent) for part in self._split(node, tensors, gradient.mantissa))

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return tuple(self._split(node, tensors, g))

    @staticmethod
    def _split(node: Node, tensors: Mapping[str, Tensor], g: Floats) -> list[Floats]:
        axis = node.attributes.axis
        ends = np.cumsum([tensors[name].shape[axis] for name in node.inputs])
        return np.split(g, ends[:-1], axis)

    def kernels(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> tuple[Kernel | None, ...]:
        return tuple(
            Kernel(
                template="concat/input_gradient",
                symbol=f"concat_{part.rows}x{part.run}_of_{part.stride}_input_gradient",
                params_type="tt_no_params",
                shape={"ROWS": part.rows, "RUN": part.run, "START": part.start, "STRIDE": part.stride},
                code={"portable": 120},
            )
            for part in parts(node, tensors)
        )


class Concat(Operator):
    name = "concat"
    attributes = ConcatAttributes
    clips = True
    backward = ConcatBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        tables = self._tables(node, tensors)
        scaled = [x if table is None else table[x.view(np.uint8)] for x, table in zip(inputs, tables, strict=True)]
        return np.concatenate(scaled, node.attributes.axis)

    @staticmethod
    def _tables(node: Node, tensors: Mapping[str, Tensor]) -> list[NDArray[np.int8] | None]:
        """By input; None where its bytes are copied."""
        a: ConcatAttributes = node.attributes
        y = tensors[node.output].quantization
        found = [tensors[name].quantization for name in node.inputs]
        copied = (a.low, a.high) == WHOLE
        return [None if copied and x == y else rescale_table(x, y, a.low, a.high) for x in found]

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        placed, tables = parts(node, tensors), self._tables(node, tensors)
        shared = {table.tobytes(): table for table in tables if table is not None}
        number = {key: i for i, key in enumerate(shared)}
        numbers = [None if table is None else number[table.tobytes()] for table in tables]
        return Kernel(
            template="concat/forward",
            symbol=f"concat_{placed[0].rows}x" + "_".join(str(part.run) for part in placed),
            params_type="tt_concat_params" if shared else "tt_no_params",
            shape={"ROWS": placed[0].rows, "STRIDE": placed[0].stride},
            code={"portable": 60 + 100 * len(placed)},
            arrays={"tables": np.concatenate(list(shared.values()))} if shared else {},
            inline={
                "parts": [
                    (name, part.start, part.run, which)
                    for name, part, which in zip(input_names(len(placed)), placed, numbers, strict=True)
                ]
            },
        )


CONCAT = register(Concat())
