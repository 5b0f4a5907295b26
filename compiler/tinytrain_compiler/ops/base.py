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

from ..errors import EXIT_UNSUPPORTED, TinyTrainError
from ..graph import Node, Tensor
from ..graph.gradient import Gradient
from .weight_layout import WeightLayout

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Kernel:
    """The C kernel of one node.

    Nodes with equal `template` and `shape` share one C function; `arrays` and `scalars` are the
    node's own and reach the function through a parameter struct in flash.
    """

    template: str  # templates/kernels/<template>.<variant>.c.j2
    symbol: str  # C identifier without the model's prefix, says operator and shape
    params_type: str  # struct of runtime_c/tt_kernel.h
    shape: Mapping[str, int]  # constants baked into the function
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # by struct member
    scalars: Mapping[str, int] = field(default_factory=dict)  # by struct member
    inline: Mapping[str, Any] = field(default_factory=dict)  # small tables that the template writes out

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.template, tuple(sorted(self.shape.items())))

    @property
    def flash_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays.values())


@dataclass(frozen=True)
class ParameterGradient:
    """dLoss/dparameter in real units = values * 2**exponent * scale; values hold int32 accumulators."""

    values: NDArray[np.int64]
    exponent: int
    scale: float  # s_x for weights, 1 for biases
    bound: int  # no |value| exceeds it; known before the first value is computed

    @property
    def real(self) -> NDArray[np.float64]:
        real: NDArray[np.float64] = np.ldexp(self.values.astype(np.float64), self.exponent) * self.scale
        return real


class Operator(ABC):
    """One operator of the quantised graph. Records are stateless; a node carries what varies."""

    name: str
    renames = False  # whether the output is the input under another shape: no code, no memory

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

    def input_gradients(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """One gradient per input, given the output's with clipped elements already zeroed.

        inputs: the forward pass's; only operators that say so (`needs_inputs`) may look at them.
        """
        raise NoBackwardRuleError(f"{node.name}: {self.name} has no backward rule")

    def gradient_kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        """The C kernel of input_gradients; None where it is a copy (add) or the same bytes (reshape).

        trained: the layer's weights may grow, see ops/backward.py.
        """
        raise NoBackwardRuleError(f"{node.name}: {self.name} has no backward rule")

    def saved_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """What gradient_kernel needs of the forward pass, besides the clip mask; 0: nothing."""
        return 0

    def saving_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        """The C kernel that writes it, right behind the forward one; input and output are both still there."""
        return None

    def gradient_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Working memory of gradient_kernel, enough for every variant; 0: it takes none."""
        return 0

    def learning_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        """The C kernel of weight_gradient and the update that follows it."""
        raise NoBackwardRuleError(f"{node.name}: {self.name} cannot learn its weights")

    def weight_layout(self, node: Node) -> WeightLayout:
        """Which weights belong to an input channel, and where the kernel's constants hold them."""
        raise NoBackwardRuleError(f"{node.name}: {self.name} cannot learn its weights")

    def learning_scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor], chosen: int) -> int:
        """Working memory of learning_kernel for this many input channels; 0: it takes none."""
        return 0

    def weight_gradient(
        self, node: Node, tensors: Mapping[str, Tensor], x: Int8, gradient: Gradient, channels: NDArray[np.intp]
    ) -> ParameterGradient:
        """dLoss/dW for the selected input channels (outputs of a group, KH, KW, selected), given the input's values
        and the output's gradient."""
        raise NoBackwardRuleError(f"{node.name}: {self.name} cannot learn its weights")

    needs_inputs = False  # whether input_gradients reads the values of the inputs


class NoBackwardRuleError(TinyTrainError):
    """An operator that gradients cannot pass lies on the path; the message names it."""

    exit_code = EXIT_UNSUPPORTED

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; let only layers behind it learn, or choose another policy")


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
