"""Files of TensorFlow Lite: each operator computes what TensorFlow Lite's interpreter does, and networks compile.

The interpreter's answers stand in a golden file, since its package is no dependency. Where it is installed (the extra
`tflite`), they are compared with it, and TINYTRAIN_UPDATE_GOLDEN=1 writes them again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tflite_cases import CASES, file_of, inputs_of
from tflite_models import NUMPY, Tensor, TfliteBuilder
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.errors import UnsupportedModelError, UsageError
from tinytrain_compiler.frontends.onnx.oracle import OrtSession
from tinytrain_compiler.frontends.tflite import operators  # noqa: F401  (registers them)
from tinytrain_compiler.frontends.tflite.file import parse
from tinytrain_compiler.frontends.tflite.reader import load_tflite
from tinytrain_compiler.frontends.tflite.translator import Translator
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.reference import run

LITERT = "needs LiteRT: pip install '.[tflite]'"
GOLDEN = Path(__file__).parent / "golden" / "tflite_outputs.json"
SCALE, ZERO = np.float32(0.02), 3  # of every case's input
KINDS = ("float32", "int8")
ALL = [f"{name}/{kind}" for name in CASES for kind in KINDS if kind == "float32" or not name.endswith("of float")]


def interpreted(data: bytes, inputs: NDArray[np.float32]) -> NDArray[Any]:
    """TensorFlow Lite's outputs, with its reference kernels; those that it has not there, with the others."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason=LITERT)
    kinds = litert.OpResolverType
    try:
        tflite = litert.Interpreter(model_content=data, experimental_op_resolver_type=kinds.BUILTIN_REF)
    except ValueError:
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        tflite = litert.Interpreter(model_content=data, experimental_op_resolver_type=kind)
    tflite.allocate_tensors()
    (source,), (result,) = tflite.get_input_details(), tflite.get_output_details()
    found = []
    for x in inputs:
        given = x[None]
        if source["dtype"] != np.float32:
            given = (np.rint(given / SCALE) + ZERO).astype(source["dtype"])
        tflite.set_tensor(source["index"], given)
        tflite.invoke()
        found.append(tflite.get_tensor(result["index"])[0].copy())
    return np.stack(found)


@pytest.mark.parametrize("case", ALL)
def test_the_answers_are_tensorflow_lites(case: str) -> None:
    name, kind = case.split("/")
    found = np.round(interpreted(file_of(name, kind), inputs_of(name, kind)).astype(np.float64), 5).tolist()
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("TINYTRAIN_UPDATE_GOLDEN"):
        golden[case] = found
        lines = (f"{json.dumps(key)}: {json.dumps(golden[key], separators=(',', ':'))}" for key in sorted(golden))
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        np.testing.assert_allclose(found, golden[case], atol=2e-5)


@pytest.mark.parametrize("case", ALL)
def test_a_translated_operator_computes_the_same(case: str) -> None:
    """In float32, but for the last bits; in int8, within one step."""
    name, kind = case.split("/")
    expected = np.array(json.loads(GOLDEN.read_text())[case])
    model = parse(file_of(name, kind))
    inputs = inputs_of(name, kind)
    found = OrtSession(Translator(model).run()).run(inputs.transpose(0, 3, 1, 2) if inputs.ndim == 4 else inputs)[0]
    if found.shape != expected.shape:  # an image ends as (1, C, H, W)
        found = found.transpose(0, 2, 3, 1)
    scales = model.tensors[model.outputs[0]].scales
    if scales is None:
        np.testing.assert_allclose(found, expected, atol=2e-5)
    else:
        steps = np.rint(found / scales.scale[0]) + scales.zero[0]
        assert np.abs(steps - expected).max() <= 1


def int8_network(folder: Path) -> Path:
    (folder / "net.tflite").write_bytes(file_of("network", "int8"))
    return folder / "net.tflite"


def test_an_int8_network_computes_what_tensorflow_lite_does(tmp_path: Path) -> None:
    """Its scales and integers are the file's own."""
    graph = compile_model(int8_network(tmp_path), "stm32f746").graph
    assert graph.tensors[graph.input].quantization.scale == pytest.approx(SCALE)
    assert graph.tensors[graph.input].quantization.zero_point == ZERO
    expected = np.array(json.loads(GOLDEN.read_text())["network/int8"])
    for x, y in zip(inputs_of("network", "int8"), expected, strict=True):
        output, _ = run(graph, (np.rint(x / SCALE) + ZERO).astype(np.int8))
        assert np.abs(output.reshape(-1).astype(int) - y).max() <= 1


@pytest.mark.parametrize("name", ["add per channel", "sub", "dense of tokens"])
def test_constants_of_several_values_stay_int8(name: str, tmp_path: Path) -> None:
    """And what is computed with them is within a step of TensorFlow Lite."""
    (tmp_path / "net.tflite").write_bytes(file_of(name, "int8"))
    graph = compile_model(tmp_path / "net.tflite", "stm32f746").graph
    inputs, expected = inputs_of(name, "int8"), np.array(json.loads(GOLDEN.read_text())[f"{name}/int8"])
    if inputs.ndim == 4:  # nothing here asks for channels last
        inputs, expected = inputs.transpose(0, 3, 1, 2), expected.transpose(0, 3, 1, 2)
    integers = quantize_samples(inputs, graph.tensors[graph.input], graph.sample_layout)
    output, _ = run(graph, integers[0])
    assert np.abs(output.reshape(expected.shape).astype(int) - expected).max() <= 1


def test_a_mean_of_bytes_rounds_ties_as_tensorflow_lite_does(tmp_path: Path) -> None:
    """Half away from zero: of 3 and 4 it is 4, of -3 and -4 it is -4."""
    b = TfliteBuilder()
    x = b.input((1, 1, 2, 2), "int8", 0.02, 3)
    y = Tensor((1, 1, 1, 2), "int8", "y", [0.02], [3])
    y = b.op("AVERAGE_POOL_2D", [x], y, padding=1, stride_h=1, stride_w=1, filter_h=1, filter_w=2)
    (tmp_path / "net.tflite").write_bytes(b.build(y))
    graph = compile_model(tmp_path / "net.tflite", "stm32f746").graph
    assert run(graph, np.array([3, -3, 4, -4], np.int8))[0].reshape(-1).tolist() == [4, -4]


def test_a_compiled_network_can_be_loaded_again(tmp_path: Path) -> None:
    compile_model(int8_network(tmp_path), "stm32f746", tmp_path / "out")
    model = load_compiled(tmp_path / "out")
    assert model.name == "net"
    assert model.oracle() is not None


def test_a_float_network_is_calibrated_and_quantised(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(file_of("network", "float32"))
    np.save(tmp_path / "samples.npy", inputs_of("network", "float32", 40))
    made = compile_model(path, "stm32f746", calibration=tmp_path / "samples.npy")
    assert made.report["quantization"]["top1_agreement"] >= 0.9


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_quantised_weights_of_a_float_network_are_dequantised(kind: str, tmp_path: Path) -> None:
    """Dynamic range: the layer reads them; float16: a DEQUANTIZE does."""
    b = TfliteBuilder()
    x = b.input((1, 6))
    values = b.rng.integers(-127, 127, (3, 6))
    if kind == "int8":
        w = b.const(values.astype(np.int8), scale=[0.01], zero=[0])
    else:
        half = b.const((values * 0.01).astype(np.float16))
        w = b.op("DEQUANTIZE", [half], Tensor((3, 6), "float32", "weights"))
    y = b.op("FULLY_CONNECTED", [x, w, -1], Tensor((1, 3), "float32", "result"))
    (tmp_path / "net.tflite").write_bytes(b.build(y))
    loaded = load_tflite(tmp_path / "net.tflite")
    sample = np.linspace(-1, 1, 6, dtype=np.float32)[None]
    real = (values * 0.01).astype(NUMPY[kind] if kind == "float16" else np.float32)
    np.testing.assert_allclose(OrtSession(loaded.proto).run(sample)[0], sample @ real.T.astype(np.float32), atol=1e-5)
    assert any("quantised" in note for note in loaded.notes)


def test_uint8_ends_are_the_same_steps(tmp_path: Path) -> None:
    """QUANTIZE and DEQUANTIZE at the ends, as converters write them for uint8."""
    b = TfliteBuilder()
    x = b.input((1, 6), "uint8", 0.02, 131)
    x = b.op("QUANTIZE", [x], Tensor((1, 6), "int8", "q", [0.02], [3]))
    w = b.const(b.rng.integers(-127, 127, (3, 6)).astype(np.int8), scale=[0.01], zero=[0])
    y = b.op("FULLY_CONNECTED", [x, w, -1], Tensor((1, 3), "int8", "y", [0.05], [0]))
    y = b.op("QUANTIZE", [y], Tensor((1, 3), "uint8", "result", [0.05], [128]))
    (tmp_path / "net.tflite").write_bytes(b.build(y))
    graph = compile_model(tmp_path / "net.tflite", "stm32f746").graph
    assert [node.op for node in graph.nodes] == ["fully_connected"]
    assert graph.tensors[graph.input].quantization.zero_point == 3


# -- refusals ------------------------------------------------------------------------------------------


def test_everything_that_has_no_translation_is_named_at_once(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input((1, 6))
    x = b.op("WHERE", [x], Tensor((1, 6), "float32", "odd"))
    x = b.op("RELU", [x], Tensor((1, 6), "int16", "fine", [0.1], [0]))
    x = b.op("MyOperator", [x], Tensor((1, 6), "float32", "own"))
    (tmp_path / "net.tflite").write_bytes(b.build(x))
    with pytest.raises(UnsupportedModelError) as caught:
        load_tflite(tmp_path / "net.tflite")
    assert [(p.op, p.node) for p in caught.value.problems] == [
        ("WHERE", "#0 odd"),
        ("RELU", "#1 fine"),
        ("MyOperator", "#2 own"),
    ]
    message = str(caught.value)
    assert "int16 (16x8 quantisation)" in message
    assert "custom operators have no translation" in message


def two_inputs(b: TfliteBuilder) -> int:
    return b.op("ADD", [b.input((1, 6)), b.input((1, 6))], Tensor((1, 6), "float32", "y"))


def dynamic(b: TfliteBuilder) -> int:
    x = b.input((1, 6))
    b.tensors[x].signature = (-1, -1)
    return b.op("RELU", [x], Tensor((1, 6), "float32", "y"))


def text_input(b: TfliteBuilder) -> int:
    return b.op("RELU", [b.input((1, 6), "int32")], Tensor((1, 6), "float32", "y"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (two_inputs, "it has 2 inputs (input, input), exactly one is supported"),
        (dynamic, "input 'input' has no fixed size along dimension 1"),
        (text_input, "input 'input' has type int32"),
    ],
)
def test_ends_that_cannot_be_compiled(make: Any, says: str, tmp_path: Path) -> None:
    b = TfliteBuilder()
    (tmp_path / "net.tflite").write_bytes(b.build(make(b)))
    with pytest.raises(UsageError) as caught:
        load_tflite(tmp_path / "net.tflite")
    assert says in str(caught.value)


# -- the networks of MLPerf Tiny -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant", "vww_96_int8", "ad01_int8"])
def test_mlperf_tiny_answers_as_tensorflow_lite_does(name: str, shared: Path, tmp_path: Path) -> None:
    """At least 99.8 % of the outputs of 100 inputs are within one step of the interpreter's, as it runs by default, and
    the largest output is the same one for every input."""
    pytest.importorskip("ai_edge_litert.interpreter", reason=LITERT)
    benchmark: Any = module_at(Path(__file__).parents[1] / "benchmarks" / "tflite.py")
    network = next(each for each in benchmark.NETWORKS if each.file == name)
    models, data = shared / "models" / "mlperf_tiny", shared / "data"
    inputs = benchmark.compiled_with_inputs(network, models, data, tmp_path / "net", 100)
    ours = benchmark.our_outputs(tmp_path / "net", inputs)
    theirs = benchmark.tflite_outputs(models / f"{name}.tflite", inputs, "default")
    near = np.abs(ours.astype(int) - theirs) <= 1
    assert near.mean() >= 0.998
    assert (ours.argmax(1) == theirs.argmax(1)).all()


def module_at(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
