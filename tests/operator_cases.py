"""Hypothesis strategies: one-operator graphs of odd shapes and extreme scales, one strategy per operator."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import prod
from typing import Any

import numpy as np
from graphs import ALL, GraphBuilder
from hypothesis import strategies as st
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.ops.matmul import MatMulAttributes

Draw = st.DrawFn
zeros = st.sampled_from([0, -128, 127, -3, 17, -77])
seeds = st.integers(0, 2**16)
# 0.5 and more shift the multiplier; None spreads the output over its range.
factors = st.sampled_from([None] * 6 + [0.4999, 0.5, 0.9, 3.7, 2.0**14])
limits = st.sampled_from([ALL, ALL, ALL, (0, 127), (-128, 50), (-60, 90)])


def _side(draw: Draw, extent: int, pads: int) -> int:
    """An image's height or width that gives at least one window."""
    return max(1, extent - pads) + draw(st.sampled_from([0, 0, 1, 2, 3, 5, 7]))


def window_of(
    draw: Draw, kernels: st.SearchStrategy[int], dilated: bool = True
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Keyword arguments of a window, pads below the kernel's extent, and an image's height and width."""
    kernel = (draw(kernels), draw(kernels))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3))) if dilated and draw(st.booleans()) else (1, 1)
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padded = draw(st.booleans())
    pads = [(draw(st.integers(0, e - 1)), draw(st.integers(0, e - 1))) if padded else (0, 0) for e in extents]
    size = [_side(draw, e, sum(p)) for e, p in zip(extents, pads, strict=True)]
    window = {
        "kernel": kernel, "stride": stride, "dilation": dilation,
        "pad_before": (pads[0][0], pads[1][0]), "pad_after": (pads[0][1], pads[1][1]),
    }  # fmt: skip
    return window, (size[0], size[1])


def _layer(draw: Draw) -> dict[str, Any]:
    return {"zero": draw(zeros), "limits": draw(limits), "factor": draw(factors), "wide": draw(st.integers(0, 4)) == 4}


def _weighted(draw: Draw) -> dict[str, Any]:
    """wide needs a factor that shifts."""
    layer = _layer(draw)
    if layer["wide"]:
        layer["factor"] = draw(st.sampled_from([0.5, 0.9, 3.7, 150.0]))
    return layer


@st.composite
def conv(draw: Draw) -> Graph:
    """Regular and grouped convolutions."""
    window, size = window_of(draw, st.integers(1, 7))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, out = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    b = GraphBuilder((*size, channels), zero=draw(zeros), seed=draw(seeds))
    b.conv2d(b.input, out, groups=groups, **window, **_weighted(draw))
    return b.build()


@st.composite
def pointwise(draw: Draw) -> Graph:
    """1x1: from one pixel and one channel to pixel counts and channel counts that are no multiple of four."""
    size = draw(st.sampled_from([(1, 1), (1, 2), (3, 1), (2, 2), (1, 5), (2, 3), (7, 1), (3, 3), (5, 5)]))
    channels, out = draw(st.integers(1, 70)), draw(st.integers(1, 18))
    b = GraphBuilder((*size, channels), zero=draw(zeros), seed=draw(seeds))
    b.conv2d(b.input, out, **_weighted(draw))
    return b.build()


@st.composite
def depthwise(draw: Draw) -> Graph:
    """In place wherever the output is no larger than the input."""
    window, size = window_of(draw, st.integers(1, 7))
    b = GraphBuilder((*size, draw(st.integers(1, 11))), zero=draw(zeros), seed=draw(seeds))
    b.depthwise(b.input, **window, **_weighted(draw))
    return b.build()


@st.composite
def fully_connected(draw: Draw) -> Graph:
    """From a vector, or from a flattened image."""
    shape = draw(st.one_of(st.tuples(st.integers(1, 130)), st.tuples(*[st.integers(1, 5)] * 3)))
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    x = b.reshape(b.input) if len(shape) == 3 else b.input
    b.fully_connected(x, draw(st.integers(1, 13)), **_weighted(draw))
    return b.build()


@st.composite
def add(draw: Draw) -> Graph:
    """Two tensors of scales up to a factor of a thousand apart, or a tensor and itself."""
    shape = draw(st.sampled_from([(1,), (3,), (64,), (90,), (5, 3, 3), (1, 1, 6), (4, 4, 7), (6, 5, 5)]))
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    ratio = draw(st.sampled_from([1e-3, 0.03, 0.5, 1.0, 4.0, 900.0]))
    other = b.lookup(b.input, ratio=ratio, zero=draw(zeros)) if draw(st.integers(0, 4)) else b.input
    scale = max(1.0, ratio) * 0.05 * draw(st.sampled_from([0.3, 1.0, 2.0, 700.0]))
    b.add(*draw(st.permutations([b.input, other])), scale=scale, zero=draw(zeros), limits=draw(limits))
    return b.build()


@st.composite
def avg_pool(draw: Draw) -> Graph:
    """Windows, and now and then the whole image."""
    window, size = window_of(draw, st.integers(1, 4), dilated=False)
    del window["dilation"]
    b = GraphBuilder((*size, draw(st.integers(1, 9))), zero=draw(zeros), seed=draw(seeds))
    ratio = draw(st.sampled_from([0.02, 0.1, 0.8, 1.0, 1.9, 50.0]))
    whole = draw(st.integers(0, 4)) == 0
    layer = {"ratio": ratio, "zero": draw(zeros), "limits": draw(limits)}
    layer |= {"count_include_pad": draw(st.booleans()), "raw_mean": draw(st.integers(0, 3)) == 0}
    b.avg_pool(b.input, **({} if whole else window), **layer)
    return b.build()


@st.composite
def max_pool(draw: Draw) -> Graph:
    window, size = window_of(draw, st.integers(1, 4), dilated=False)
    del window["dilation"]
    b = GraphBuilder((*size, draw(st.integers(1, 9))), zero=draw(zeros), seed=draw(seeds))
    b.max_pool(b.input, limits=draw(limits), **window)
    return b.build()


@st.composite
def softmax(draw: Draw) -> Graph:
    """Of a vector and of pixels, over any axis; flat, steep and one-hot; with scales of probabilities and others."""
    shape = draw(st.sampled_from([(1,), (2,), (10,), (12,), (37,), (1000,), (1, 1, 5), (3, 2, 4), (4, 3, 7)]))
    b = GraphBuilder(shape, draw(st.sampled_from([1e-4, 0.02, 0.3, 3.0])), draw(zeros), draw(seeds))
    scale, zero = draw(st.sampled_from([(1 / 256, -128), (1 / 255, -128), (0.001, 3), (0.3, -100)]))
    b.softmax(b.input, scale=scale, zero=zero, axis=draw(st.integers(-len(shape), -1)))
    return b.build()


def _order(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor of this shape, whose axes lie in memory in any order."""
    strides, step = [0] * len(shape), 1
    for axis in draw(st.permutations(range(len(shape)))):
        strides[axis], step = step, step * shape[axis]
    return tuple(strides)


@st.composite
def matmul(draw: Draw) -> Graph:
    """Matrices one after the other, transposed, interleaved, and one of a side for several of the other."""
    i, j, m = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 9))
    k, n = draw(st.sampled_from([1, 2, 3, 5, 8, 16, 33])), draw(st.integers(1, 9))
    shape = (i * j * max(m * k, k * n),)
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    other = b.lookup(b.input, ratio=draw(st.sampled_from([0.3, 1.0])), zero=draw(zeros))
    a_strides, b_strides = _order(draw, (i, j, m, k)), _order(draw, (i, j, k, n))
    if draw(st.integers(0, 3)) == 0:
        b_strides = (0, *b_strides[1:])
    layer = MatMulAttributes(
        (i, j), m, k, n, a_strides, b_strides, _order(draw, (i, j, m, n)), draw(st.sampled_from([1.0, 0.25])),
        *draw(limits),
    )  # fmt: skip
    b.matmul(b.input, other, layer, (i, j, m, n), factor=draw(factors), zero=draw(zeros))
    return b.build()


@st.composite
def layer_norm(draw: Draw) -> Graph:
    """Rows of one to thousands of elements; where the input is nearly constant, epsilon is what it is divided by."""
    shape = draw(st.sampled_from([(1,), (2,), (16,), (49, 1), (5, 48), (3, 2, 7), (1, 1, 5), (4, 4, 33), (2, 5000)]))
    b = GraphBuilder(shape, draw(st.sampled_from([1e-6, 0.001, 0.02, 3.0])), draw(zeros), draw(seeds))
    x = b.input if draw(st.booleans()) else b.lookup(b.input, ratio=draw(st.sampled_from([100.0, 1000.0])))
    scale = b.tensors[x].quantization.scale
    epsilon = draw(st.sampled_from([0.0, 1e-12, 1e-6, 1e-5, 1.0 if scale > 1e-3 else 1e-9]))
    b.layer_norm(x, scale=draw(st.sampled_from([0.003, 0.03, 3.0])), epsilon=epsilon, zero=draw(zeros),
                 limits=draw(limits))  # fmt: skip
    return b.build()


@st.composite
def lookup(draw: Draw) -> Graph:
    shape = draw(st.sampled_from([(1,), (256,), (5, 3, 3), (77,)]))
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    ratio = draw(st.sampled_from([0.01, 0.5, 1.0, 1.7, 40.0]))
    if draw(st.booleans()):
        b.table(b.input, zero=draw(zeros), limits=draw(limits))
    else:
        b.lookup(b.input, ratio=ratio, zero=draw(zeros), limits=draw(limits))
    return b.build()


BROADCASTS = [  # two shapes that meet
    ((5, 4, 6), (1, 1, 6)), ((5, 4, 6), (5, 4, 1)), ((5, 4, 6), (1,)), ((3, 7), (7,)), ((1, 1, 9), (3, 2, 9)),
    ((4, 1, 3), (1, 5, 3)), ((2, 3, 2, 5), (3, 1, 5)), ((17,), (17,)), ((1,), (1,)), ((2, 1, 3, 1), (1, 4, 1, 5)),
]  # fmt: skip


def _operands(draw: Draw) -> tuple[GraphBuilder, str, str | tuple[int, ...]]:
    """Two tensors whose shapes meet, either first: or one and a constant."""
    first, second = draw(st.sampled_from(BROADCASTS))
    if draw(st.booleans()):
        first, second = second, first
    if draw(st.integers(0, 2)) == 0:
        b = GraphBuilder(first, zero=draw(zeros), seed=draw(seeds))
        return b, b.input, second
    sizes = [int(np.prod(shape)) for shape in (first, second)]
    b = GraphBuilder((sum(sizes),), zero=draw(zeros), seed=draw(seeds))
    x = b.lookup(b.input, ratio=draw(st.sampled_from([0.5, 1.0, 30.0])), zero=draw(zeros))
    parts = [b.fully_connected(t, size, zero=draw(zeros)) for t, size in zip((b.input, x), sizes, strict=True)]
    return b, *(b.reshape(part, shape) for part, shape in zip(parts, (first, second), strict=True))


@st.composite
def mul(draw: Draw) -> Graph:
    """Every way in which two shapes broadcast, constants among them; factors that shift, and that do not."""
    b, first, second = _operands(draw)
    factor = draw(st.sampled_from([1e-4, 2e-3, 2e-3, 2e-3, 0.02, 0.6, 3e4]))
    b.mul(first, second, factor=factor, zero=draw(zeros), limits=draw(limits))
    return b.build()


@st.composite
def broadcast_add(draw: Draw) -> Graph:
    """Sums and differences."""
    b, first, second = _operands(draw)
    b.broadcast_add(
        first, second, signs=draw(st.sampled_from([(1, 1), (1, -1), (-1, 1)])), zero=draw(zeros), limits=draw(limits)
    )
    return b.build()


@st.composite
def transpose(draw: Draw) -> Graph:
    """From two to five axes, in every order that does not merge into fewer."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=2, max_size=5))
    perms = [p for p in permutations(range(len(sizes))) if all(b != a + 1 for a, b in pairwise(p))]
    b = GraphBuilder((prod(sizes),), zero=draw(zeros), seed=draw(seeds))
    perm = draw(st.sampled_from(perms))
    b.transpose(b.input, sizes, perm, tuple(sizes[axis] for axis in perm))
    return b.build()


def index_list(draw: Draw, size: int) -> list[int]:
    """The whole axis, a slice in either direction, repeated neighbours, padding, or any indices."""
    kind = draw(st.sampled_from(["whole", "whole", "slice", "slice", "back", "repeat", "pad", "any"]))
    first, step = draw(st.integers(0, size - 1)), draw(st.integers(1, 3))
    if kind == "slice":
        return list(range(first, draw(st.integers(first + 1, size)), step))
    if kind == "back":
        return list(range(first, -1, -step))
    if kind == "repeat":
        return [i for i in range(size) for _ in range(step)]
    if kind == "pad":
        return [-1] * first + list(range(size)) + [-1] * draw(st.integers(0, 2))
    return draw(st.lists(st.integers(-1, size - 1), min_size=1, max_size=9)) if kind == "any" else []


@st.composite
def take(draw: Draw) -> Graph:
    shape = draw(st.sampled_from([(1,), (40,), (5, 3, 3), (1, 1, 7), (4, 6, 8), (3, 1, 5), (7, 4, 1)]))
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    b.take(b.input, *(index_list(draw, size) for size in shape), fill=draw(zeros))
    return b.build()


@st.composite
def concat(draw: Draw) -> Graph:
    """Two to five parts of sizes and scales of their own along any axis; a tensor and itself."""
    shape = draw(st.sampled_from([(3,), (64,), (5, 3, 3), (1, 1, 6), (2, 4, 5)]))
    b = GraphBuilder(shape, zero=draw(zeros), seed=draw(seeds))
    axis = draw(st.integers(0, len(shape) - 1))
    parts = [b.input]
    for _ in range(draw(st.integers(1, 4))):
        part = b.input
        if draw(st.booleans()):
            part = b.lookup(part, ratio=draw(st.sampled_from([0.03, 0.5, 1.0, 4.0])), zero=draw(zeros))
        if draw(st.booleans()):
            part = b.take(part, *([*range(draw(st.integers(1, n)))] if i == axis else [] for i, n in enumerate(shape)))
        parts.append(part)
    scale = draw(st.sampled_from([None, 0.02, 0.05, 0.3]))
    b.concat(*draw(st.permutations(parts)), axis=axis, scale=scale, zero=draw(zeros), limits=draw(limits))
    return b.build()


STRATEGIES = {
    "conv": conv(), "pointwise": pointwise(), "depthwise": depthwise(), "fully_connected": fully_connected(),
    "add": add(), "avg_pool": avg_pool(), "max_pool": max_pool(), "softmax": softmax(), "lookup": lookup(),
    "transpose": transpose(),
    "matmul": matmul(), "layer_norm": layer_norm(),
    "mul": mul(), "broadcast_add": broadcast_add(),
    "take": take(), "concat": concat(),
}  # fmt: skip


@st.composite
def wide(draw: Draw) -> Graph:
    """More channels than a vector has lanes, with and without a rest; depthwise, pointwise and grouped."""
    window, size = window_of(draw, st.sampled_from([1, 2, 3, 5]))
    channels = draw(st.sampled_from([12, 16, 17, 31, 32, 36, 48, 53]))
    b = GraphBuilder((*size, channels), zero=draw(zeros), seed=draw(seeds))
    kind = draw(st.sampled_from(["depthwise", "depthwise", "conv", "pointwise", "grouped"]))
    if kind == "depthwise":
        b.depthwise(b.input, **window, **_weighted(draw))
    elif kind == "conv":
        b.conv2d(b.input, draw(st.sampled_from([16, 19, 33])), **window, **_weighted(draw))
    elif kind == "pointwise":
        b.conv2d(b.input, draw(st.sampled_from([8, 16, 32, 45])), **_weighted(draw))
    else:
        groups = 2 if channels % 2 == 0 else 1
        b.conv2d(b.input, groups * draw(st.sampled_from([8, 16, 17])), groups=groups, **window, **_weighted(draw))
    return b.build()
