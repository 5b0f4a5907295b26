"""Bad models are normal input: each gets one message that names the cause and the fix."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler.errors import TinyTrainError, UsageError
from tinytrain_compiler.frontends.onnx.file import input_shape, is_quantized, load_model


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def error_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_a_good_model_loads_with_shapes_and_digest(tmp_path: Path) -> None:
    path = save(small_cnn(), tmp_path)
    model = load_model(path)
    assert input_shape(model.proto) == (1, 3, 12, 12)
    assert re.fullmatch("[0-9a-f]{64}", model.sha256)
    assert model.path == path
    assert model.notes == ()
    assert not is_quantized(model.proto)
    assert [d.dim_value for d in model.proto.graph.output[0].type.tensor_type.shape.dim] == [1, 5]
    assert load_model(path).proto == model.proto


def test_missing_file_lists_the_models_beside_it(tmp_path: Path) -> None:
    save(small_cnn(), tmp_path)
    assert "does not exist; models there: model.onnx" in error_of(tmp_path / "modle.onnx")


def test_folder_and_empty_file(tmp_path: Path) -> None:
    assert "is a folder" in error_of(tmp_path)
    (tmp_path / "empty.onnx").touch()
    assert "is empty" in error_of(tmp_path / "empty.onnx")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG image"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"PK\x03\x04" + bytes(40), "ZIP archive"),
        (b"import torch\n", "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (bytes(range(256)), "truncated or damaged"),
    ],
)
def test_other_files_are_called_by_name(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    message = error_of(path)
    assert named in message
    assert "export" in message or "git lfs" in message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_always_refused(tmp_path: Path, share: float) -> None:
    data = small_cnn().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    error_of(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small_cnn().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(content))
    with contextlib.suppress(TinyTrainError):
        load_model(path)


def test_graph_without_nodes(tmp_path: Path) -> None:
    assert "without nodes" in error_of(save(ModelBuilder().build("input", rename=None), tmp_path))


@pytest.mark.parametrize(("opset", "says"), [(6, "supported are 7 and newer"), (999, "pip install -U onnxruntime")])
def test_opsets_outside_the_range_say_what_works(tmp_path: Path, opset: int, says: str) -> None:
    message = error_of(save(small_cnn(opset), tmp_path))
    assert f"opset {opset}, " in message
    assert says in message
    assert "export with opset_version=18" in message


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    proto = small_cnn()
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 5]))
    assert "2 inputs (input, mask)" in error_of(save(proto, tmp_path))
    b = ModelBuilder()
    x = b.conv(b.input, 3, 4)
    assert "2 outputs (conv_0_out, relu_1_out)" in error_of(save(b.build(x, b.node("Relu", x)), tmp_path))


def test_constants_listed_as_inputs_do_not_count(tmp_path: Path) -> None:
    proto = small_cnn()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    loaded = load_model(save(proto, tmp_path)).proto
    assert [i.name for i in loaded.graph.input] == ["input"]


@pytest.mark.parametrize("batch", ["N", None, -1])
def test_a_dynamic_batch_alone_becomes_one(tmp_path: Path, batch: int | str | None) -> None:
    b = ModelBuilder((batch, 3, 8, 8))
    proto = b.build(b.node("Flatten", b.conv(b.input, 3, 4)))
    model = load_model(save(proto, tmp_path))
    assert input_shape(model.proto) == (1, 3, 8, 8)
    assert len(model.notes) == 1
    assert "fixed to 1" in model.notes[0]


def test_dynamic_shapes_are_named_with_the_fix(tmp_path: Path) -> None:
    b = ModelBuilder(("batch", 3, "height", None))
    message = error_of(save(b.build(b.conv(b.input, 3, 4)), tmp_path))
    assert "dimension 2 ('height'), dimension 3 (unnamed)" in message
    assert "make_dynamic_shape_fixed --input_name input --input_shape 1,3,N,N" in message


def test_batch_and_rank(tmp_path: Path) -> None:
    b = ModelBuilder((8, 3, 8, 8))
    assert "so batch 8" in error_of(save(b.build(b.conv(b.input, 3, 4)), tmp_path))
    b = ModelBuilder((1, 3, 8, 2, 2, 2))
    assert "has 6 dimensions" in error_of(save(b.build(b.node("Relu", b.input)), tmp_path))


@pytest.mark.parametrize(("elem", "name"), [(TensorProto.DOUBLE, "float64"), (TensorProto.UINT8, "uint8")])
def test_input_types(tmp_path: Path, elem: int, name: str) -> None:
    b = ModelBuilder()
    proto = b.build(b.node("Relu", b.input))
    proto.graph.input[0].type.tensor_type.elem_type = elem
    proto.graph.output[0].type.tensor_type.elem_type = elem
    message = error_of(save(proto, tmp_path))
    assert f"input 'input' has type {name}" in message


def test_float64_inside_is_found_but_not_in_constants(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.node("Cast", b.node("Relu", b.node("Cast", b.input, to=TensorProto.DOUBLE)), to=TensorProto.FLOAT)
    message = error_of(save(b.build(x), tmp_path))
    assert "other types than float32" in message
    assert "(float64)" in message
    b = ModelBuilder((1, 4))
    bias = b.node("Cast", b.const(np.zeros(4), np.float64), to=TensorProto.FLOAT)
    load_model(save(b.build(b.node("Add", b.input, bias)), tmp_path))


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    b = ModelBuilder((1, 4))
    proto = b.build(b.node("Add", b.input, b.const([1, np.nan, 1, 1])))
    assert "NaN): const_0" in error_of(save(proto, tmp_path))


def test_an_output_that_ignores_the_input(tmp_path: Path) -> None:
    b = ModelBuilder((1, 4))
    assert "does not depend" in error_of(save(b.build(b.node("Relu", b.const([[1.0]]))), tmp_path))


def test_invalid_graphs_are_refused(tmp_path: Path) -> None:
    b = ModelBuilder()
    assert "not a valid ONNX model" in error_of(save(b.build(b.node("Relu", "nowhere")), tmp_path))


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    inside = load_model(save(small_cnn(), tmp_path / ".."))
    outside = load_model(path)
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in outside.proto.graph.initializer} == {
        t.name: numpy_helper.to_array(t).tobytes() for t in inside.proto.graph.initializer
    }
    weights = tmp_path / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8] + bytes(8))
    assert load_model(path).sha256 != outside.sha256
    weights.write_bytes(content[:100])
    assert "tensor 'const_0' takes 864 bytes of 'weights.bin' (100 bytes), which cannot be read" in error_of(path)
    weights.unlink()
    assert "keeps its weights in 'weights.bin', which is not beside it" in error_of(path)


def test_functions_are_inlined(tmp_path: Path) -> None:
    b = ModelBuilder((1, 4))
    y = b.node("Block", b.input, domain="mine")
    body = [helper.make_node("Relu", ["a"], ["r"], name="act"), helper.make_node("Add", ["r", "a"], ["b"], name="sum")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Block", ["a"], ["b"], body, opsets[:1])
    proto = b.build(y, functions=[function], opset_imports=opsets)
    loaded = load_model(save(proto, tmp_path)).proto
    assert [n.op_type for n in loaded.graph.node] == ["Relu", "Add"]
    assert not loaded.functions


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    """The Shape -> Gather -> Concat -> Reshape that PyTorch writes for x.view(x.size(0), -1)."""
    b = ModelBuilder(("N", 3, 8, 8))
    x = b.node("Relu", b.conv(b.input, 3, 4))
    size = b.node("Gather", b.node("Shape", x), b.const(0, np.int64), axis=0)
    size = b.node("Unsqueeze", size, b.const([0], np.int64))
    rest = b.node("Constant", value=numpy_helper.from_array(np.array([-1], dtype=np.int64)))
    proto = b.build(b.node("Reshape", x, b.node("Concat", size, rest, axis=0)))
    loaded = load_model(save(proto, tmp_path)).proto
    assert [n.op_type for n in loaded.graph.node] == ["Conv", "Relu", "Reshape"]
