"""Networks whose tensors lie in other orders than images and vectors: 1-D, channels last, shuffled, reduced.

Each is compiled, is exact to the byte and within one step of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import ModelBuilder
from test_against_onnxruntime import check
from tinytrain_compiler import compile_model
from tinytrain_compiler.graph import Graph

Build = Callable[[ModelBuilder], str]


def graph_of(proto: onnx.ModelProto, folder: Path) -> Graph:
    onnx.save(proto, folder / "net.onnx")
    return compile_model(folder / "net.onnx", "stm32f746").graph


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def sensor(b: ModelBuilder) -> str:
    """Conv1d, BatchNorm1d, pools of every kind, a classifier."""
    x = b.node("Relu", b.batch_norm(b.conv(b.input, 3, 8, (3,), pads=[1, 1], bias=False), 8))
    x = b.node("MaxPool", x, kernel_shape=[3], strides=[2], ceil_mode=1)
    x = b.node("Relu", b.conv(x, 8, 8, (5,), group=8, auto_pad="SAME_UPPER"))
    x = b.node("AveragePool", x, kernel_shape=[2], strides=[2])
    x = b.batch_norm(x, 8)
    x = b.node("Relu", b.conv(x, 8, 12, (3,), dilations=[2], group=2))
    return b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 12, 4)


def flattened_series(b: ModelBuilder) -> str:
    x = b.node("Relu", b.conv(b.input, 3, 4, (3,), strides=[3]))
    return b.gemm(b.node("Flatten", x), 4 * 11, 5)


def series_out(b: ModelBuilder) -> str:
    return b.conv(b.node("GlobalMaxPool", b.conv(b.input, 3, 4, (3,))), 4, 4, (1,))


SERIES: dict[str, Build] = {f.__name__: f for f in (sensor, flattened_series, series_out)}


@pytest.mark.parametrize("name", SERIES)
def test_series(name: str, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 33))
    check(b.build(SERIES[name](b)), tmp_path, identical=0.95)


def shuffled(b: ModelBuilder) -> str:
    """As ShuffleNet: reshape, transpose, reshape."""
    x = b.conv(b.input, 3, 6, 1)
    x = b.node("Reshape", x, b.const([1, 2, 3, 6, 8], np.int64))
    x = b.node("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = b.node("Reshape", x, b.const([1, 6, 6, 8], np.int64))
    return b.conv(b.node("Relu", x), 6, 4, 3, group=2)


def tokens(b: ModelBuilder) -> str:
    """Pixels as rows of features and back, with a mean over the rows and one over the features."""
    x = b.node("Reshape", b.conv(b.input, 3, 10, 2, strides=[2, 2]), b.const([1, 10, 12], np.int64))
    x = b.node("Relu", b.node("Transpose", x, perm=[0, 2, 1]))
    y = b.node("Reshape", b.node("ReduceMean", x, axes=[-1], keepdims=0), b.const([1, 12], np.int64))
    x = b.node("ReduceMean", x, axes=[1], keepdims=0)
    return b.node("Add", b.gemm(x, 10, 4), b.gemm(y, 12, 4))


def columns_and_rows(b: ModelBuilder) -> str:
    x = b.node("Relu", b.conv(b.input, 3, 5, 1))
    x = b.node("Add", b.node("ReduceMax", x, axes=[1], keepdims=1), b.node("ReduceMean", x, axes=[1], keepdims=1))
    return b.node("ReduceMean", b.conv(x, 1, 3, 3), axes=[1, 3], keepdims=0)


def twice_flattened(b: ModelBuilder) -> str:
    """A residual of vectors in two orders; an output that is no image."""
    flat = b.node("Flatten", b.node("Relu", b.conv(b.input, 3, 2, 3)))
    return b.node("Reshape", b.node("Add", flat, b.gemm(flat, 48, 48)), b.const([1, 3, 16], np.int64))


def mixed_axes(b: ModelBuilder) -> str:
    """A transposition whose axes share factors with the one before: bytes move twice."""
    x = b.node("Reshape", b.conv(b.input, 3, 4, 1), b.const([1, 12, 16], np.int64))
    x = b.node("Transpose", x, perm=[0, 2, 1])
    x = b.node("Transpose", b.node("Reshape", x, b.const([1, 8, 24], np.int64)), perm=[0, 2, 1])
    return b.node("Relu", b.conv(b.node("Reshape", x, b.const([1, 4, 6, 8], np.int64)), 4, 3, 1))


IMAGES: dict[str, Build] = {
    f.__name__: f for f in (shuffled, tokens, columns_and_rows, twice_flattened, mixed_axes)
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 6, 8), opset=13)
    check(b.build(IMAGES[name](b)), tmp_path, identical=0.9)


def test_a_shuffle_moves_bytes_once(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 6, 8))
    graph = graph_of(b.build(shuffled(b)), tmp_path)
    assert operators(graph) == ["conv2d", "transpose", "conv2d"]
    assert (graph.nodes[1].attributes.sizes, graph.nodes[1].attributes.perm) == ((48, 2, 3), (0, 2, 1))


def channels_last(b: ModelBuilder) -> str:
    """As TensorFlow exports it, with the normalisation before the Transpose."""
    x = b.node("Sub", b.input, b.const([0.1, 0.2, 0.3], np.float32))
    x = b.node("Div", x, b.const([[[2.0, 3.0, 4.0]]], np.float32))
    x = b.node("Transpose", x, perm=[0, 3, 1, 2])
    x = b.node("Relu", b.conv(x, 3, 5, 3))
    return b.node("Transpose", x, perm=[0, 2, 3, 1])


def test_an_image_with_its_channels_last_is_taken_as_it_is(tmp_path: Path) -> None:
    b = ModelBuilder((1, 6, 8, 3))
    proto = b.build(channels_last(b))
    check(proto, tmp_path, identical=0.95)
    graph = graph_of(proto, tmp_path)
    assert "transpose" not in operators(graph)
    assert graph.tensors[graph.input].shape == (6, 8, 3)
    assert graph.sample_layout.shape == (1, 6, 8, 3)
    assert graph.sample_layout.is_row_major
    assert graph.tensors[graph.output].shape == (4, 6, 5)


def test_a_series_lies_as_its_first_operator_wants_it(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 33))
    graph = graph_of(b.build(sensor(b)), tmp_path)
    assert graph.tensors[graph.input].shape == (1, 33, 3)
    assert "transpose" not in operators(graph)
    b = ModelBuilder((1, 33, 3))
    x = b.node("Transpose", b.input, perm=[0, 2, 1])
    graph = graph_of(b.build(b.conv(x, 3, 4, (3,))), tmp_path)
    assert operators(graph) == ["conv2d"]
    assert graph.sample_layout.is_row_major


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 2, 2), (8, 3, 2), (8, 2, 3), (9, 3, 3)])
def test_ceil_mode(pool: str, size: int, kernel: int, stride: int, tmp_path: Path) -> None:
    b = ModelBuilder((1, 2, size, size))
    x = b.node(pool, b.conv(b.input, 2, 3, 1), kernel_shape=[kernel] * 2, strides=[stride] * 2, ceil_mode=1)
    check(b.build(b.conv(x, 3, 24, 1)), tmp_path, identical=0.9)
