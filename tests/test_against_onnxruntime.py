"""Import: the quantised graph computes what onnxruntime computes from the same QDQ model, within one step.

Layout, padding, groups and the order of a Gemm's columns are where an importer goes wrong without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.frontends.onnx.quantizer import quantize
from tinytrain_compiler.quantize.calibration import Calibration
from tinytrain_compiler.verify import verify
from tools import require_or_skip

Build = Callable[[ModelBuilder], str]


def convolutions(b: ModelBuilder) -> str:
    """Grouped, dilated, strided, asymmetric pads, SAME pads, a depthwise with and without activation."""
    x = b.node("Relu", b.conv(b.input, 3, 6, (3, 2), strides=[2, 1], pads=[0, 1, 2, 0]))
    x = b.conv(x, 6, 8, 3, group=2, dilations=[2, 1], auto_pad="SAME_UPPER")
    x = b.clip(b.conv(x, 8, 8, 5, group=8, strides=[1, 2], auto_pad="SAME_LOWER"))
    x = b.conv(x, 8, 8, 3, group=8, bias=False, pads=[1, 1, 1, 1])
    return b.conv(x, 8, 5, 1, strides=[2, 2])


def pools(b: ModelBuilder) -> str:
    x = b.node("AveragePool", b.input, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1])
    x = b.node("AveragePool", x, kernel_shape=[2, 3], pads=[1, 0, 0, 1], count_include_pad=1)
    x = b.node("MaxPool", b.conv(x, 3, 7, 1), kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[1, 2])
    return b.node("GlobalAveragePool", b.node("Relu", x))


def flattened_image(b: ModelBuilder) -> str:
    """A Gemm's columns are in NCHW order; the device's memory is not."""
    x = b.node("Relu", b.conv(b.input, 3, 4, 3, strides=[4, 3]))
    x = b.node("Flatten", x)
    x = b.node("Relu", b.gemm(x, 4 * 2 * 4, 9))
    return b.node("Softmax", b.gemm(x, 9, 6), axis=1)


def pooled_classifier(b: ModelBuilder) -> str:
    """Mean over space, then every way to drop its empty dimensions."""
    x = b.node("Relu", b.conv(b.input, 3, 10, 3))
    x = b.node("ReduceMean", x, axes=[2, 3], keepdims=1)
    x = b.node("Dropout", b.node("Identity", x))
    x = b.node("Reshape", x, b.const([1, -1], np.int64))
    x = b.node("Unsqueeze", b.node("Squeeze", x, b.const([0], np.int64)), b.const([0], np.int64))
    return b.gemm(x, 10, 4)


def residuals(b: ModelBuilder) -> str:
    """A tensor read three times, additions of tensors with other scales, Relu behind an addition."""
    x = b.conv(b.input, 3, 8, 3, pads=[1, 1, 1, 1])
    y = b.node("Relu", b.node("Add", x, b.conv(x, 8, 8, 1)))
    z = b.node("Add", b.conv(y, 8, 8, 3, group=8, pads=[1, 1, 1, 1]), x)
    return b.conv(b.node("Add", z, y), 8, 3, 1)


def normalised(b: ModelBuilder) -> str:
    x = b.node("Relu", b.batch_norm(b.conv(b.input, 3, 6, 3, bias=False), 6))
    x = b.clip(b.batch_norm(b.conv(x, 6, 6, 3, group=6), 6), -1.0, 2.5)
    return b.conv(x, 6, 4, 1)


def gates(b: ModelBuilder) -> str:
    """Activations as operators and as exporters spell them; gates by channel and by pixel; constants that stay."""
    x = b.conv(b.input, 3, 8, 3)
    x = b.node("Mul", x, b.node("Sigmoid", x))
    y = b.conv(x, 8, 8, 3, group=8, pads=[1, 1, 1, 1])
    y = b.node("Div", b.node("Mul", y, b.clip(b.node("Add", y, b.const(3.0)))), b.const(6.0))
    gate = b.conv(b.node("Relu", b.conv(b.node("GlobalAveragePool", y), 8, 4, 1)), 4, 8, 1)
    y = b.node("Mul", y, b.node("HardSigmoid", gate, alpha=1 / 6))
    x = b.node("Add", x, b.conv(y, 8, 8, 1))
    erf = b.node("Erf", b.node("Div", x, b.const(2**0.5)))
    x = b.node("Mul", b.node("Mul", x, b.node("Add", erf, b.const(1.0))), b.const(0.5))
    x = b.node("Mul", b.node("Tanh", b.conv(x, 8, 1, 1)), x)
    x = b.node("Add", x, b.const(b.random(1, 8, 7, 12)))
    x = b.node("LeakyRelu", b.node("Sub", b.node("GlobalAveragePool", x), x), alpha=0.1)
    return b.node("Sigmoid", b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 8, 6))


def moves(b: ModelBuilder) -> str:
    """Split, Concat of several scales along channels and rows, slices in both directions, padding in every mode."""
    x = b.conv(b.input, 3, 7, 3, pads=[1, 1, 1, 1])
    parts = b.const([3, 4], np.int64)
    left = b.node("Split", x, parts, outputs=2, axis=1)
    right = b.nodes[-1].output[1]
    x = b.node("Relu", b.node("Concat", b.conv(left, 3, 5, 1), right, left, axis=1))
    ints = [b.const(values, np.int64) for values in ([9, 0], [-20, 100], [2, 3], [-2, 3])]
    x = b.node("Concat", x, b.node("Slice", x, *ints[:2], ints[2], b.const([-2, 1], np.int64)), axis=-2)
    x = b.node("Gather", x, b.const([4, 0, -1, 7, 7], np.int64), axis=1)
    for mode, pads in (("reflect", [0, 0, 1, 2, 0, 0, 3, 0]), ("edge", [0, 0, 0, 3, 0, 0, 1, 1])):
        x = b.node("Pad", x, b.const(pads, np.int64), mode=mode)
    x = b.node("Pad", x, b.const([0, 0, -1, 1, 0, 1, 1, -1], np.int64), b.const(0.125))
    return b.conv(b.node("Pad", x, b.const([0, 0, 1, 1, 0, 0, 0, 2], np.int64)), 6, 4, 3)


def resized(b: ModelBuilder) -> str:
    """Nearest neighbours by several rules, up and down, and pixels shuffled into channels and back."""
    x = b.conv(b.input, 3, 8, 1)
    parts = [b.node("Resize", x, "", b.const([1, 1, 2, 1.5]), nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric")]  # fmt: skip
    for mode, nearest in (("half_pixel", "round_prefer_floor"), ("align_corners", "round_prefer_ceil"),
                          ("pytorch_half_pixel", "ceil")):  # fmt: skip
        sizes = b.const([1, 8, 18, 21], np.int64)
        how = {"nearest_mode": nearest, "coordinate_transformation_mode": mode}
        parts.append(b.node("Resize", x, "", "", sizes, **how))
    x = b.conv(b.node("Concat", *parts, axis=1), 32, 8, 1)
    x = b.node("Resize", x, "", "", b.const([1, 8, 6, 10], np.int64))
    x = b.conv(b.node("SpaceToDepth", x, blocksize=2), 32, 12, 1)
    x = b.node("Concat", b.node("DepthToSpace", x, blocksize=2),
               b.node("DepthToSpace", x, blocksize=2, mode="CRD"), axis=1)  # fmt: skip
    return b.conv(x, 6, 4, 1)


def shuffled(b: ModelBuilder) -> str:
    """A ShuffleNet unit: halves of the channels, one convolved, joined, and shuffled by reshapes and a transpose."""
    x = b.node("Relu", b.conv(b.input, 3, 8, 3, pads=[1, 1, 1, 1]))
    for _ in range(2):
        left = b.node("Split", x, b.const([4, 4], np.int64), outputs=2, axis=1)
        y = b.node("Relu", b.conv(b.nodes[-1].output[1], 4, 4, 1))
        y = b.conv(y, 4, 4, 3, group=4, pads=[1, 1, 1, 1])
        x = b.node("Concat", left, b.node("Relu", b.conv(y, 4, 4, 1)), axis=1)
        x = b.node("Reshape", x, b.const([1, 2, 4, 9, 14], np.int64))
        x = b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), b.const([1, 8, 9, 14], np.int64))
    return b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 8, 5)


NETWORKS: dict[str, Build] = {
    f.__name__: f
    for f in (
        convolutions,
        pools,
        flattened_image,
        pooled_classifier,
        residuals,
        normalised,
        gates,
        moves,
        resized,
        shuffled,
    )
}


def check(proto: onnx.ModelProto, folder: Path, identical: float = 0.99) -> None:
    require_or_skip("cc")
    onnx.save(proto, folder / "net.onnx")
    compile_model(folder / "net.onnx", "stm32f746", folder / "out")
    found = verify(load_compiled(folder / "out"), 40)
    assert found["host"] == {"inputs": 40, "mismatched_bytes": 0}
    ort = found["onnxruntime"]
    assert ort["elements"] > 200, "the comparison saw the inner tensors"
    assert ort["largest_step"] <= 1
    assert ort["identical"] >= identical
    assert ort["end_to_end_largest_step"] <= 3
    assert ort["top1_agreement"] >= 0.9


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_is_within_one_step_of_onnxruntime(name: str, tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 9, 14), opset=13)
    # Averages of few steps end on exact halves, which onnxruntime rounds to even.
    check(b.build(NETWORKS[name](b)), tmp_path, identical=0.95 if name == "pools" else 0.99)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_every_opset_is_within_one_step_of_onnxruntime(opset: int, tmp_path: Path) -> None:
    check(small_cnn(opset), tmp_path)


def test_vector_network_is_within_one_step_of_onnxruntime(tmp_path: Path) -> None:
    b = ModelBuilder((1, 37))
    x = b.node("Relu", b.gemm(b.input, 37, 21))
    check(b.build(b.gemm(b.node("Relu", b.gemm(x, 21, 21)), 21, 5)), tmp_path)


def test_vectors_in_two_memory_orders_are_added_in_one(tmp_path: Path) -> None:
    """A flattened image keeps the device's order, a Gemm's output has the file's."""
    b = ModelBuilder((1, 3, 4, 4))
    flat = b.node("Flatten", b.conv(b.input, 3, 2, 1))
    proto = b.build(b.gemm(b.node("Add", flat, b.gemm(flat, 32, 32)), 32, 5))
    check(proto, tmp_path)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_qdq_model_may_leave_its_padding_to_the_operator(auto_pad: str, tmp_path: Path) -> None:
    """Float models get explicit pads on their way to QDQ; a model that comes as QDQ may not have them."""
    b = ModelBuilder((1, 3, 8, 11))
    x = b.conv(b.input, 3, 8, (4, 3), strides=[1, 2], auto_pad=auto_pad)
    proto = b.build(b.conv(x, 8, 8, 2, group=8, auto_pad=auto_pad))
    samples = np.random.default_rng(0).standard_normal((16, 3, 8, 11)).astype(np.float32)
    check(quantize(onnx.shape_inference.infer_shapes(proto), Calibration(samples, "random", len(samples))), tmp_path)


def test_qdq_model_is_taken_as_it_is(tmp_path: Path, small_model: Path) -> None:
    """What a compile wrote as its QDQ model compiles again, to the same network."""
    require_or_skip("cc")
    first = compile_model(small_model, "stm32f746", tmp_path / "first", name="net")
    again = compile_model(tmp_path / "first" / "net.qdq.onnx", "stm32f746", tmp_path / "again", name="net")
    for path in ("net_weights.c", "net_kernels.c", "net_arena.h"):
        assert again.files[path].split(b"*/", 1)[1] == first.files[path].split(b"*/", 1)[1], path
    assert verify(load_compiled(tmp_path / "again"))["host"]["mismatched_bytes"] == 0
