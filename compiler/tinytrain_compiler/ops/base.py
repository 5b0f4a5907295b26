"""What one operator record holds, and the registry of all records.

Everything the compiler knows of an operator is in its record: integer forward pass, MACs, scratch
memory, whether it may work in place, and which C kernel computes it with which constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Node, Tensor

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Kernel:
    """The C kernel of one node.

    Nodes with equal `template` and `shape` share one C function; `arrays` and `scalars` are the
    node's own and reach the function through a parameter struct in flash.
    """

    template: str  # templates/kernels/<variant>/<template>.c.j2
    symbol: str  # C identifier without the model's prefix, says operator and shape
    params_type: str  # struct of runtime_c/tt_kernel.h
    shape: Mapping[str, int]  # constants baked into the function
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # by struct member
    scalars: Mapping[str, int] = field(default_factory=dict)  # by struct member

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.template, tuple(sorted(self.shape.items())))

    @property
    def flash_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays.values())


class Operator(ABC):
    """One operator of the quantised graph. Records are stateless; a node carries what varies."""

    name: str

    @abstractmethod
    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        """The integer arithmetic of docs/numerics.md, in NumPy: the oracle of every test."""

    @abstractmethod
    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        """The C kernel, or None where the output is the input under another shape."""

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Multiply-accumulates of one forward pass."""
        return 0

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Working memory of the kernel, live only while it runs; enough for every kernel variant."""
        return 0

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Inputs (indices) whose memory the output may take over, when nobody else reads them later."""
        return ()


_REGISTRY: dict[str, Operator] = {}


def register(operator: Operator) -> Operator:
    _REGISTRY[operator.name] = operator
    return operator


def operator_of(node: Node) -> Operator:
    return _REGISTRY[node.op]


def registered() -> Mapping[str, Operator]:
    return dict(sorted(_REGISTRY.items()))


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
