"""The same values in another order: memory read as an array, with its axes permuted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .arrays import Floats, Int8
from .backward import Backward
from .base import Operator, register
from .kernel import Kernel


@dataclass(frozen=True)
class TransposeAttributes:
    """The input's memory as an array of these sizes; the output's axis i is its axis perm[i]. Of the tensors' shapes
    only the number of elements counts."""

    sizes: tuple[int, ...]
    perm: tuple[int, ...]

    @property
    def inverse(self) -> TransposeAttributes:
        sizes = tuple(self.sizes[axis] for axis in self.perm)
        return TransposeAttributes(sizes, tuple(self.perm.index(axis) for axis in range(len(self.perm))))

    def apply(self, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        return np.ascontiguousarray(values.reshape(self.sizes).transpose(self.perm)).reshape(shape)

    def kernel(self, template: str, symbol: str, code: int) -> Kernel:
        """Loops over the output's axes, each with its step in the input; a whole innermost axis is copied at once."""
        last = len(self.sizes) - 1
        steps = [prod(self.sizes[axis + 1 :]) for axis in self.perm]
        loops = {f"N{i}": self.sizes[axis] for i, axis in enumerate(self.perm)}
        return Kernel(
            template=f"transpose/{template}",
            symbol=f"transpose_{'x'.join(map(str, self.sizes))}_to_{''.join(map(str, self.perm))}{symbol}",
            params_type="tt_no_params",
            shape=loops | {f"S{i}": step for i, step in enumerate(steps)},
            code={"portable": code},
            inline={"last": last, "copies": self.perm[last] == last},
        )


class TransposeBackward(Backward):
    """The gradient in the input's order: no arithmetic."""

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        return (Gradient(self._back(node, tensors, gradient.mantissa), gradient.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return (self._back(node, tensors, g),)

    @staticmethod
    def _back(node: Node, tensors: Mapping[str, Tensor], values: NDArray[Any]) -> NDArray[Any]:
        attributes: TransposeAttributes = node.attributes
        return attributes.inverse.apply(values, tensors[node.inputs[0]].shape)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        attributes: TransposeAttributes = node.attributes
        return attributes.inverse.kernel("input_gradient", "_input_gradient", 340)


class Transpose(Operator):
    name = "transpose"
    attributes = TransposeAttributes
    keeps_scale = True
    backward = TransposeBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        attributes: TransposeAttributes = node.attributes
        return attributes.apply(inputs[0], tensors[node.output].shape)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        attributes: TransposeAttributes = node.attributes
        return attributes.kernel("forward", "", 340)


TRANSPOSE = register(Transpose())
