"""What all operators with weights share: requantisation constants and the accumulator's bound."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import Problem, UnsupportedModelError
from ..graph import Multiplier, Node, Quantization, Tensor, quantize_multiplier
from ..graph.quantization import MULTIPLIER_BITS
from .kernel import WIDE_CODE

INT32_MAX = 2**31 - 1


def output_multiplier(node: Node, tensors: Mapping[str, Tensor]) -> Multiplier:
    """s_x * s_w[o] / s_y as fixed point, one per output channel."""
    s_x = tensors[node.inputs[0]].quantization.scale
    s_y = tensors[node.output].quantization.scale
    try:
        return quantize_multiplier(node.constants["weight_scales"].astype(np.float64) * s_x / s_y)
    except ValueError as error:
        raise _problem(
            node, str(error), "check the model for weights that are zero, infinite or wildly scaled"
        ) from error


def requantize_shape(node: Node, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Constants of a kernel's requantisation: clip limits, shift, and whether acc << shift always fits int32."""
    shift = output_multiplier(node, tensors).shift
    fits = accumulator_bound(node, tensors[node.inputs[0]].quantization.zero_point) <= INT32_MAX >> shift
    return {"LOW": node.attributes.low, "HIGH": node.attributes.high, "SHIFT": shift, "FITS": int(fits)}


def bias_limit(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """How far a bias may move, in its own steps, so that accumulators still fit whatever int8 weights the layer learns.

    docs/reference/numerics.md, "Updates". Errors: UnsupportedModelError where it may not move at all.
    """
    shape = requantize_shape(node, tensors)
    largest = INT32_MAX >> (shape["SHIFT"] if shape["FITS"] else 0)
    weights, bias = node.constants["weights"], node.constants["bias"].astype(np.int64)
    limit = largest - int(np.abs(bias).max()) - 2 * 128 * 128 * int(weights[0].size)
    if limit <= 0:
        raise _problem(node, "its accumulator leaves no room for what it learns", "leave it out of what is trained")
    return limit


def accumulator_bound(node: Node, input_zero_point: int) -> int:
    """The largest magnitude any accumulator can reach, over all int8 inputs."""
    return int(_accumulator_bounds(node, input_zero_point).max())


def _accumulator_bounds(node: Node, input_zero_point: int) -> NDArray[np.int64]:
    """The same, int64 (channels,)."""
    weights = node.constants["weights"].astype(np.int64)
    weights = weights.reshape(len(weights), -1)
    bias = node.constants["bias"].astype(np.int64) - input_zero_point * weights.sum(1)
    bounds: NDArray[np.int64] = np.abs(bias) + 128 * np.abs(weights).sum(1)
    return bounds


def check_precision(node: Node, tensors: Mapping[str, Tensor]) -> None:
    """Raise UnsupportedModelError where one channel's scale leaves no bits of the shared shift to another's.

    The multiplier's rounding may move an output by half a step at most, so that a result is one step away from the
    exact one at most. Accumulators count as far as outputs do not saturate.
    """
    x, y = tensors[node.inputs[0]].quantization, tensors[node.output].quantization
    factors = node.constants["weight_scales"].astype(np.float64) * x.scale / y.scale
    multiplier = output_multiplier(node, tensors)
    reached = np.minimum(_accumulator_bounds(node, x.zero_point), 512 / factors)
    errors = reached * np.abs(multiplier.values / 2.0 ** (MULTIPLIER_BITS - multiplier.shift) - factors)
    if errors.max() > 0.5:
        lost, largest = int(errors.argmax()), int(factors.argmax())
        raise _problem(
            node,
            f"the weights of output channel {largest} are {factors[largest] / factors[lost]:.3g} times those "
            f"of channel {lost}, which lose all precision beside them",
            "check the model for weights that are wildly scaled",
        )


def folded_bias(node: Node, input_zero_point: int) -> NDArray[np.int32]:
    """bias[o] - z_x * sum(w[o]): lets kernels multiply raw input bytes; padding then reads z_x.

    Checks that no accumulator can leave int32, whatever the input.
    """
    if accumulator_bound(node, input_zero_point) > INT32_MAX:
        raise _problem(
            node,
            "its accumulator can exceed 32 bits",
            "its bias is out of proportion to its weights: retrain or rescale it",
        )
    weights = node.constants["weights"].astype(np.int64)
    sums = weights.reshape(len(weights), -1).sum(1)
    folded: NDArray[np.int32] = (node.constants["bias"].astype(np.int64) - input_zero_point * sums).astype(np.int32)
    return folded


def accumulate(
    columns: NDArray[np.int8], weights: NDArray[np.int8], bias: NDArray[np.int32], input_zero_point: int
) -> NDArray[np.int64]:
    """columns (..., K) x weights (O, K) -> (..., O): sum((x - z_x) * w) + bias, exactly.

    float64 holds every partial sum of int8 products exactly, and BLAS is fast.
    """
    x = columns.astype(np.float64) - input_zero_point
    return (x @ weights.T.astype(np.float64)).astype(np.int64) + bias


def wide_code(shape: Mapping[str, int]) -> int:
    """Bytes of code that a kernel with requantize_shape's constants has for accumulators that do not fit 32 bits."""
    return 0 if shape["FITS"] else WIDE_CODE


def _problem(node: Node, reason: str, fix: str) -> UnsupportedModelError:
    return UnsupportedModelError([Problem(node.name, node.op, reason, fix)])


def requantize_scalars(x: Quantization, y: Quantization) -> dict[str, int]:
    return {"input_zero": x.zero_point, "output_zero": y.zero_point}
