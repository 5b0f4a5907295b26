"""Models that come quantised: what their QuantizeLinear and DequantizeLinear say is computed, or refused by name.

Compiling compares each of them with onnxruntime, operator by operator, so one that compiles is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Cli
from graphs import GraphBuilder
from onnx import TensorProto
from onnx_models import ModelBuilder
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import DisagreementError, UnsupportedModelError, UsageError
from tinytrain_compiler.frontends.onnx.oracle import OnnxOracle
from tinytrain_compiler.graph import Graph, Layout, Origin
from tinytrain_compiler.oracle import Oracle, check_agreement
from tinytrain_compiler.verify import verify
from tools import require_or_skip

Scale = float | Sequence[float] | np.ndarray
PER_CHANNEL = np.linspace(0.004, 0.02, 3)


def quantize(b: ModelBuilder, x: str, scale: Scale, zero: Any = None, dtype: Any = np.int8, **attributes: Any) -> str:
    return b.node("QuantizeLinear", x, *_parameters(b, scale, zero, dtype), **attributes)


def dequantize(b: ModelBuilder, x: str, scale: Scale, zero: Any = None, dtype: Any = np.int8, **attributes: Any) -> str:
    return b.node("DequantizeLinear", x, *_parameters(b, scale, zero, dtype), **attributes)


def _parameters(b: ModelBuilder, scale: Scale, zero: Any, dtype: Any) -> list[str]:
    return [b.const(scale)] + ([] if zero is None else [b.const(zero, dtype)])


def activation(b: ModelBuilder, x: str, scale: Scale, zero: Any) -> str:
    return dequantize(b, quantize(b, x, scale, zero), scale, zero)


def weights(b: ModelBuilder, shape: tuple[int, ...], scale: Scale, **attributes: Any) -> str:
    values = b.const(b.rng.integers(-127, 128, shape), np.int8)
    return dequantize(b, values, scale, np.zeros(np.shape(scale)), **attributes)


def conv_model(
    pair: Callable[[ModelBuilder, str], str] = lambda b, x: activation(b, x, 0.02, 3),
    weight: Callable[[ModelBuilder], str] = lambda b: weights(b, (3, 3, 3, 3), 0.01),
    bias: Callable[[ModelBuilder], str] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Input, quantised and dequantised by `pair`, a convolution, quantised output."""
    b = ModelBuilder((1, 3, 8, 8), opset)
    inputs = [pair(b, b.input), weight(b)] + ([] if bias is None else [bias(b)])
    return b.build(activation(b, b.node("Conv", *inputs), 0.05, -4))


def gemm_model(transposed: int, axis: int) -> onnx.ModelProto:
    b = ModelBuilder((1, 3))
    x = activation(b, b.input, 0.02, 3)
    x = b.node("Gemm", x, weights(b, (3, 3), PER_CHANNEL, axis=axis), transB=transposed)
    return b.build(activation(b, x, 0.05, -4))


def compiled(proto: onnx.ModelProto, folder: Path) -> Artifacts:
    onnx.save(proto, folder / "net.onnx")
    return compile_model(folder / "net.onnx", "stm32f746")


COMPUTED: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv, scales along the outputs": lambda: conv_model(
        weight=lambda b: weights(b, (3, 3, 3, 3), PER_CHANNEL, axis=0)
    ),
    "conv, the same axis from behind": lambda: conv_model(
        weight=lambda b: weights(b, (3, 3, 3, 3), PER_CHANNEL, axis=-4)
    ),
    "gemm with transB": lambda: gemm_model(1, 0),
    "gemm without transB": lambda: gemm_model(0, 1),
    "int8 by output_dtype alone": lambda: conv_model(
        lambda b, x: dequantize(b, quantize(b, x, 0.02, output_dtype=TensorProto.INT8), 0.02), opset=21
    ),
    "uint8 because nothing says otherwise": lambda: conv_model(lambda b, x: dequantize(b, quantize(b, x, 0.02), 0.02)),
    "scales of shape (1,)": lambda: conv_model(lambda b, x: activation(b, x, [0.02], [3])),
    "bias with a scale per channel": lambda: conv_model(
        weight=lambda b: weights(b, (3, 3, 3, 3), PER_CHANNEL, axis=0),
        bias=lambda b: dequantize(b, b.const([-4000, 0, 3000], np.int32), PER_CHANNEL * 0.02, axis=0),
    ),
}


@pytest.mark.parametrize("what", COMPUTED)
def test_scales_are_read_as_onnxruntime_reads_them(what: str, tmp_path: Path) -> None:
    compiled(COMPUTED[what](), tmp_path)


OTHER = "with another scale or zero point"
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "another scale behind a tensor": (
        lambda: conv_model(lambda b, x: dequantize(b, quantize(b, x, 0.02, 3), 0.03, 3)),
        rf"DequantizeLinear '\w+': it reads 'input' {OTHER} \(scale 0.03, zero point 3\) .*\(0.02, 3\)",
    ),
    "another zero point behind a tensor": (
        lambda: conv_model(lambda b, x: dequantize(b, quantize(b, x, 0.02, 3), 0.02, 4)),
        rf"it reads 'input' {OTHER} \(scale 0.02, zero point 4\)",
    ),
    "uint8 with a zero point, then none": (
        lambda: conv_model(lambda b, x: dequantize(b, quantize(b, x, 0.02, 128, np.uint8), 0.02)),
        f"it reads 'input' {OTHER}",
    ),
    "conv, scales along the inputs": (
        lambda: conv_model(weight=lambda b: weights(b, (3, 3, 3, 3), PER_CHANNEL, axis=1)),
        r"Conv '\w+': the scales of its weight '\w+' run along axis 1, its outputs along axis 0",
    ),
    "conv, no axis": (
        lambda: conv_model(weight=lambda b: weights(b, (3, 3, 3, 3), PER_CHANNEL)),
        "run along axis 1, its outputs along axis 0",
    ),
    "gemm, scales along the inputs": (lambda: gemm_model(0, 0), "run along axis 0, its outputs along axis 1"),
    "gemm with transB, scales along the inputs": (
        lambda: gemm_model(1, 1),
        "run along axis 1, its outputs along axis 0",
    ),
    "int16 by output_dtype alone": (
        lambda: conv_model(
            lambda b, x: dequantize(b, quantize(b, x, 0.02, output_dtype=TensorProto.INT16), 0.02), opset=21
        ),
        "QuantizeLinear 'quantizelinear_0': .*int16",
    ),
    "the input quantised twice": (
        lambda: conv_model(
            lambda b, x: b.node("Add", activation(b, activation(b, x, 0.02, 3), 0.05, 0), activation(b, x, 0.03, 1))
        ),
        "it quantises the model's input a second time",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_computed_is_refused_by_name(what: str, tmp_path: Path) -> None:
    build, said = REFUSED[what]
    with pytest.raises(UnsupportedModelError, match=said):
        compiled(build(), tmp_path)


@pytest.mark.parametrize(
    "proto",
    [
        conv_model(weight=lambda b: weights(b, (3, 1, 3, 3), 0.01)),  # a depthwise Conv that lost its group
        conv_model(bias=lambda b: dequantize(b, b.const([1, 2, 3], np.int32), PER_CHANNEL)),  # axis 1 of a vector
    ],
    ids=["Conv without group", "DequantizeLinear without axis"],
)
def test_what_onnxruntime_cannot_run_is_one_line(proto: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        compiled(proto, tmp_path)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_verify_takes_scales_of_shape_1(tmp_path: Path) -> None:
    """onnxruntime's fused average pool does not."""
    require_or_skip("cc")
    b = ModelBuilder((1, 3, 8, 8))
    x = activation(b, b.input, [0.02], [3])
    x = activation(b, b.node("MaxPool", x, kernel_shape=[2, 2]), [0.03], [2])
    x = activation(b, b.node("AveragePool", x, kernel_shape=[2, 2]), [0.05], [-4])
    onnx.save(b.build(x), tmp_path / "net.onnx")
    compile_model(tmp_path / "net.onnx", "stm32f746", tmp_path / "out")
    found = verify(load_compiled(tmp_path / "out"), 4)
    assert found["host"]["mismatched_bytes"] == 0
    assert found["onnxruntime"]["largest_step"] <= 1
    assert found["onnxruntime"]["elements"] == 4 * 3 * (7 * 7 + 6 * 6)


class TestDisagreement:
    """A graph that is not what the model says, as a wrong importer would make it."""

    @pytest.fixture
    def graph(self, compiled_small: Artifacts) -> Graph:
        return load_compiled(compiled_small.directory or "").graph

    @pytest.fixture
    def oracle(self, compiled_small: Artifacts) -> Oracle:
        oracle = load_compiled(compiled_small.directory or "").oracle()
        assert oracle is not None
        return oracle

    def test_the_first_operator_that_is_wrong_is_named(
        self, graph: Graph, oracle: Oracle, compiled_small: Artifacts
    ) -> None:
        inputs = load_compiled(compiled_small.directory or "").inputs(2)
        check_agreement(graph, oracle, inputs)
        for name in ("project", "depthwise"):  # an earlier one each time
            i = next(i for i, node in enumerate(graph.nodes) if node.name == name)
            node = graph.nodes[i]
            graph.nodes[i] = replace(node, constants=node.constants | {"weights": -node.constants["weights"]})
            said = rf"conv2d '{name}' computes something else than onnxruntime does: .* \d+ of its \d+ values differ by"
            with pytest.raises(DisagreementError, match=said) as error:
                check_agreement(graph, oracle, inputs)
            assert error.value.exit_code == 1

    def test_a_wrong_input_is_named(self, graph: Graph, oracle: Oracle, compiled_small: Artifacts) -> None:
        inputs = load_compiled(compiled_small.directory or "").inputs(1)
        tensor = graph.tensors[graph.input]
        wrong = replace(tensor.quantization, zero_point=tensor.quantization.zero_point + 9)
        graph.tensors[graph.input] = replace(tensor, quantization=wrong)
        with pytest.raises(DisagreementError, match="the input 'input'"):
            check_agreement(graph, oracle, inputs)


def test_compiling_stops_where_it_disagrees(
    run_cli: Cli, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinytrain_compiler.ops.add import ADD

    forward = ADD.forward
    monkeypatch.setattr(type(ADD), "forward", lambda self, *arguments: -forward(*arguments))
    ran = run_cli("tinytrain-compile", small_model, "--board", "stm32f746", "-o", tmp_path / "out")
    assert ran.code == 1
    assert "error: add 'residual' computes something else than onnxruntime does" in ran.err
    assert not (tmp_path / "out").exists()


def test_the_oracles_layout_of_a_deep_network_takes_one_pass() -> None:
    """It was looked up by recursion, a thousand layers deep at most."""
    b = ModelBuilder((1, 16))
    activation(b, b.input, 0.02, 3)
    b.nodes[0].output[0] = b.nodes[1].input[0] = "integers"
    proto = b.build(b.nodes[1].output[0])
    deep = GraphBuilder((16,), 0.02, 3)
    x = deep.input
    for _ in range(1500):
        x = deep.lookup(x)
    origin = Origin("integers", Layout.row_major((1, 16)))
    graph = replace(deep.build(x), origins={deep.input: origin, x: origin})
    inputs = np.arange(32, dtype=np.int8).reshape(2, 16)
    np.testing.assert_array_equal(OnnxOracle(proto).tensors(graph, inputs)[x], inputs)
