"""Elements of a tensor in another order, some of them several times, some not at all: an index list an axis.

Slices, splits, gathers of constant indices, padding and resizing to nearest neighbours are all this operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import Gradient, narrow
from .arrays import Floats, Int8
from .backward import Backward
from .base import Operator, register
from .kernel import Kernel

FILL = -1  # an index that reads the fill byte
Indices = tuple[int, ...]


@dataclass(frozen=True)
class TakeAttributes:
    """y[i, j, ...] = x[indices[0][i], indices[1][j], ...]."""

    indices: tuple[Indices, ...]  # by axis; an empty list is the whole axis as it is
    fill: int = 0  # the byte that FILL reads


@dataclass(frozen=True)
class Axis:
    """One loop of the kernels: axes that are taken whole are merged with their neighbours."""

    size: int  # of the input
    indices: Indices  # empty: whole

    @property
    def count(self) -> int:
        return len(self.indices) or self.size

    @property
    def listed(self) -> Indices:
        return self.indices or tuple(range(self.size))

    @property
    def filled(self) -> bool:
        return FILL in self.indices

    @property
    def is_range(self) -> bool:
        """Neighbours in ascending order, so that one copy takes them all."""
        return not self.filled and all(b - a == 1 for a, b in zip(self.indices, self.indices[1:], strict=False))

    @property
    def is_even(self) -> bool:
        """Equal steps, so that no table is needed."""
        return not self.filled and len(set(np.diff(self.listed).tolist())) <= 1


def merged_axes(shape: tuple[int, ...], indices: Sequence[Indices]) -> list[Axis]:
    """The same elements in fewer axes, at least one: neighbours that are taken whole become one."""
    axes = [Axis(1, ())]
    for size, listed in zip(shape, indices, strict=True):
        whole = not listed or listed == tuple(range(size))
        last = axes[-1]
        if last.size == 1 and not last.indices:
            axes[-1] = Axis(size, () if whole else listed)
        elif whole and not last.indices:
            axes[-1] = Axis(last.size * size, ())
        elif size > 1 or not whole:
            axes.append(Axis(size, () if whole else listed))
    return axes


def _merged(node: Node, tensors: Mapping[str, Tensor]) -> list[Axis]:
    return merged_axes(tensors[node.inputs[0]].shape, node.attributes.indices)


def _overlap(axes: Sequence[Axis]) -> int:
    """How many outputs the most wanted input goes to."""
    return prod(int(np.bincount(kept).max()) if len(kept := [i for i in axis.listed if i != FILL]) else 1
                for axis in axes)  # fmt: skip


class TakeBackward(Backward):
    """An element gets the sum of the gradients of all its copies."""

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        sums = self._sums(node, tensors, gradient.mantissa.astype(np.int64))
        return (narrow(sums, gradient.magnitude * _overlap(_merged(node, tensors)), gradient.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """In float32 too the sum is that of the copies in memory order, first to last."""
        return (self._sums(node, tensors, g),)

    @staticmethod
    def _sums(node: Node, tensors: Mapping[str, Tensor], g: NDArray[Any]) -> NDArray[Any]:
        shape = tensors[node.inputs[0]].shape
        listed = [
            np.array(some) if some else np.arange(size)
            for size, some in zip(shape, node.attributes.indices, strict=True)
        ]
        sums = np.zeros([size + 1 for size in shape], g.dtype)  # what FILL reads lies behind the last
        np.add.at(sums, np.ix_(*listed), g)
        return sums[tuple(slice(size) for size in shape)]

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        axes = _merged(node, tensors)
        loops = [_readers(number, axis) for number, axis in enumerate(axes)]
        strides = _strides([axis.count for axis in axes])
        tables = sum(len(loop["first"]) + len(loop["readers"]) for loop in loops)
        return Kernel(
            template="take/input_gradient",
            symbol=f"{_symbol(axes)}_input_gradient",
            params_type="tt_no_params",
            shape={"N": tensors[node.output].bytes, "OVERLAP": _overlap(axes)},
            code={"portable": 260 + 90 * len(axes) + 4 * tables},
            inline={
                "loops": loops,
                "guards": sum(loop["kind"] != "whole" for loop in loops),
                "at": " + ".join(f"{loop['at']} * {stride}" for loop, stride in zip(loops, strides, strict=True)),
            },
        )


def _readers(number: int, axis: Axis) -> dict[str, Any]:
    """Which outputs read index i of an axis: all of them one, a range one, or readers[first[i]] to [first[i + 1]]."""
    found = {"number": number, "size": axis.size, "type": _type(len(axis.indices)), "first": [], "readers": []}
    if not axis.indices:
        return found | {"kind": "whole", "at": f"i{number}"}
    if axis.is_range:
        first, last = axis.indices[0], axis.indices[-1]
        return found | {"kind": "range", "from": first, "to": last, "at": f"(i{number} - {first})"}
    by_input: list[list[int]] = [[] for _ in range(axis.size)]
    for output, index in enumerate(axis.indices):
        if index != FILL:
            by_input[index].append(output)
    return found | {
        "kind": "list",
        "at": f"readers{number}[k{number}]",
        "first": np.cumsum([0, *map(len, by_input)]).tolist(),
        "readers": [output for some in by_input for output in some] or [0],  # C has no array of none
    }


def _type(largest: int) -> str:
    """Of a table of indices."""
    return "int16_t" if largest < 2**15 else "int32_t"


def _strides(counts: Sequence[int]) -> list[int]:
    """Elements from one index of each axis to the next."""
    return [prod(counts[i + 1 :]) for i in range(len(counts))]


def _symbol(axes: Sequence[Axis]) -> str:
    return "take_" + "x".join(f"{axis.count}of{axis.size}" if axis.indices else str(axis.size) for axis in axes)


class Take(Operator):
    name = "take"
    attributes = TakeAttributes
    keeps_scale = True
    backward = TakeBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        (y,) = inputs
        for axis, listed in enumerate(node.attributes.indices):
            if listed:
                index = np.array(listed)
                y = np.take(y, np.maximum(index, 0), axis)
                y = np.moveaxis(y, axis, 0)
                y = y.copy()
                y[index == FILL] = node.attributes.fill
                y = np.moveaxis(y, 0, axis)
        return np.ascontiguousarray(y)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        axes = _merged(node, tensors)
        strides, rests = _strides([axis.size for axis in axes]), _strides([axis.count for axis in axes])
        copied, start, run = _copied(axes)
        loops = [_loop(*each) for each in zip(range(len(axes)), axes, strides, rests, strict=True)]
        loops = loops[: len(axes) - copied]
        return Kernel(
            template="take/forward",
            symbol=_symbol(axes),
            params_type="tt_no_params",
            shape={},
            code={"portable": 120 + 100 * len(axes) + 4 * sum(len(loop["table"]) for loop in loops)},
            inline={
                "loops": loops,
                "source": f"x{len(loops) - 1}" if loops else "x",
                "start": start,
                "run": run,
                "fill": node.attributes.fill,
            },
        )


def _copied(axes: Sequence[Axis]) -> tuple[int, int, int]:
    """How many of the last axes one copy takes, from which element on, and how many elements."""
    copied, start, run = 0, 0, 1
    for axis in reversed(axes):
        if not axis.is_range:
            break
        copied, start, run = copied + 1, start + axis.listed[0] * run, axis.count * run
        if axis.indices:  # its next row does not follow it
            break
    return copied, start, run


def _loop(number: int, axis: Axis, stride: int, rest: int) -> dict[str, Any]:
    """What the template prints of an axis. rest: output elements of one index."""
    first = axis.listed[0]
    return {
        "number": number, "count": axis.count, "stride": stride, "rest": rest, "filled": axis.filled, "start": first,
        "step": axis.listed[1] - first if axis.count > 1 else 0, "type": _type(axis.size),
        "table": [] if axis.is_even else list(axis.indices), "source": f"x{number - 1}" if number else "x",
    }  # fmt: skip


TAKE = register(Take())
