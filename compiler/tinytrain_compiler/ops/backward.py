"""What the backward passes of all operators share (docs/reference/numerics.md, "Backward").

SparseUpdate ("On-Device Training Under 256KB Memory", section 3) gives the rules; here every step is
integer and every accumulator's bound is a constant of the compiled model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import EXIT_UNSUPPORTED, TinyTrainError
from ..graph import Node, Tensor
from ..graph.gradient import FACTOR_BITS, MANTISSA_BITS, MANTISSA_MAX, Factors, Gradient, shift_round
from .arrays import Floats, Int8
from .kernel import Kernel

ACCUMULATOR_BITS = 31
TRAINED_MARGIN = 2  # how much a trained layer's weights may outgrow the pretrained ones before gradients saturate


class NoBackwardRuleError(TinyTrainError):
    """An operator that gradients cannot pass lies on the path; the message names it."""

    exit_code = EXIT_UNSUPPORTED

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; let only layers behind it learn, or choose another policy")


class Backward(ABC):
    """How gradients pass an operator, in each format, and the C that does it.

    Each rule gets the output's gradient with clipped elements already zeroed, and returns one gradient per input.
    inputs: the forward pass's; only rules that say so (`needs_inputs`) may look at them.
    """

    needs_inputs = False
    in_place = False  # a kernel may write its result, where that is as large as the gradient, over the gradient

    @abstractmethod
    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        """The integer arithmetic of docs/reference/numerics.md, "Backward"."""

    @abstractmethod
    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """The same in real numbers: the yardstick of the others."""

    def float32(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        """With every sum in the order of numerics.md, "Float gradients"; where none is taken, the same rule."""
        return self.float64(node, tensors, inputs, g)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> Kernel | None:
        """The C kernel of int16; None where it is a copy (add) or the same bytes (reshape). That of float32 differs
        by its template alone. trained: the layer's weights may grow, see TRAINED_MARGIN."""
        return None

    def kernels(self, node: Node, tensors: Mapping[str, Tensor], trained: bool) -> tuple[Kernel | None, ...]:
        """The kernel of each input's gradient, in the order of the inputs; without a word here, one serves all."""
        return (self.kernel(node, tensors, trained),) * len(node.inputs)

    def values(self, node: Node, which: int) -> Mapping[str, int]:
        """Inputs (indices) whose bytes of the forward pass the kernel of input `which` reads, by the names of its
        parameters, which stand behind the gradients. These activations stay where they are until then."""
        return {}

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Working memory of the kernel, enough for every variant; 0: it takes none."""
        return 0

    def saved_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """What the kernel needs of the forward pass, besides the clip mask; 0: nothing."""
        return 0

    def saving_kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        """The C kernel that writes it, right behind the forward one; input and output are both still there."""
        return None


class PassOn(Backward):
    """For operators that pass real values on as they are: the gradient, in each input's shape."""

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        shapes = (tensors[name].shape for name in node.inputs)
        return tuple(Gradient(gradient.mantissa.reshape(shape), gradient.exponent) for shape in shapes)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return tuple(g.reshape(tensors[name].shape) for name in node.inputs)


def masked(gradient: Gradient, mask: NDArray[np.bool_]) -> Gradient:
    return Gradient(np.where(mask, gradient.mantissa, 0).astype(np.int16), gradient.exponent)


def input_pre_shift(l1: int) -> int:
    """Bits dropped from gradients in front of a layer whose accumulators could otherwise leave int32."""
    return _safe_shift(MANTISSA_MAX, l1)


def scale_channels(gradient: Gradient, factors: Factors, pre_shift: int) -> Gradient:
    """Multiply each output channel (last axis) by its weight scale, and drop `pre_shift` bits."""
    product = gradient.mantissa.astype(np.int64) * factors.values
    mantissa = shift_round(product, FACTOR_BITS + pre_shift)
    return Gradient(mantissa.astype(np.int16), gradient.exponent + factors.exponent + pre_shift)


def parameter_shift(gradient: Gradient, terms: int, largest_factor: int) -> int:
    """Bits dropped from mantissas so that a sum of `terms` products with |factor| <= largest_factor fits int32."""
    return _safe_shift(gradient.magnitude, terms * largest_factor)


def _safe_shift(mantissa: int, factor: int) -> int:
    """A shift after which mantissa * factor fits int32, although rounding may have made the mantissa larger."""
    shift = max(0, (mantissa * factor).bit_length() - ACCUMULATOR_BITS)
    rounded = (mantissa + (1 << shift >> 1)) >> shift
    return shift + int(rounded * factor >= 1 << ACCUMULATOR_BITS)


def prepare(gradient: Gradient, shift: int) -> NDArray[np.int64]:
    return shift_round(gradient.mantissa.astype(np.int64), shift)


def headroom(bound: int) -> int:
    """Bits by which a value of this bound exceeds a mantissa."""
    return max(0, bound.bit_length() - MANTISSA_BITS)
