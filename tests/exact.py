"""What each operator should compute, in exact rational arithmetic and plain loops: an oracle for the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.ops import Int8, operator_of
from tinytrain_compiler.ops.add import add_constants
from tinytrain_compiler.ops.weighted import output_multiplier
from tinytrain_compiler.ops.window import Window

# (index of the output element, its value in steps before rounding, how far off the reference's may be)
Steps = Iterator[tuple[tuple[int, ...], Fraction, Fraction]]


def exact_steps(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    """Every element of the node's output."""
    return _OPERATORS[node.op](graph, node, inputs)


def _scale(graph: Graph, tensor: str) -> Fraction:
    return Fraction(graph.tensors[tensor].quantization.scale)


def _zero(graph: Graph, tensor: str) -> int:
    return graph.tensors[tensor].quantization.zero_point


def _taps(window: Window, shape: tuple[int, ...], oy: int, ox: int) -> Iterator[tuple[int, int, int, int]]:
    """(ky, kx, iy, ix) of the taps of one output pixel that lie inside the image."""
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            iy = oy * window.stride[0] - window.pad_before[0] + ky * window.dilation[0]
            ix = ox * window.stride[1] - window.pad_before[1] + kx * window.dilation[1]
            if 0 <= iy < shape[0] and 0 <= ix < shape[1]:
                yield ky, kx, iy, ix


def _weighted(graph: Graph, node: Node, acc: int, channel: int) -> tuple[Fraction, Fraction]:
    """The multiplier is rounded to 2^(shift - 32), so the product is off by at most acc half of these."""
    factor = _scale(graph, node.inputs[0]) * Fraction(float(node.constants["weight_scales"][channel]))
    shift = output_multiplier(node, graph.tensors).shift
    steps = acc * factor / _scale(graph, node.output) + _zero(graph, node.output)
    # float64 rounds the factor itself, relatively by a few 2^-53
    return steps, abs(acc) * (Fraction(2) ** (shift - 33) + 8 * factor / _scale(graph, node.output) / 2**53)


def _conv(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    (x,), w = inputs, node.constants["weights"]
    zero = _zero(graph, node.inputs[0])
    height, width, channels = graph.tensors[node.output].shape
    depthwise = node.op == "depthwise_conv2d"
    groups = channels if depthwise else node.attributes.groups
    per_in, per_out = x.shape[2] // groups, channels // groups
    for oy, ox, o in np.ndindex(height, width, channels):
        acc = int(node.constants["bias"][o])
        for ky, kx, iy, ix in _taps(node.attributes.window, x.shape, oy, ox):
            for i in range(per_in):
                acc += int(w[o, ky, kx, i]) * (int(x[iy, ix, o // per_out * per_in + i]) - zero)
        yield (oy, ox, o), *_weighted(graph, node, acc, o)


def _fully_connected(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    zero = _zero(graph, node.inputs[0])
    flat = [int(v) - zero for v in inputs[0].reshape(-1)]
    for o, row in enumerate(node.constants["weights"].tolist()):
        acc = int(node.constants["bias"][o]) + sum(a * b for a, b in zip(flat, row, strict=True))
        yield (o,), *_weighted(graph, node, acc, o)


def _add(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    shift = add_constants(node, graph.tensors).shift
    for index in np.ndindex(inputs[0].shape):
        steps = Fraction(_zero(graph, node.output))
        for name, values in zip(node.inputs, inputs, strict=True):
            steps += (int(values[index]) - _zero(graph, name)) * _scale(graph, name) / _scale(graph, node.output)
        yield index, steps, 2 * 255 * Fraction(1, 2 ** (shift + 1))


def _avg_pool(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    (x,), zero = inputs, _zero(graph, node.inputs[0])
    ratio = _scale(graph, node.inputs[0]) / _scale(graph, node.output)
    window = node.attributes.window
    for oy, ox, c in np.ndindex(graph.tensors[node.output].shape):
        inside = [int(x[iy, ix, c]) - zero for _, _, iy, ix in _taps(window, x.shape, oy, ox)]
        count = window.taps if node.attributes.count_include_pad else len(inside)
        error = abs(sum(inside)) * max(Fraction(1, 2**32), ratio / 2**30)
        yield (oy, ox, c), sum(inside) * ratio / count + _zero(graph, node.output), error


def _max_pool(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    for oy, ox, c in np.ndindex(graph.tensors[node.output].shape):
        taps = _taps(node.attributes.window, inputs[0].shape, oy, ox)
        yield (oy, ox, c), Fraction(max(int(inputs[0][iy, ix, c]) for _, _, iy, ix in taps)), Fraction(0)


def _lookup(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    ratio = _scale(graph, node.inputs[0]) / _scale(graph, node.output)
    for index in np.ndindex(inputs[0].shape):
        if "table" in node.constants:
            yield index, Fraction(int(node.constants["table"][int(inputs[0][index]) % 256])), Fraction(0)
            continue
        distance = int(inputs[0][index]) - _zero(graph, node.inputs[0])
        error = abs(distance) * max(Fraction(1, 2**32), ratio / 2**30)
        yield index, distance * ratio + _zero(graph, node.output), error


def _operands(graph: Graph, node: Node, inputs: list[Int8]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """(index of the output element, both operands without their zero points)."""
    a, b = inputs[0], node.constants["operand"] if "operand" in node.constants else inputs[1]
    zeros = (
        _zero(graph, node.inputs[0]),
        (node.attributes.operand_zero if "operand" in node.constants else _zero(graph, node.inputs[1])),
    )
    shape = graph.tensors[node.output].shape
    for index in np.ndindex(shape):
        values = []
        for operand, zero in zip((a, b), zeros, strict=True):
            own = index[len(shape) - operand.ndim :]
            at = tuple(0 if size == 1 else i for i, size in zip(own, operand.shape, strict=True))
            values.append(int(operand[at]) - zero)
        yield index, values[0], values[1]


def _second_scale(graph: Graph, node: Node) -> Fraction:
    if "operand" in node.constants:
        return Fraction(node.attributes.operand_scale)
    return _scale(graph, node.inputs[1])


def _mul(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    factor = _scale(graph, node.inputs[0]) * _second_scale(graph, node) / _scale(graph, node.output)
    for index, a, b in _operands(graph, node, inputs):
        error = abs(a * b) * max(Fraction(1, 2**32), factor / 2**30)
        yield index, a * b * factor + _zero(graph, node.output), error


def _broadcast_add(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    scales = _scale(graph, node.inputs[0]), _second_scale(graph, node)
    y, attributes = _scale(graph, node.output), node.attributes
    shift = int(operator_of(node).kernel(node, graph.tensors).shape["SHIFT"])  # type: ignore[union-attr]
    for index, a, b in _operands(graph, node, inputs):
        total = attributes.sign_a * a * scales[0] + attributes.sign_b * b * scales[1]
        yield index, total / y + _zero(graph, node.output), 2 * 255 * Fraction(1, 2 ** (shift + 1))


def _softmax(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    """Exponentials come from a table of at least 20 bits for the graphs of these tests."""
    scale, axis = graph.tensors[node.inputs[0]].quantization.scale, node.attributes.axis
    x = np.moveaxis(inputs[0], axis, -1)
    indices = np.moveaxis(np.indices(inputs[0].shape), 1 + axis % inputs[0].ndim, -1)
    for row in np.ndindex(x.shape[:-1]):
        e = [math.exp(scale * (int(v) - int(x[row].max()))) for v in x[row]]
        for c, value in enumerate(e):
            steps = Fraction(value / sum(e)) / _scale(graph, node.output)
            at = tuple(int(i) for i in indices[(slice(None), *row, c)])
            yield at, steps + _zero(graph, node.output), len(e) * (1 + steps) / 2**20


def _matmul(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    """Elements by their own strides; the multiplier's rounding as in _weighted."""
    at, (a, b) = node.attributes, (x.reshape(-1) for x in inputs)
    zero_a, zero_b = (_zero(graph, name) for name in node.inputs)
    factor = _scale(graph, node.inputs[0]) * _scale(graph, node.inputs[1]) * Fraction(at.factor)
    factor /= _scale(graph, node.output)
    shape = graph.tensors[node.output].shape
    for i, j, m, n in np.ndindex(*at.batch, at.rows, at.columns):
        acc = 0
        for k in range(at.inner):
            left = int(a[np.dot((i, j, m, k), at.a_strides)]) - zero_a
            acc += left * (int(b[np.dot((i, j, k, n), at.b_strides)]) - zero_b)
        index = np.unravel_index(int(np.dot((i, j, m, n), at.y_strides)), shape)
        yield index, acc * factor + _zero(graph, node.output), abs(acc) * max(Fraction(1, 2**32), factor / 2**30)


def _layer_norm(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    """In float64, whose error is none beside that of 20 bits of a normalised value."""
    x, scale = inputs[0], graph.tensors[node.inputs[0]].quantization.scale
    scales, shifts = node.constants["scale"], node.constants["shift"]
    rows = x.reshape(-1, len(scales)).astype(np.float64)
    centred = (rows - rows.mean(1, keepdims=True)) * scale
    with np.errstate(invalid="ignore"):
        normal = np.nan_to_num(centred / np.sqrt((centred**2).mean(1, keepdims=True) + node.attributes.epsilon))
    y = (normal * scales + shifts) / graph.tensors[node.output].quantization.scale + _zero(graph, node.output)
    gain = np.abs(scales / graph.tensors[node.output].quantization.scale).max()
    for index in np.ndindex(x.shape):
        flat = int(np.ravel_multi_index(index, x.shape))
        error = Fraction(float(gain * (2.0**-20 + np.abs(normal).max() * 2.0**-17)) + 2.0**-10)
        yield index, Fraction(float(y.reshape(-1)[flat])), error


def _reshape(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    flat = inputs[0].reshape(-1)
    for i, index in enumerate(np.ndindex(graph.tensors[node.output].shape)):
        yield index, Fraction(int(flat[i])), Fraction(0)


def _take(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    for index in np.ndindex(graph.tensors[node.output].shape):
        at = tuple(some[i] if some else i for i, some in zip(index, node.attributes.indices, strict=True))
        value = node.attributes.fill if -1 in at else int(inputs[0][at])
        yield index, Fraction(value), Fraction(0)


def _transpose(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    sizes, perm = node.attributes.sizes, node.attributes.perm
    shape = graph.tensors[node.output].shape
    source = inputs[0].reshape(sizes)
    for place, index in enumerate(np.ndindex(*(sizes[axis] for axis in perm))):
        at = [0] * len(sizes)
        for axis, i in zip(perm, index, strict=True):
            at[axis] = i
        y = tuple(int(i) for i in np.unravel_index(place, shape))
        yield y, Fraction(int(source[tuple(at)])), Fraction(0)


def _concat(graph: Graph, node: Node, inputs: list[Int8]) -> Steps:
    axis, first = node.attributes.axis, 0
    for name, values in zip(node.inputs, inputs, strict=True):
        ratio = _scale(graph, name) / _scale(graph, node.output)
        for index in np.ndindex(values.shape):
            distance = int(values[index]) - _zero(graph, name)
            error = abs(distance) * max(Fraction(1, 2**32), ratio / 2**30)
            placed = (*index[:axis], index[axis] + first, *index[axis + 1 :])
            yield placed, distance * ratio + _zero(graph, node.output), error
        first += values.shape[axis]


_OPERATORS = {
    "conv2d": _conv, "depthwise_conv2d": _conv, "fully_connected": _fully_connected, "add": _add,
    "avg_pool": _avg_pool, "max_pool": _max_pool, "lookup": _lookup, "softmax": _softmax, "reshape": _reshape,
    "matmul": _matmul, "layer_norm": _layer_norm,
    "mul": _mul, "broadcast_add": _broadcast_add,
    "take": _take, "concat": _concat, "transpose": _transpose,
}  # fmt: skip
