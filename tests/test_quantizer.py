"""The QDQ model: every layer between scales, close to the float model, the same on every run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler.errors import UnsupportedModelError
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.file import is_quantized
from tinytrain_compiler.frontends.onnx.float_passes.fold_constants import fold_constants
from tinytrain_compiler.frontends.onnx.oracle import OrtSession
from tinytrain_compiler.frontends.onnx.quantizer import quantize
from tinytrain_compiler.frontends.onnx.reader import top1_agreement
from tinytrain_compiler.quantize.calibration import Calibration

Build = Callable[[ModelBuilder], str]


def samples(*shape: int, n: int = 12) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, *shape)).astype(np.float32)


def quantized(
    build: Build, shape: tuple[int, ...] = (1, 3, 8, 8), x: np.ndarray | None = None
) -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    """Canonical float model, QDQ model, samples."""
    b = ModelBuilder(shape)
    proto = canonicalize(fold_constants(b.build(build(b))))
    x = samples(*shape[1:]) if x is None else x
    return proto, quantize(proto, Calibration(x, "test", len(x))), x


def scale_of(proto: onnx.ModelProto, integers: str) -> tuple[float, int]:
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    node = next(n for n in proto.graph.node if integers in (n.input[0], n.output[0]) and "Linear" in n.op_type)
    return float(constants[node.input[1]]), int(constants[node.input[2]])


def input_integers(qdq: onnx.ModelProto) -> str:
    """Name of the integer tensor behind the QuantizeLinear at the input."""
    return next(n.output[0] for n in qdq.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "input")


def output_integers(qdq: onnx.ModelProto) -> str:
    """Name of the integer tensor in front of the DequantizeLinear that writes the output."""
    return next(n.input[0] for n in qdq.graph.node if n.op_type == "DequantizeLinear" and n.output[0] == "output")


LAYERS: dict[str, Build] = {
    "conv": lambda b: b.conv(b.input, 3, 4),
    "conv without bias": lambda b: b.conv(b.input, 3, 4, bias=False),
    "depthwise relu6": lambda b: b.clip(b.conv(b.input, 3, 3, group=3)),
    "residual relu": lambda b: b.node("Relu", b.node("Add", b.conv(b.input, 3, 3, 1), b.input)),
    "clip around zero": lambda b: b.clip(b.conv(b.input, 3, 4), -0.5, 0.7),
    "clip away from zero": lambda b: b.conv(b.clip(b.conv(b.input, 3, 4), 0.3, 0.7), 4, 2),
    "clip below zero at the end": lambda b: b.clip(b.conv(b.input, 3, 4), -2.0, -0.2),
    "relu at the input": lambda b: b.conv(b.node("Relu", b.input), 3, 4),
    "clip at the input": lambda b: b.conv(b.clip(b.input, -1.0, 0.5), 3, 4),
    "clip at the input, away from zero": lambda b: b.conv(b.clip(b.input, 0.2, 0.5), 3, 4),
    "input read twice": lambda b: b.node("Add", b.node("Relu", b.input), b.conv(b.input, 3, 3, 1)),
    "max pool at the input": lambda b: b.conv(b.node("MaxPool", b.input, kernel_shape=[2, 2]), 3, 4),
    "relu behind a pool": lambda b: b.node("Relu", b.node("MaxPool", b.conv(b.input, 3, 4), kernel_shape=[2, 2])),
    "average pool": lambda b: b.node("AveragePool", b.conv(b.input, 3, 4), kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "relu behind an average pool": lambda b: b.node(
        "Relu", b.node("AveragePool", b.conv(b.input, 3, 4), kernel_shape=[2, 2])
    ),
    "global pool, flatten, gemm, softmax": lambda b: b.node(
        "Softmax", b.gemm(b.node("Flatten", b.node("GlobalAveragePool", b.conv(b.input, 3, 4))), 4, 5)
    ),
    "flatten an image": lambda b: b.gemm(b.node("Flatten", b.input), 192, 5, bias=False),
    "softmax over channels": lambda b: b.node("Softmax", b.conv(b.input, 3, 4), axis=1),
    "shared bias": lambda b: b.node(
        "Add",
        b.node("Conv", b.input, b.const(b.random(2, 3, 1, 1)), "shared_bias"),
        b.node("Conv", b.input, b.const(b.random(2, 3, 1, 1)), b.const([0.5, -1], name="shared_bias")),
    ),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_every_layer_is_quantised_and_close(build: Build) -> None:
    """quantize() itself verifies that nothing stays float."""
    proto, qdq, x = quantized(build)
    assert is_quantized(qdq)
    onnx.checker.check_model(qdq)
    expected, got = OrtSession(proto).run(x)[0], OrtSession(qdq).run(x)[0]
    (step_in, _), (step_out, _) = scale_of(qdq, input_integers(qdq)), scale_of(qdq, output_integers(qdq))
    assert np.abs(got - expected).max() <= step_in + 5 * step_out
    assert [o.name for o in qdq.graph.output] == ["output"]


def test_types_are_int8_and_int32_with_symmetric_weights() -> None:
    _, qdq, _ = quantized(lambda b: b.node("Relu", b.conv(b.input, 3, 4)))
    constants = {t.name: t for t in qdq.graph.initializer}
    found = []
    for node in qdq.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        if node.input[0] in constants:
            assert scale.shape == (4,)
            assert not zero.any()
            found.append(constants[node.input[0]].data_type)
        else:
            assert scale.shape == ()
            assert zero.dtype == np.int8
    assert sorted(found) == sorted([TensorProto.INT8, TensorProto.INT32])


def test_a_dead_layer_still_clips_and_dead_channels_get_small_scales() -> None:
    """Without a smallest range they would get scale 1, and the dead Relu a zero point that lets values through."""

    def build(b: ModelBuilder) -> str:
        weight = b.random(4, 3, 1, 1)
        weight[1] = 0
        weight[2] = 1e-30
        x = b.node("Relu", b.node("Conv", b.input, b.const(weight), b.const([-100.0] * 4)))
        return b.node("Conv", x, b.const(weight.transpose(1, 0, 2, 3)))

    _, qdq, _ = quantized(build)
    constants = {t.name: numpy_helper.to_array(t) for t in qdq.graph.initializer}
    scales = [constants[n.input[1]] for n in qdq.graph.node if n.op_type == "DequantizeLinear"]
    assert max(float(s.max()) for s in scales if s.shape) < 0.1
    relu = next(n for n in qdq.graph.node if n.op_type == "QuantizeLinear" and n.input[0] != "input")
    assert constants[relu.input[2]] == -128


def test_pools_and_reshapes_share_their_inputs_scale() -> None:
    """MaxPool on the device has no arithmetic to change a scale with."""
    _, qdq, _ = quantized(
        lambda b: b.node("Relu", b.node("Flatten", b.node("MaxPool", b.conv(b.input, 3, 4), kernel_shape=[2, 2])))
    )
    producers = {name: n for n in qdq.graph.node for name in n.output}
    for node in qdq.graph.node:
        if node.op_type in ("MaxPool", "Reshape"):
            before = producers[node.input[0]]
            after = next(n for n in qdq.graph.node if node.output[0] in n.input)
            assert list(before.input[1:]) == list(after.input[1:])


def test_same_input_same_bytes() -> None:
    proto = canonicalize(fold_constants(small_cnn()))
    calibration = Calibration(samples(3, 12, 12), "test", 0)
    before = proto.SerializeToString()
    first, second = (quantize(proto, calibration).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert proto.SerializeToString() == before


def test_agreement_progress_and_integers(capfd: pytest.CaptureFixture[str]) -> None:
    proto = canonicalize(fold_constants(small_cnn()))
    x = samples(3, 12, 12, n=40)
    seen: list[tuple[int, int]] = []
    qdq = quantize(proto, Calibration(x, "test", len(x)), lambda done, total: seen.append((done, total)))
    assert seen == [(i, 40) for i in range(41)]
    assert top1_agreement(proto, qdq, x) > 0.8
    assert top1_agreement(proto, proto, x) == 1.0
    integers = OrtSession(qdq, [output_integers(qdq)]).run(x)[0]
    assert integers.dtype == np.int8
    assert integers.shape == (40, 5)
    scale, zero = scale_of(qdq, output_integers(qdq))
    real = OrtSession(qdq).run(x)[0]
    np.testing.assert_array_equal((integers.astype(np.float32) - zero) * np.float32(scale), real)
    pixels, again = OrtSession(qdq, [input_integers(qdq), "output"]).run(x)
    assert pixels.dtype == np.int8
    assert pixels.shape == x.shape
    np.testing.assert_array_equal(again, real)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.filterwarnings("error")
def test_weights_that_folding_makes_infinite_are_refused_by_name() -> None:
    """A BatchNormalization with variance 0 and epsilon 0: nothing in the file itself is infinite."""
    b = ModelBuilder((1, 3, 8, 8))
    x = b.conv(b.input, 3, 4, name="stem")
    parameters = [b.const(v) for v in (np.ones(4), np.zeros(4), np.zeros(4), [1.0, 0.0, 1.0, 1.0])]
    x = b.node("Relu", b.node("BatchNormalization", x, *parameters, epsilon=0.0, name="norm"))
    with pytest.raises(UnsupportedModelError, match=r"Conv 'stem': folding .* makes its weights infinite"):
        canonicalize(fold_constants(b.build(b.conv(x, 4, 2, name="next"))))


@pytest.mark.parametrize("kind", ["autoencoder", "image", "one value"])
def test_agreement_is_of_answers_alone(kind: str) -> None:
    """The largest of an autoencoder's outputs says nothing, and a low agreement had warned of it."""
    b = ModelBuilder((1, 12) if kind == "autoencoder" else (1, 3, 8, 8))
    if kind == "autoencoder":
        proto, shape = b.build(b.gemm(b.gemm(b.input, 12, 4), 4, 12)), (12,)
    elif kind == "image":
        proto, shape = b.build(b.conv(b.input, 3, 2, 1)), (3, 8, 8)
    else:
        pooled = b.node("Flatten", b.node("GlobalAveragePool", b.input))
        proto, shape = b.build(b.gemm(pooled, 3, 1)), (3, 8, 8)
    samples = np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32)
    assert top1_agreement(proto, proto, samples) is None
