"""Transformers: attention, layer normalisation and layers over tokens are exact, and within a step of onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import ModelBuilder
from tinytrain_compiler import compile_model
from tinytrain_compiler.compile import Artifacts
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import UnsupportedModelError, UsageError
from tinytrain_compiler.verify import verify
from tools import require_or_skip


def linear(b: ModelBuilder, x: str, inputs: int, outputs: int) -> str:
    """As PyTorch writes a Linear layer over tokens."""
    product = b.node("MatMul", x, b.const(b.random(inputs, outputs, scale=inputs**-0.5)))
    return b.node("Add", b.const(b.random(outputs, scale=0.1)), product)


def layer_norm(b: ModelBuilder, x: str, n: int) -> str:
    scale, shift = b.const(1 + b.random(n, scale=0.3)), b.const(b.random(n, scale=0.3))
    return b.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-6)


def spelled(b: ModelBuilder, x: str, n: int, axis: int = -1, rank: int = 3) -> str:
    """As older opsets have it; over the channels of an image too."""
    shape = [n if i == axis % rank else 1 for i in range(rank)]
    centred = b.node("Sub", x, b.node("ReduceMean", x, axes=[axis]))
    variance = b.node("ReduceMean", b.node("Mul", centred, centred), axes=[axis])
    normal = b.node("Div", centred, b.node("Sqrt", b.node("Add", variance, b.const(1e-6))))
    scale, shift = b.const(1 + b.random(*shape, scale=0.3)), b.const(b.random(*shape, scale=0.3))
    return b.node("Add", b.node("Mul", scale, normal), shift)


def attention(b: ModelBuilder, x: str, tokens: int, size: int, heads: int) -> str:
    """Both sides of the scores are scaled, as torch's scaled_dot_product_attention does it."""

    def split(perm: list[int]) -> str:
        each = b.node("Reshape", linear(b, x, size, size), b.const([1, tokens, heads, size // heads], np.int64))
        return b.node("Transpose", each, perm=perm)

    half = b.const((size / heads) ** -0.25)
    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = b.node("MatMul", b.node("Mul", q, half), b.node("Mul", k, half))
    mixed = b.node("MatMul", b.node("Softmax", scores, axis=-1), v)
    mixed = b.node("Reshape", b.node("Transpose", mixed, perm=[0, 2, 1, 3]), b.const([1, tokens, size], np.int64))
    return linear(b, mixed, size, size)


def vit(opset: int = 17) -> onnx.ModelProto:
    """Four patches a side, two blocks; before opset 17 layer normalisation is spelled out."""
    b, size, tokens = ModelBuilder((1, 3, 8, 8), opset), 12, 16
    norm = layer_norm if opset >= 17 else spelled
    x = b.node("Reshape", b.conv(b.input, 3, size, 2, strides=[2, 2]), b.const([1, size, tokens], np.int64))
    x = b.node("Transpose", x, perm=[0, 2, 1])
    for _ in range(2):
        x = b.node("Add", x, attention(b, norm(b, x, size), tokens, size, 3))
        hidden = b.node("Relu", linear(b, norm(b, x, size), size, 2 * size))
        x = b.node("Add", x, linear(b, hidden, 2 * size, size))
    x = b.node("Transpose", norm(b, x, size), perm=[0, 2, 1])
    x = b.node("GlobalAveragePool", b.node("Reshape", x, b.const([1, size, 4, 4], np.int64)))
    return b.build(b.gemm(b.node("Flatten", x), size, 10))


def convnext() -> onnx.ModelProto:
    """A block as PyTorch writes it: channels go last for its norm and layers; one norm of an image's channels."""
    b = ModelBuilder((1, 3, 8, 8))
    x = spelled(b, b.conv(b.input, 3, 12, 2, strides=[2, 2]), 12, axis=1, rank=4)
    y = b.node("Transpose", b.conv(x, 12, 12, 3, group=12, pads=[1, 1, 1, 1]), perm=[0, 2, 3, 1])
    y = linear(b, b.node("Relu", linear(b, layer_norm(b, y, 12), 12, 24)), 24, 12)
    y = b.node("Mul", b.node("Transpose", y, perm=[0, 3, 1, 2]), b.const(b.random(1, 12, 1, 1)))  # its layer scale
    x = b.node("Add", x, y)
    return b.build(b.gemm(b.node("Flatten", b.node("GlobalAveragePool", x)), 12, 5))


def mixer() -> onnx.ModelProto:
    """One layer mixes the tokens of each feature, one the features of each token."""
    b, size, tokens = ModelBuilder((1, 3, 8, 8)), 12, 16
    x = b.node("Reshape", b.conv(b.input, 3, size, 2, strides=[2, 2]), b.const([1, size, tokens], np.int64))
    x = b.node("Transpose", x, perm=[0, 2, 1])
    y = b.node("Transpose", layer_norm(b, x, size), perm=[0, 2, 1])
    y = linear(b, b.node("Relu", linear(b, y, tokens, 20)), 20, tokens)
    x = b.node("Add", x, b.node("Transpose", y, perm=[0, 2, 1]))
    x = b.node("Add", x, linear(b, b.node("Relu", linear(b, layer_norm(b, x, size), size, 24)), 24, size))
    return b.build(b.gemm(b.node("Reshape", x, b.const([1, size * tokens], np.int64)), size * tokens, 5))


def compiled(proto: onnx.ModelProto, folder: Path, **options: object) -> Artifacts:
    onnx.save(proto, folder / "net.onnx")
    return compile_model(folder / "net.onnx", "stm32f746", folder / "out", **options)


def check(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators of a network whose C is exact, and which is nowhere more than a step from onnxruntime."""
    require_or_skip("cc")
    graph = compiled(proto, folder).graph
    found = verify(load_compiled(folder / "out"), 20)
    assert found["host"]["mismatched_bytes"] == 0
    assert found["onnxruntime"]["largest_step"] <= 1
    assert found["onnxruntime"]["identical"] >= 0.999
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_a_vision_transformer(opset: int, tmp_path: Path) -> None:
    ops = check(vit(opset), tmp_path)
    assert (ops.count("matmul"), ops.count("layer_norm"), ops.count("softmax")) == (4, 5, 2)
    assert ops.count("conv2d") == 1 + 2 * 6, "layers over tokens are convolutions"
    assert not {"transpose", "lookup", "depthwise_conv2d"} & set(ops), "nothing is moved, and scaling costs nothing"


def test_a_convnext(tmp_path: Path) -> None:
    ops = check(convnext(), tmp_path)
    assert (ops.count("layer_norm"), ops.count("depthwise_conv2d")) == (2, 1)
    assert "transpose" not in ops


def test_an_mlp_mixer(tmp_path: Path) -> None:
    ops = check(mixer(), tmp_path)
    assert ops.count("conv2d") == 1 + 4
    assert ops.count("transpose") == 2, "there and back, for the layers over tokens alone"


def test_softmax_runs_over_any_axis(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 6, 5))
    x = b.node("Softmax", b.conv(b.input, 3, 4, 3), axis=2)
    x = b.conv(b.node("Softmax", b.conv(x, 4, 4, 1), axis=-1), 4, 2, 1)
    assert check(b.build(x), tmp_path).count("softmax") == 2


def test_more_than_two_batch_axes_are_refused_by_name(tmp_path: Path) -> None:
    b = ModelBuilder((1, 2, 4, 4))
    x = b.conv(b.input, 2, 48, 1)
    shape = b.const([2, 3, 2, 4, 4, 4], np.int64)
    a = b.node("Transpose", b.node("Reshape", x, shape), perm=[2, 1, 0, 3, 4, 5])
    y = b.node("MatMul", a, b.node("Reshape", b.conv(b.input, 2, 48, 1), shape), name="product")
    with pytest.raises(UnsupportedModelError, match="MatMul 'product'"):
        compiled(b.build(b.node("Reshape", y, b.const([1, 768], np.int64))), tmp_path)


def test_policies_train_what_lies_behind_the_last_norm_alone(tmp_path: Path) -> None:
    """Every layer of this network has a norm behind it but the classifier."""
    with pytest.raises(UsageError, match=r"gradients reach no layer with weights .*layer_norm .*--policy none"):
        compiled(vit(), tmp_path, policy="tinytrain")


@pytest.mark.parametrize("per_channel", [True, False])
def test_matmul_as_onnxruntime_quantises_it(per_channel: bool, tmp_path: Path) -> None:
    """Weights with a scale for each output (their last axis) or one for all, over tokens; activations in uint8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(np.random.default_rng(0).standard_normal((4, 1, 3, 4, 4)).astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"input": x} for x in self.left), None)

    b = ModelBuilder((1, 3, 4, 4))
    x = b.node("Reshape", b.conv(b.input, 3, 8, 1), b.const([1, 8, 16], np.int64))
    x = b.node("Transpose", x, perm=[0, 2, 1])
    q, k = (b.node("MatMul", x, b.const(b.random(8, 6))) for _ in range(2))
    scores = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 2, 1])), axis=-1)
    x = b.node("MatMul", scores, b.node("MatMul", x, b.const(b.random(8, 6))))
    onnx.save(b.build(b.gemm(b.node("Reshape", x, b.const([1, 96], np.int64)), 96, 5)), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Samples(), quant_format=QuantFormat.QDQ,
        per_channel=per_channel, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    ops = check(onnx.load(tmp_path / "qdq.onnx"), tmp_path)
    assert (ops.count("matmul"), ops.count("conv2d"), ops.count("fully_connected")) == (2, 4, 1)


def test_a_class_token_with_heads_in_front(tmp_path: Path) -> None:
    """A token and embedded positions, q, k and v from one layer, taken from an axis in front; one token out."""
    b, size, tokens = ModelBuilder((1, 3, 8, 8)), 12, 17
    x = b.node("Reshape", b.conv(b.input, 3, size, 2, strides=[2, 2]), b.const([1, size, 16], np.int64))
    x = b.node("Concat", b.const(b.random(1, 1, size)), b.node("Transpose", x, perm=[0, 2, 1]), axis=1)
    x = b.node("Add", x, b.const(b.random(1, tokens, size)))
    qkv = b.node("Reshape", linear(b, layer_norm(b, x, size), size, 3 * size), b.const([1, tokens, 3, 3, 4], np.int64))
    qkv = b.node("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    ends = [b.const([i], np.int64) for i in range(4)]
    q, k, v = (b.node("Squeeze", b.node("Slice", qkv, *ends[i : i + 2], ends[0]), ends[0]) for i in range(3))
    scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = b.node("Transpose", b.node("MatMul", b.node("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = b.node("Add", x, linear(b, b.node("Reshape", mixed, b.const([1, tokens, size], np.int64)), size, size))
    x = b.node("Gather", layer_norm(b, x, size), b.const(0, np.int64), axis=1)
    ops = check(b.build(b.gemm(x, size, 5)), tmp_path)
    assert (ops.count("take"), ops.count("broadcast_add"), ops.count("concat")) == (1 + 3 + 1, 1, 0), "one Add for both"


def test_constants_are_joined_to_activations(tmp_path: Path) -> None:
    """In front, between and behind, along an axis in the middle, with no Add behind."""
    b = ModelBuilder((1, 3, 4, 4))
    x, y = b.conv(b.input, 3, 4, 1), b.conv(b.input, 3, 2, 1)
    c = [b.const(b.random(1, n, 4, 4)) for n in (1, 2, 3)]
    joined = b.node("Concat", c[0], x, c[1], y, c[2], axis=1)
    ops = check(b.build(b.conv(joined, 12, 3, 1)), tmp_path)
    assert (ops.count("take"), ops.count("broadcast_add"), ops.count("concat")) == (2, 1, 1)


def test_indices_of_several_dimensions(tmp_path: Path) -> None:
    """One value of each group of channels, as (1, 3, 2) images' axes."""
    b = ModelBuilder((1, 3, 4, 4))
    x = b.node("Gather", b.conv(b.input, 3, 6, 1), b.const([[5, 0, 3], [1, 1, 2]], np.int64), axis=1)  # (1, 2, 3, 4, 4)
    x = b.node("Reshape", b.node("Transpose", x, perm=[0, 2, 1, 3, 4]), b.const([1, 6, 4, 4], np.int64))
    assert check(b.build(b.conv(x, 6, 3, 1)), tmp_path).count("take") == 1


def test_a_gemm_over_tokens_in_front(tmp_path: Path) -> None:
    """As nn.MultiheadAttention projects what it mixed: tokens go first, and rows of a Gemm are tokens."""
    b, size, tokens = ModelBuilder((1, 6, 8)), 8, 6
    x = b.node("Transpose", linear(b, b.input, 8, size), perm=[1, 0, 2])  # (tokens, 1, size)
    y = b.gemm(b.node("Reshape", x, b.const([tokens, size], np.int64)), size, size)
    y = b.node("Transpose", b.node("Reshape", y, b.const([tokens, 1, size], np.int64)), perm=[1, 0, 2])
    y = layer_norm(b, b.node("Add", b.node("Transpose", x, perm=[1, 0, 2]), y), size)
    ops = check(b.build(b.gemm(b.node("Gather", y, b.const(0, np.int64), axis=1), size, 3)), tmp_path)
    assert ops.count("conv2d") == 2
    assert "transpose" not in ops


def test_a_gemm_over_the_rows_of_a_flattened_image(tmp_path: Path) -> None:
    b = ModelBuilder()
    rows = b.gemm(b.node("Flatten", b.conv(b.input, 3, 2, 1), axis=2), 64, 3)  # (2, 3), no samples
    x = b.gemm(b.node("Reshape", rows, b.const([1, 6], np.int64)), 6, 4)
    assert check(b.build(x), tmp_path).count("conv2d") == 2


def test_one_of_several_in_front_is_taken_where_it_does_not_lie_in_front(tmp_path: Path) -> None:
    """As nn.MultiheadAttention takes q, k and v: (3, 1, tokens, size) in the file, (tokens, 3, size) in memory."""
    b, size, tokens = ModelBuilder((1, 6, 8)), 8, 6
    x = b.node("Transpose", linear(b, b.input, 8, 3 * size), perm=[1, 0, 2])  # (tokens, 1, 3 size)
    x = b.node("Reshape", x, b.const([1, tokens, 1, 3, size], np.int64))
    x = b.node("Squeeze", b.node("Transpose", x, perm=[3, 1, 2, 0, 4]), b.const([3], np.int64))
    q, k, v = (b.node("Gather", x, b.const(i, np.int64), axis=0) for i in range(3))  # (tokens, 1, size) each
    x = b.node("Reshape", b.node("Add", b.node("Add", q, k), v), b.const([1, tokens * size], np.int64))
    assert check(b.build(b.gemm(x, tokens * size, 3)), tmp_path).count("take") == 3
