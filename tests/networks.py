"""Small whole networks that together use every kernel template, every branch of it, and awkward shapes.

Embeddings are taken in the middle where that lets a test see more: they are compared byte for byte too.
"""

from __future__ import annotations

from collections.abc import Callable

from graphs import GraphBuilder
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.ops.matmul import MatMulAttributes

ONE, TWO, THREE = (1, 1), (2, 2), (3, 3)
SAME3 = {"pad_before": ONE, "pad_after": ONE}
SAME7 = {"pad_before": (3, 3), "pad_after": (3, 3)}


def mobile() -> Graph:
    """A MobileNetV2 in little: stem, inverted residual, 5x5 depthwise with stride, pooled embedding, classifier."""
    b = GraphBuilder((17, 15, 3), seed=1)
    x = b.conv2d(b.input, 8, THREE, stride=TWO, pad_before=(0, 0), pad_after=ONE, limits=(5, 127))
    y = b.conv2d(x, 24, zero=-128, limits=(-128, 100))
    y = b.conv2d(b.depthwise(y, THREE, **SAME3, zero=-128), 8)
    x = b.add(x, y)
    x = b.depthwise(b.conv2d(x, 21), (5, 5), stride=TWO, pad_before=TWO, pad_after=TWO)
    pooled = b.reshape(b.avg_pool(x, ratio=0.3))
    return b.build(b.fully_connected(pooled, 10), pooled)


def odd_shapes() -> Graph:
    """Nothing is a multiple of four: channels, pixels, kernels, groups; flattened into a classifier with softmax."""
    b = GraphBuilder((9, 11, 5), zero=11, seed=2)
    x = b.conv2d(b.input, 7, (2, 3), dilation=(2, 1), pad_before=(1, 0), pad_after=(0, 2))
    x = b.depthwise(x, (7, 7), **SAME7)
    x = middle = b.conv2d(x, 6, zero=-9)
    x = b.conv2d(x, 9, THREE, groups=3, **SAME3, limits=(-100, 90))
    x = b.max_pool(x, (3, 2), stride=TWO, pad_before=(1, 0), pad_after=(0, 1))
    x = b.reshape(b.lookup(x))
    return b.build(b.softmax(b.fully_connected(x, 13)), middle)


def few_pixels() -> Graph:
    """Three, two and one output pixels: blocks of the DSP kernels that are not full."""
    b = GraphBuilder((1, 3, 6), seed=3)
    x = b.conv2d(b.input, 5)
    x = middle = b.add(x, b.lookup(x, ratio=1.5), limits=(-90, 100))
    x = b.conv2d(x, 7, (1, 2))
    x = b.conv2d(x, 12, (1, 2))
    x = b.conv2d(x, 8)
    x = b.depthwise(x, THREE, **SAME3)
    return b.build(b.conv2d(x, 11), middle)


def wide() -> Graph:
    """Factors of a half and more, biases that need 64 bits, inputs of an addition far apart."""
    b = GraphBuilder((5, 5, 4), seed=4)
    x = b.conv2d(b.input, 6, THREE, factor=0.7)
    x = middle = b.conv2d(x, 6, factor=3.7, wide=True)
    x = b.depthwise(x, THREE, **SAME3, factor=0.9, wide=True)
    x = b.add(x, b.lookup(x, ratio=25.0), scale=30 * b.tensors[x].quantization.scale)
    x = b.add(x, x, scale=b.tensors[x].quantization.scale, zero=-50)
    x = b.avg_pool(x, TWO, ratio=0.2)
    x = b.fully_connected(x, 9, factor=0.6)
    return b.build(b.fully_connected(x, 5, factor=0.6, wide=True), middle)


def keywords() -> Graph:
    """A DS-CNN in little: one channel, a tall kernel, averaging over the whole image, 12 classes."""
    b = GraphBuilder((49, 10, 1), zero=80, seed=5)
    x = b.conv2d(b.input, 16, (10, 4), stride=TWO, pad_before=(4, 1), pad_after=(5, 1), zero=-128)
    x = b.conv2d(b.depthwise(x, THREE, **SAME3), 16, limits=(0, 127))
    pooled = b.reshape(b.avg_pool(x, ratio=0.2))
    return b.build(b.softmax(b.fully_connected(pooled, 12)), pooled)


def vectors() -> Graph:
    """Fully connected layers of even and odd sizes."""
    b = GraphBuilder((130,), seed=6)
    x = middle = b.fully_connected(b.input, 33, limits=(0, 127), zero=-20)
    x = b.fully_connected(x, 16)
    x = b.fully_connected(x, 3)
    return b.build(b.fully_connected(x, 40), middle)


def grouped() -> Graph:
    """Groups whose channels fill whole words, 1x1 kernels with stride and with groups, stride 3."""
    b = GraphBuilder((13, 10, 8), seed=7)
    x = b.conv2d(b.input, 8, THREE, groups=2, **SAME3)
    x = middle = b.conv2d(x, 12, groups=2)
    x = b.conv2d(x, 8, stride=TWO)
    x = b.conv2d(x, 12, (1, 5), stride=(3, 1), pad_before=(0, 2), pad_after=(0, 2))
    x = b.conv2d(x, 4, (3, 2), dilation=(2, 3), pad_before=TWO, pad_after=(2, 1), zero=-128, limits=(-128, -60))
    return b.build(b.conv2d(x, 16), middle)


def pools() -> Graph:
    """Every way a pool can treat its border."""
    b = GraphBuilder((12, 9, 5), zero=-40, seed=8)
    x = b.avg_pool(b.input, THREE, stride=(1, 2), **SAME3, ratio=0.9, zero=-60)
    x = b.avg_pool(x, (2, 3), pad_before=(1, 0), pad_after=(0, 1), count_include_pad=True, ratio=0.9, zero=0)
    x = middle = b.max_pool(x, THREE, stride=TWO, pad_before=ONE, pad_after=(1, 0))
    x = b.max_pool(x, (1, 1), stride=(2, 1), limits=(-60, 100))
    x = b.softmax(x, scale=1 / 300)
    return b.build(b.conv2d(x, 3), middle)


def attention() -> Graph:
    """A transformer's block over 6 tokens of 10 features in two heads; softmax runs over keys and over heads."""
    b = GraphBuilder((2, 3, 10), seed=9)
    x = b.layer_norm(b.input, limits=(-100, 127))
    q, k, v = (b.conv2d(x, 10) for _ in range(3))
    heads, tokens, size = 2, 6, 5
    lying = (0, size, 2 * size, 1)  # of i (none), head, token, feature in (token, head, feature)
    scores = (0, tokens, heads * tokens, 1)  # in (query, head, key)
    a = MatMulAttributes((1, heads), tokens, size, tokens, lying, (0, 5, 1, 10), scores, size**-0.5)
    by_key = b.softmax(b.matmul(q, k, a, (tokens, heads, tokens), factor=3e-4))
    by_head = b.softmax(b.matmul(q, k, a, (tokens, heads, tokens), factor=0.9), axis=1)
    y = b.add(by_key, by_head, scale=1 / 200, zero=-128)
    a = MatMulAttributes((1, heads), tokens, tokens, size, scores, lying, lying)
    x = middle = b.add(x, b.conv2d(b.matmul(y, v, a, (2, 3, 10), factor=3e-4), 10))
    a = MatMulAttributes((1, 1), 7, 3, 4, (0, 0, 3, 1), (0, 0, 4, 1), (0, 0, 4, 1), low=0)
    x = b.layer_norm(b.matmul(x, x, a, (7, 4)), 28, zero=0)
    return b.build(b.fully_connected(b.reshape(x), 4), middle)


def gated() -> Graph:
    """Squeeze-and-excite with tables, a gate by pixel, constants that are added and multiplied by channel."""
    b = GraphBuilder((7, 5, 6), zero=-20, seed=9)
    x = b.table(b.conv2d(b.input, 10, THREE, **SAME3))
    gate = b.table(b.conv2d(b.conv2d(b.avg_pool(x, ratio=0.3), 3, limits=(5, 127)), 10), limits=(-100, 120))
    x = b.mul(x, gate, factor=6e-3)
    x = middle = b.mul(x, b.conv2d(x, 1), limits=(-90, 100))
    x = b.mul(b.broadcast_add(x, (5, 10)), (10,))
    x = b.broadcast_add(b.avg_pool(x, ratio=0.5), x, signs=(-1, 1))
    return b.build(b.fully_connected(b.reshape(x), 4), middle)


def moves() -> Graph:
    """Two halves of the channels, one resized, reversed and padded, put together again in another scale."""
    b = GraphBuilder((7, 6, 6), zero=-20, seed=9)
    x = b.conv2d(b.input, 10, THREE, **SAME3)
    half = b.take(x, [], [], range(5))
    other = b.take(x, [0, 0, 1, 1, 2, 2, 3], [5, 4, 3, 2, 1, -1], [9, 7, 5, 5], fill=-20)
    x = middle = b.concat(half, b.conv2d(other, 7), b.lookup(half), axis=2, scale=0.2, limits=(3, 127))
    x = b.concat(b.take(x, [-1, -1], [], [], fill=3), x, axis=0)
    return b.build(b.conv2d(x, 4, limits=(-128, 100)), middle)


def transposed() -> Graph:
    """Axes in another order, rows copied whole and values one by one; a mean in steps of its input."""
    b = GraphBuilder((4, 3, 6), seed=11)
    x = b.transpose(b.conv2d(b.input, 5), (4, 3, 5), (1, 0, 2), (3, 4, 5))
    x = middle = b.transpose(x, (12, 5), (1, 0), (5, 4, 3))
    return b.build(b.fully_connected(b.reshape(b.avg_pool(x, raw_mean=True)), 4), middle)


NETWORKS: dict[str, Callable[[], Graph]] = {
    function.__name__: function
    for function in (
        mobile,
        odd_shapes,
        few_pixels,
        wide,
        keywords,
        vectors,
        grouped,
        pools,
        attention,
        gated,
        moves,
        transposed,
    )
}
