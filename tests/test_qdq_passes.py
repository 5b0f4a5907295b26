"""Spellings of quantised models: each computes what the file itself computes in onnxruntime, to the step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import ModelBuilder
from test_qdq import activation, dequantize, quantize
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.errors import UnsupportedModelError, UsageError
from tinytrain_compiler.frontends.onnx.float_passes.runtime import new_session
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.reference import run

ROOT = Path(__file__).resolve().parents[1]
MICROSOFT = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def agrees(proto: onnx.ModelProto, folder: Path) -> Artifacts:
    """Compile a model and compare it with the file: at most one step of the output apart."""
    onnx.save(proto, folder / "net.onnx")
    found = compile_model(folder / "net.onnx", "stm32f746")
    graph = found.graph
    session = new_session(proto)
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    samples = np.random.default_rng(3).uniform(-1, 1, (6, *entry.shape[1:])).astype(np.float32)
    x, y = (graph.tensors[name].quantization for name in (graph.input, graph.output))
    inputs = quantize_samples(samples, graph.tensors[graph.input], graph.sample_layout)
    for sample, ours in zip(samples, inputs, strict=True):
        given: Any = sample
        if entry.type != "tensor(float)":
            unsigned = entry.type == "tensor(uint8)"
            integers = np.rint(sample / x.scale) + x.zero_point + 128 * unsigned
            given = np.clip(integers, -128 + 128 * unsigned, 127 + 128 * unsigned).astype(
                np.uint8 if unsigned else np.int8
            )
        (result,) = session.run(None, {entry.name: given[None]})
        steps = result.astype(np.int64) - 128 * (result.dtype == np.uint8)
        if exit_.type == "tensor(float)":
            steps = np.clip(np.rint(result / y.scale) + y.zero_point, -128, 127)
        steps = graph.answer_layout.to_device(steps)
        assert np.abs(run(graph, ours)[0] - steps.reshape(-1)).max() <= 1
    return found


def scaled(b: ModelBuilder, scale: float, zero: int, dtype: Any = np.uint8) -> list[str]:
    return [b.const(scale), b.const(zero, dtype)]


def linear(b: ModelBuilder, op: str, *inputs: str, domain: str = "com.microsoft", **attributes: Any) -> str:
    return b.node(op, *inputs, domain=domain, **attributes)


def integers(b: ModelBuilder, *shape: int, zero: int = 128) -> str:
    """Weights that leave int8 on neither side of their zero point."""
    return b.const(b.rng.integers(zero - 127, zero + 127, shape), np.uint8)


X, Y, W = (0.01, 128), (0.05, 100), (0.01, 128)


def q_linear_conv(b: ModelBuilder, x: str) -> str:
    bias = b.const([-300, 0, 200], np.int32)
    weights = [integers(b, 3, 3, 3, 3), b.const([0.01, 0.02, 0.005]), b.const([128] * 3, np.uint8)]
    return b.node("QLinearConv", x, *scaled(b, *X), *weights, *scaled(b, *Y), bias)


def q_gemm(b: ModelBuilder, x: str, **attributes: Any) -> str:
    inputs = [x, *scaled(b, *X), integers(b, 4, 192), *scaled(b, *W), b.const([9, 8, -7, 6], np.int32)]
    return linear(b, "QGemm", *inputs, *scaled(b, *Y), transB=1, **attributes)


def q_matmul(b: ModelBuilder, x: str) -> str:
    weights = [integers(b, 192, 4), b.const([0.01, 0.02, 0.005, 0.01]), b.const([128] * 4, np.uint8)]
    return b.node("QLinearMatMul", x, *scaled(b, *X), *weights, *scaled(b, *Y))


def unary(op: str, y: tuple[float, int], **attributes: Any) -> Callable[[ModelBuilder, str], str]:
    return lambda b, x: linear(b, op, x, *scaled(b, *X), *scaled(b, *y), **attributes)


OPERATORS: dict[str, tuple[Callable[[ModelBuilder, str], str], tuple[float, int], tuple[int, ...]]] = {
    "QLinearConv per channel": (q_linear_conv, Y, (1, 3, 8, 8)),
    "QGemm": (q_gemm, Y, (1, 192)),
    "QGemm with alpha": (lambda b, x: q_gemm(b, x, alpha=0.5), Y, (1, 192)),
    "QLinearMatMul per column": (q_matmul, Y, (1, 192)),
    "QLinearAdd": (
        lambda b, x: linear(b, "QLinearAdd", x, *scaled(b, *X), x, *scaled(b, *X), *scaled(b, *Y)),
        Y,
        (1, 12),
    ),
    "QLinearAveragePool": (
        unary("QLinearAveragePool", (0.008, 120), kernel_shape=[2, 2], strides=[2, 2]),
        (0.008, 120),
        (1, 1, 8, 8),
    ),
    "QLinearGlobalAveragePool": (unary("QLinearGlobalAveragePool", (0.004, 128)), (0.004, 128), (1, 5, 6, 6)),
    "QLinearSoftmax": (unary("QLinearSoftmax", (1 / 256, 0), axis=1, opset=13), (1 / 256, 0), (1, 10)),
    "QLinearSoftmax over the last axis, as before opset 13": (
        unary("QLinearSoftmax", (1 / 256, 0), axis=1, opset=11),
        (1 / 256, 0),
        (1, 10),
    ),
    "MaxPool of integers": (lambda b, x: b.node("MaxPool", x, kernel_shape=[3, 3]), X, (1, 1, 8, 8)),
    "Reshape of integers": (lambda b, x: b.node("Reshape", x, b.const([1, 64], np.int64)), X, (1, 1, 8, 8)),
    "Clip of integers": (lambda b, x: b.node("Clip", x, b.const(100, np.uint8), b.const(200, np.uint8)), X, (1, 12)),
}


@pytest.mark.parametrize("what", OPERATORS)
def test_operators_on_integers(what: str, tmp_path: Path) -> None:
    """QOperator form; com.microsoft's 8-bit QuantizeLinear and DequantizeLinear around it."""
    operator, y, shape = OPERATORS[what]
    b = ModelBuilder(shape)
    x = linear(b, "QuantizeLinear", b.input, *scaled(b, *X))
    x = linear(b, "DequantizeLinear", operator(b, x), *scaled(b, *y))
    agrees(b.build(x, opset_imports=MICROSOFT), tmp_path)


def test_an_operator_without_a_zero_point_is_refused_by_name(tmp_path: Path) -> None:
    b = ModelBuilder((1, 12))
    x = b.node("QuantizeLinear", b.input, *scaled(b, *X))
    x = linear(b, "QLinearAdd", x, b.const(0.01), "", x, b.const(0.01), "", *scaled(b, *Y))
    onnx.save(b.build(b.node("DequantizeLinear", x, *scaled(b, *Y)), opset_imports=MICROSOFT), tmp_path / "net.onnx")
    with pytest.raises(Exception, match=r"com.microsoft.QLinearAdd 'qlinearadd_1': "):
        compile_model(tmp_path / "net.onnx", "stm32f746")


def cut(proto: onnx.ModelProto, dtype: int, *, front: bool, back: bool) -> onnx.ModelProto:
    """The same model without the QuantizeLinear it begins with, and without the DequantizeLinear it ends with."""
    nodes = list(proto.graph.node)
    if front:
        first = nodes.pop(next(i for i, n in enumerate(nodes) if n.op_type == "QuantizeLinear"))
        for node in nodes:
            node.input[:] = ["input" if name == first.output[0] else name for name in node.input]
        proto.graph.input[0].type.tensor_type.elem_type = dtype
    if back:
        last = nodes.pop(next(i for i, n in reversed(list(enumerate(nodes))) if n.op_type == "DequantizeLinear"))
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info(last.input[0], dtype, None))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@pytest.mark.parametrize(("dtype", "zero"), [(TensorProto.UINT8, 128), (TensorProto.INT8, 7)])
@pytest.mark.parametrize(("front", "back"), [(True, True), (True, False), (False, True)])
def test_ends_of_integers(dtype: int, zero: int, front: bool, back: bool, tmp_path: Path) -> None:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    b = ModelBuilder((1, 1, 8, 8))
    x = dequantize(b, quantize(b, b.input, 0.01, zero, kind), 0.01, zero, kind)
    w = dequantize(b, b.const(b.rng.integers(-127, 128, (1, 1, 3, 3)), np.int8), 0.01, 0)
    x = quantize(b, b.node("Conv", x, w), 0.05, zero, kind)
    proto = b.build(b.node("Identity", dequantize(b, x, 0.05, zero, kind)))
    proto.graph.node[-2].output[0] = "output"
    del proto.graph.node[-1]
    found = agrees(cut(proto, dtype, front=front, back=back), tmp_path)
    assert any("'input' is" in note and "in the file" in note for note in found.notes) == front


def test_integers_that_nothing_dequantises_are_refused(tmp_path: Path) -> None:
    b = ModelBuilder((1, 12))
    proto = b.build(b.node("Cast", b.input, to=TensorProto.FLOAT))
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="input 'input' has type uint8, supported is float32"):
        compile_model(tmp_path / "net.onnx", "stm32f746")


def gemm(b: ModelBuilder, x: str, weights: str) -> str:
    return activation(b, b.node("MatMul", x, weights), 0.05, -4)


@pytest.mark.parametrize(
    "moved",
    [
        lambda b: b.node(
            "Transpose",
            dequantize(
                b, b.const(b.rng.integers(-127, 128, (4, 12)), np.int8), [0.01, 0.02, 0.005, 0.01], [0] * 4, axis=0
            ),
            perm=[1, 0],
        ),
        lambda b: b.node(
            "Reshape",
            dequantize(
                b, b.const(b.rng.integers(-127, 128, (2, 6, 4)), np.int8), [0.01, 0.02, 0.005, 0.01], [0] * 4, axis=2
            ),
            b.const([12, 4], np.int64),
        ),
    ],
    ids=["transposed", "reshaped"],
)  # fmt: skip
def test_weights_that_are_moved_behind_their_scales(moved: Callable[[ModelBuilder], str], tmp_path: Path) -> None:
    b = ModelBuilder((1, 12))
    agrees(b.build(gemm(b, activation(b, b.input, 0.01, 3), moved(b))), tmp_path)


def test_weights_that_the_file_quantises_itself(tmp_path: Path) -> None:
    """An initializer, QuantizeLinear, the Clip of a narrow range, DequantizeLinear."""
    b = ModelBuilder((1, 12))
    w = quantize(b, b.const(b.random(12, 4, scale=0.6)), 0.01, 0)
    w = dequantize(b, b.node("Clip", w, b.const(-127, np.int8), b.const(127, np.int8)), 0.01, 0)
    agrees(b.build(gemm(b, activation(b, b.input, 0.01, 3), w)), tmp_path)


@pytest.mark.parametrize("op", ["Flatten", "MaxPool"])
def test_what_stands_in_front_of_the_first_quantiser(op: str, tmp_path: Path) -> None:
    b = ModelBuilder((1, 1, 4, 4))
    x = b.input
    if op == "MaxPool":
        x = b.node("MaxPool", x, kernel_shape=[2, 2])
    x = activation(b, b.node("Flatten", x), 0.01, 3)
    size = {"Flatten": 16, "MaxPool": 9}[op]
    w = dequantize(b, b.const(b.rng.integers(-127, 128, (size, 4)), np.int8), 0.01, 0)
    agrees(b.build(gemm(b, x, w)), tmp_path)


def test_a_result_quantised_twice(tmp_path: Path) -> None:
    """Once like the first, once with another scale and behind a Relu: the layer is computed for each scale."""
    b = ModelBuilder((1, 12))
    w = dequantize(b, b.const(b.rng.integers(-127, 128, (12, 4)), np.int8), 0.01, 0)
    x = b.node("MatMul", activation(b, b.input, 0.01, 3), w, name="layer")
    same = [activation(b, x, 0.02, -4) for _ in range(2)]
    other = activation(b, b.node("Relu", x), 0.03, -128)
    x = activation(b, b.node("Add", *same), 0.05, 0)
    found = agrees(b.build(activation(b, b.node("Add", x, other), 0.06, 0)), tmp_path)
    assert sum(node.op == "fully_connected" for node in found.graph.nodes) == 2
    assert any("layer" in note for note in found.notes)


TAILS: dict[str, tuple[Callable[[ModelBuilder, str], str], bool]] = {
    "MatMul": (lambda b, x: b.node("MatMul", x, integer_matrix(b)), True),
    "MatMul, Relu": (lambda b, x: b.node("Relu", b.node("MatMul", x, integer_matrix(b))), True),
    "MatMul, Softmax": (lambda b, x: b.node("Softmax", b.node("MatMul", x, integer_matrix(b)), axis=1), True),
    "Softmax": (lambda b, x: b.node("Softmax", x, axis=1), False),
    "Reshape": (lambda b, x: b.node("Reshape", x, b.const([1, 12], np.int64)), False),
    "Relu": (lambda b, x: b.node("Relu", x), False),
}


def integer_matrix(b: ModelBuilder) -> str:
    return dequantize(b, b.const(b.rng.integers(-127, 128, (12, 4)), np.int8), 0.01, 0)


@pytest.mark.parametrize("what", TAILS)
def test_a_float_end(what: str, tmp_path: Path) -> None:
    tail, measured = TAILS[what]
    b = ModelBuilder((1, 12))
    x = activation(b, b.node("MatMul", activation(b, b.input, 0.01, 3), square(b)), 0.02, 4)
    found = agrees(b.build(tail(b, x)), tmp_path)
    assert any("in float: quantised to int8 from" in note for note in found.notes) == measured
    assert (found.graph.tensors[found.graph.output].quantization.scale == 1 / 256) == ("Softmax" in what)


def square(b: ModelBuilder) -> str:
    return dequantize(b, b.const(b.rng.integers(-127, 128, (12, 12)), np.int8), 0.01, 0)


def test_float_results_between_layers(tmp_path: Path) -> None:
    """As PyTorch's quantiser leaves an Add and a mean: one layer's sum with another's, which is quantised too."""
    b = ModelBuilder((1, 12))
    x = activation(b, b.input, 0.01, 3)
    first = b.node("MatMul", x, square(b), name="first")
    both = b.node("Add", first, activation(b, first, 0.06, 0))
    found = agrees(b.build(activation(b, b.node("MatMul", both, square(b)), 1.0, 0)), tmp_path)
    assert [note.split("'")[1] for note in found.notes if "in float" in note] == [first, both]


def test_an_export_of_pytorch(tmp_path: Path) -> None:
    """torchao's pt2e with its quantiser for x86 and the exporter of PyTorch 2.13: weights per channel, float biases, an
    Add and a mean in float, the last layer open."""
    samples = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    path = ROOT / "tests" / "data" / "pytorch_pt2e_x86.onnx"
    found = compile_model(path, "stm32f746", calibration=tmp_path / "samples.npy", name="net")
    graph, session = found.graph, new_session(onnx.load(path))
    q = graph.tensors[graph.output].quantization
    inputs = quantize_samples(samples, graph.tensors[graph.input], graph.sample_layout)
    ours = [(run(graph, x)[0].astype(np.float32) - q.zero_point) * np.float32(q.scale) for x in inputs]
    theirs = [session.run(None, {"x": x[None]})[0][0] for x in samples]
    np.testing.assert_allclose(ours, theirs, atol=3 * q.scale)  # the file leaves three results in float
    assert [note.split("'")[1] for note in found.notes if "in float" in note] == ["conv2d_2", "add", "linear"]


def test_weights_that_int8_does_not_hold(tmp_path: Path) -> None:
    b = ModelBuilder((1, 12))
    w = dequantize(b, b.const(np.arange(48).reshape(12, 4) * 5, np.uint8), 0.01, 100, np.uint8)
    onnx.save(b.build(gemm(b, activation(b, b.input, 0.01, 3), w)), tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModelError, match=r"go from -100 to 135, which int8 does not hold.*symmetrically"):
        compile_model(tmp_path / "net.onnx", "stm32f746")


def test_a_float_layer_between_quantisers_is_refused_by_name(tmp_path: Path) -> None:
    b = ModelBuilder((1, 12))
    x = activation(b, b.node("MatMul", activation(b, b.input, 0.01, 3), square(b)), 0.05, 0)
    x = b.node("MatMul", x, b.const(b.random(12, 12)), name="island")
    onnx.save(b.build(activation(b, x, 0.2, 0)), tmp_path / "net.onnx")
    with pytest.raises(UnsupportedModelError, match=r"MatMul 'island': its weight 'const_.*' is not int8"):
        compile_model(tmp_path / "net.onnx", "stm32f746")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield import_module("quantizers")


@pytest.mark.parametrize(
    ("setting", "result"),
    [
        ("QDQ, activations u8, weights s8, per channel, opset 21", "accepted"),
        ("QOperator, activations u8, weights s8, opset 11", "accepted"),
        ("QDQ, activations s8, weights s8, per channel, DedicatedQDQPair", "accepted"),
        ("QDQ, activations s16, weights s8", "refused: QuantizeLinear: it uses int16"),
        ("QDQ, activations s8, weights s4", "refused: .*has 4 bits, weights need 8"),
        (
            "dynamic",
            "refused: DynamicQuantizeLinear: it is quantised dynamically, [^;]*; ConvInteger: [^;]*; MatMulInteger",
        ),
        ("QDQ, activations s8, weights u8", "not made"),
    ],
)
def test_onnxruntimes_quantiser(benchmark: ModuleType, setting: str, result: str) -> None:
    """benchmarks/quantizers.py on a few of its settings; result: a pattern."""
    quantizer = benchmark.settings()[setting]
    samples = np.random.default_rng(1).uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32)
    proto = benchmark.network(getattr(quantizer, "opset", 17))
    row = benchmark.quantised_row(setting, quantizer, proto, samples)
    assert re.match(result, f"{row.result}: {row.reason}")


def test_a_wrong_compiler_is_called_wrong(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinytrain_compiler.ops.add import ADD

    forward = ADD.forward
    monkeypatch.setattr(type(ADD), "forward", lambda self, *arguments: -forward(*arguments))
    samples = np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    name = "QDQ, activations s8, weights s8"
    assert benchmark.quantised_row(name, benchmark.settings()[name], benchmark.network(), samples).result == "wrong"
