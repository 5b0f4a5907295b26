"""The operators on real numbers, unquantised and unclipped, over batches: what gradients are gradients of.

Written from each operator's definition; shares no code with the compiler's windows, so that neither forward
nor backward passes of the compiler can be wrong together with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.ops.window import Window

Floats = NDArray[np.float64]


def real_weights(node: Node) -> Floats:
    w: Floats = node.constants["weights"].astype(np.float64)
    return w * node.constants["weight_scales"].reshape(-1, *[1] * (w.ndim - 1))


def real_forward(graph: Graph, node: Node, inputs: Sequence[Floats], weights: Floats | None = None) -> Floats:
    """Inputs (batch, *shape) -> output (batch, *shape). The bias is left out: its derivative is plain.

    weights: real ones, instead of the node's own.
    """
    if "weights" in node.constants and weights is None:
        weights = real_weights(node)
    if "slopes" in node.constants:
        return _table(graph, node, inputs[0])
    shape = graph.tensors[node.output].shape
    return _OPERATORS[node.op](node, inputs, weights, shape).reshape(len(inputs[0]), *shape)


def taps(window: Window, size: tuple[int, int], out: tuple[int, int]) -> Iterator[tuple[int, int, tuple, tuple]]:
    """(ky, kx, index of the output pixels, index of the input pixels that they read) where tap (ky, kx) is inside."""
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            pairs = []
            for axis, k in enumerate((ky, kx)):
                o = np.arange(out[axis])
                i = o * window.stride[axis] + k * window.dilation[axis] - window.pad_before[axis]
                inside = (i >= 0) & (i < size[axis])
                pairs.append((o[inside], i[inside]))
            (oy, iy), (ox, ix) = pairs
            yield ky, kx, (slice(None), oy[:, None], ox), (slice(None), iy[:, None], ix)


def _conv(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    (x,) = inputs
    assert weights is not None
    y = np.zeros((len(x), *shape))
    groups = shape[2] if node.op == "depthwise_conv2d" else node.attributes.groups
    per_in, per_out = x.shape[3] // groups, shape[2] // groups
    for ky, kx, at, read in taps(node.attributes.window, x.shape[1:3], shape[:2]):
        pixels = x[read]
        for group in range(groups):
            o, i = slice(group * per_out, (group + 1) * per_out), slice(group * per_in, (group + 1) * per_in)
            y[..., o][at] += pixels[..., i] @ weights[o, ky, kx].T
    return y


def _fully_connected(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    assert weights is not None
    return inputs[0].reshape(len(inputs[0]), -1) @ weights.T


def _add(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    return inputs[0] + inputs[1]


def _avg_pool(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    (x,) = inputs
    total, count = np.zeros((len(x), *shape)), np.zeros((1, *shape))
    for _, _, at, read in taps(node.attributes.window, x.shape[1:3], shape[:2]):
        total[at] += x[read]
        count[at] += 1
    return total / (node.attributes.window.taps if node.attributes.count_include_pad else count)


def _max_pool(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    (x,) = inputs
    y = np.full((len(x), *shape), -np.inf)
    for _, _, at, read in taps(node.attributes.window, x.shape[1:3], shape[:2]):
        y[at] = np.maximum(y[at], x[read])
    return y


def _table(graph: Graph, node: Node, x: Floats) -> Floats:
    """A line around each input byte, up to its height."""
    q = graph.tensors[node.inputs[0]].quantization
    return x * node.constants["slopes"][np.rint(x / q.scale + q.zero_point).astype(np.int64) % 256]


def _both(node: Node, inputs: Sequence[Floats], shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The operands, with axes of size 1 in front of those that they have."""
    if "operand" in node.constants:
        a = node.attributes
        inputs = [inputs[0], (a.operand_scale * (node.constants["operand"].astype(np.float64) - a.operand_zero))[None]]
    first, second = (x.reshape(len(x), *(1,) * (len(shape) + 1 - x.ndim), *x.shape[1:]) for x in inputs)
    return first, second


def _mul(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    a, b = _both(node, inputs, shape)
    return a * b


def _broadcast_add(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    a, b = _both(node, inputs, shape)
    return node.attributes.sign_a * a + node.attributes.sign_b * b


def _transpose(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    sizes, perm = node.attributes.sizes, node.attributes.perm
    return inputs[0].reshape(-1, *sizes).transpose(0, *(axis + 1 for axis in perm))


def _same(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    return inputs[0]


def _take(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    (x,) = inputs
    y = np.zeros((len(x), *shape))
    for index in np.ndindex(shape):
        at = [some[i] if some else i for i, some in zip(index, node.attributes.indices, strict=True)]
        if min(at) >= 0:
            y[(slice(None), *index)] = x[(slice(None), *at)]
    return y


def _concat(node: Node, inputs: Sequence[Floats], weights: Floats | None, shape: tuple[int, ...]) -> Floats:
    return np.concatenate(inputs, node.attributes.axis + 1)


_OPERATORS: dict[str, Callable[..., Floats]] = {
    "conv2d": _conv, "depthwise_conv2d": _conv, "fully_connected": _fully_connected, "add": _add,
    "avg_pool": _avg_pool, "max_pool": _max_pool, "reshape": _same, "lookup": _same,
    "mul": _mul, "broadcast_add": _broadcast_add,
    "transpose": _transpose,
    "take": _take, "concat": _concat,
}  # fmt: skip


def finite_differences(f: Callable[[Floats], Floats], x: Floats, at: NDArray[np.intp], step: float) -> Floats:
    """Central differences of f, which maps a batch of x to a batch of numbers, along the flat indices `at`."""
    batch = np.repeat(x.reshape(1, -1), 2 * len(at), axis=0)
    batch[np.arange(len(at)), at] += step
    batch[len(at) + np.arange(len(at)), at] -= step
    y = f(batch.reshape(-1, *x.shape))
    return (y[: len(at)] - y[len(at) :]) / (2 * step)
