"""Models that once ended in a traceback, in gigabytes or in minutes: each is read, or refused by name, at once."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import TinyTrainError, UnsupportedModelError, UsageError, shown
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.file import load_model
from tinytrain_compiler.frontends.onnx.float_passes.runtime import runs_opset
from tinytrain_compiler.frontends.onnx.limits import MAX_ELEMENTS
from tinytrain_compiler.frontends.onnx.qdq import import_qdq
from tinytrain_compiler.frontends.onnx.support import check_supported

SECONDS = 3.0  # of CPU time, to refuse what would have taken minutes


def refusal(proto: onnx.ModelProto, folder: Path) -> str:
    """The message of compiling a model that cannot be; one line a problem, nothing a terminal would obey."""
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    begin = time.process_time()
    with pytest.raises(TinyTrainError) as caught:
        compile_model(path, "stm32f746")
    assert time.process_time() - begin < SECONDS
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.replace("\n", "").isprintable()
    return message


def compiles(proto: onnx.ModelProto, folder: Path) -> None:
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    compile_model(folder / "net.onnx", "stm32f746")


# -- nothing to quantise, nothing that acts ---------------------------------------------------------


def test_an_identity_alone_computes_nothing(tmp_path: Path) -> None:
    b = ModelBuilder()
    assert "nothing is computed between its input and its output" in refusal(
        b.build(b.node("Identity", b.input)), tmp_path
    )


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_a_node_alone_is_refused_by_name(op: str, tmp_path: Path) -> None:
    """Once a StopIteration."""
    b = ModelBuilder()
    x = b.clip(b.input, name="alone") if op == "Clip" else b.node(op, b.input, name="alone")
    message = refusal(b.build(x), tmp_path)
    assert f"{op} 'alone'" in message
    assert "in float" in message


IDENTITIES: dict[str, Callable[[ModelBuilder, str], str]] = {
    "gather in order": lambda b, x: b.node("Gather", x, b.const(np.arange(8), np.int64), axis=2),
    "gather counted from the end": lambda b, x: b.node("Gather", x, b.const([-3, -2, -1], np.int64), axis=1),
    "slice of all": lambda b, x: b.node("Slice", x, b.const([0], np.int64), b.const([2**62], np.int64)),
    "transpose to itself": lambda b, x: b.node("Transpose", x, perm=[0, 1, 2, 3]),
    "expand to itself": lambda b, x: b.node("Expand", x, b.const([1, 1, 1, 1], np.int64)),
    "pad of nothing": lambda b, x: b.node("Pad", x, b.const([0] * 8, np.int64)),
    "concat of one": lambda b, x: b.node("Concat", x, axis=1),
}


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_nodes_that_change_nothing_go(identity: Callable[[ModelBuilder, str], str], tmp_path: Path) -> None:
    """PyTorch's exporter writes such a Gather for an example input that was permuted."""
    b = ModelBuilder()
    onnx.save(b.build(b.conv(identity(b, b.input), 3, 4)), tmp_path / "net.onnx")
    assert [n.op_type for n in load_model(tmp_path / "net.onnx").proto.graph.node] == ["Conv"]


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("Gather", [[1, 0, 2]], {"axis": 1}),
        ("Gather", [[0, 0, 2]], {"axis": 1}),
        ("Slice", [[-1], [-9], [3], [-1]], {}),
        ("Transpose", [], {"perm": [0, 1, 3, 2]}),
    ],
)
def test_nodes_that_move_values_stay(op: str, inputs: list[list[int]], attrs: dict[str, Any], tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.node(op, b.input, *(b.const(i, np.int64) for i in inputs), name="moves", **attrs)
    onnx.save(b.build(b.conv(x, 3, 4)), tmp_path / "net.onnx")
    assert [n.op_type for n in load_model(tmp_path / "net.onnx").proto.graph.node] == [op, "Conv"]


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "says"), [(np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "NaN")])
def test_one_weight_that_is_no_number(value: float, says: str, tmp_path: Path) -> None:
    proto = small_cnn()
    weights = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weights[0, 0, 0, 0] = value
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "const_0"))
    message = refusal(proto, tmp_path)
    assert says in message
    assert "const_0" in message


def test_weights_too_large_for_a_scale(tmp_path: Path) -> None:
    b = ModelBuilder((1, 4))
    x = b.node("Gemm", b.input, b.const(np.full((4, 4), 3e38)), name="huge")
    assert "huge values" in refusal(b.build(x), tmp_path)


def test_one_weight_of_another_order(tmp_path: Path) -> None:
    """One shift serves all channels: beside 10^9, the others have no bits left, and gave wrong answers."""
    b = ModelBuilder((1, 4))
    weights = b.random(3, 4)
    weights[1, 2] = 1e9
    x = b.node("Clip", b.node("Gemm", b.input, b.const(weights), transB=1, name="wild"), b.const(-1.0), b.const(1.0))
    message = refusal(b.build(x), tmp_path)
    assert "fully_connected 'wild': the weights of output channel 1 are" in message


def test_limits_of_a_clip_may_be_infinite(tmp_path: Path) -> None:
    b = ModelBuilder()
    compiles(b.build(b.clip(b.conv(b.input, 3, 4), 0.0, np.inf)), tmp_path)


def qdq(scale: float = 0.05, channels: int = 3, middle: float = 0.05) -> onnx.ModelProto:
    """Q -> DQ -> Conv -> Q -> DQ, its input scaled by `scale`, its output by `middle`."""
    b = ModelBuilder()
    zero = b.const(0, np.int8)

    def quantized(x: str, by: float, name: str) -> str:
        s = b.const(by)
        return b.node("DequantizeLinear", b.node("QuantizeLinear", x, s, zero, name=name), s, zero)

    weights = b.const(b.rng.integers(-9, 9, (4, channels, 3, 3)), np.int8)
    weights = b.node("DequantizeLinear", weights, b.const(0.01), zero)
    x = b.node("Conv", quantized(b.input, scale, "first"), weights, name="conv")
    return b.build(quantized(x, middle, "last"))


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (0.0, "QuantizeLinear 'first': its scale is 0.0"),
        (-1.0, "QuantizeLinear 'first': its scale is -1.0"),
        (np.inf, "weights or scales that are infinite: const_3"),
        (np.nan, "weights or scales that are not numbers (NaN): const_3"),
    ],
)
def test_scales_that_are_none(scale: float, says: str, tmp_path: Path) -> None:
    assert says in refusal(qdq(scale), tmp_path)


@pytest.mark.parametrize(("scale", "middle"), [(1e11, 0.05), (0.05, 1e-14)])
def test_scales_out_of_proportion(scale: float, middle: float, tmp_path: Path) -> None:
    message = refusal(qdq(scale, middle=middle), tmp_path)
    assert "1 node cannot be compiled" in message
    assert "conv" in message


def test_a_quantised_model_whose_layers_do_not_fit(tmp_path: Path) -> None:
    """16 input channels where 3 are given: only running the model shows it."""
    assert "don't fit together" in refusal(qdq(channels=16), tmp_path)


# -- sizes ---------------------------------------------------------------------------------------


def test_an_input_dimension_of_2_to_the_32(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 2**32, 8))
    assert f"input 'input' has shape (1, 3, {2**32}, 8)" in refusal(b.build(b.conv(b.input, 3, 4)), tmp_path)


def test_a_tensor_of_terabytes_inside(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.node("MaxPool", b.input, kernel_shape=[1, 1], pads=[0, 0, 2**20, 2**20], name="vast")
    assert "MaxPool 'vast' makes a tensor of shape (1, 3, 1048584, 1048584)" in refusal(b.build(x), tmp_path)


def test_a_weight_of_terabytes_without_data(tmp_path: Path) -> None:
    proto = small_cnn()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend([2**40, 3, 3, 3])
    assert "constant 'const_0' has shape (1099511627776, 3, 3, 3)" in refusal(proto, tmp_path)


def test_more_multiplications_than_a_board_does_in_a_minute(tmp_path: Path) -> None:
    b = ModelBuilder((1, 1, 4096, 4096))
    x = b.conv(b.input, 1, 1, 33, pads=[16] * 4)
    x = b.conv(x, 1, 1, 33, pads=[16] * 4, name="slow")
    assert "up to Conv 'slow' it takes 36,540,776,448 multiplications" in refusal(b.build(x), tmp_path)


def test_a_vector_that_would_need_a_huge_diagonal(tmp_path: Path) -> None:
    b = ModelBuilder((1, 2**13))
    x = b.node("Relu", b.node("Mul", b.input, b.const(np.linspace(1, 2, 2**13)), name="wide"))
    assert "Mul 'wide'" in refusal(b.build(x), tmp_path)


def test_a_model_that_computes_nothing(tmp_path: Path) -> None:
    """Its Squeeze and Transpose are another view of the input, for which no code is needed; it had no memory plan."""
    b = ModelBuilder((1, 2, 3, 4))
    x = b.node("Transpose", b.node("Squeeze", b.input, b.const([0], np.int64)), perm=[1, 0, 2])
    onnx.save(b.build(x), tmp_path / "net.onnx")
    assert [node.op for node in compile_model(tmp_path / "net.onnx", "stm32f746").graph.nodes] == ["reshape"]


@pytest.mark.filterwarnings("error")
def test_a_scale_in_which_samples_are_infinite_steps(tmp_path: Path) -> None:
    """They saturate; NumPy's warning reached the user's terminal."""
    b = ModelBuilder((1, 4))
    zero, tiny, scale = b.const(0, np.int8), b.const(1e-45), b.const(0.1)
    x = b.node("Relu", b.node("DequantizeLinear", b.node("QuantizeLinear", b.input, tiny, zero), tiny, zero))
    compiles(b.build(b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, zero), scale, zero)), tmp_path)


def test_a_softmax_over_an_axis_that_is_not_there(tmp_path: Path) -> None:
    """onnxruntime computes something; the compiler computed something else, and asked for a report."""
    b = ModelBuilder((1, 4))
    x = b.node("Softmax", b.gemm(b.input, 4, 3), axis=2**40, name="far")
    assert "Softmax 'far': (1, 3) has no axis 1099511627776" in refusal(b.build(x), tmp_path)


BOMBS: dict[str, Callable[[ModelBuilder], str]] = {
    "ConstantOfShape": lambda b: b.node("ConstantOfShape", b.const([2**20, 2**13], np.int64), name="bomb"),
    "Expand": lambda b: b.node("Expand", b.const(1.0), b.const([2**20, 2**13], np.int64), name="bomb"),
    "Range": lambda b: b.node("Range", b.const(0.0), b.const(2.0**33), b.const(1.0), name="bomb"),
    "Tile": lambda b: b.node("Tile", b.const([1.0]), b.const([2**33], np.int64), name="bomb"),
    "Tile, computed": lambda b: b.node(
        "Tile", b.const([1.0]), b.node("Mul", b.const([2**17], np.int64), b.const([2**16], np.int64)), name="bomb"
    ),
    "EyeLike": lambda b: b.node("EyeLike", b.node("ConstantOfShape", b.const([2**16, 2**16], np.int64)), name="bomb"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_constants_of_gigabytes(bomb: Callable[[ModelBuilder], str], tmp_path: Path) -> None:
    b = ModelBuilder((1, 4))
    x = b.node("Add", b.input, b.node("ReduceSum", bomb(b), keepdims=0))
    message = refusal(b.build(x), tmp_path)
    assert "makes a constant of shape" in message


def test_many_constants_that_are_gigabytes_together(tmp_path: Path) -> None:
    """A hundred of the largest size each, in a file of 10 KB."""
    b = ModelBuilder((1, 4))
    x = b.input
    for _ in range(100):
        constant = b.node("ConstantOfShape", b.const([MAX_ELEMENTS], np.int64))
        x = b.node("Add", x, b.node("ReduceSum", constant, keepdims=0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "constant values, at most" in refusal(b.build(x), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "more than a GiB"


# -- functions -----------------------------------------------------------------------------------


def nested(depth: int, calls: int, leaf: str = "Relu") -> onnx.ModelProto:
    """Functions that call the next one `calls` times each."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = []
    for i in range(depth):
        last = i == depth - 1
        names = ["a", *(f"t{j}" for j in range(calls - 1)), "b"]
        body = [
            helper.make_node(leaf if last else f"F{i + 1}", [x], [y], domain="" if last else "mine")
            for x, y in pairwise(names)
        ]
        functions.append(helper.make_function("mine", f"F{i}", ["a"], ["b"], body, opsets))
    b = ModelBuilder((1, 4))
    return b.build(b.node("F0", b.gemm(b.input, 4, 4), domain="mine"), functions=functions, opset_imports=opsets)


def test_functions_that_double_at_every_step(tmp_path: Path) -> None:
    assert "with its functions inlined it has 2,147,483,648 nodes" in refusal(nested(30, 2), tmp_path)
    compiles(nested(5, 2), tmp_path)


def test_functions_in_a_circle(tmp_path: Path) -> None:
    proto = nested(2, 1)
    proto.functions[1].node[0].op_type, proto.functions[1].node[0].domain = "F0", "mine"
    assert "functions call each other in a circle (F" in refusal(proto, tmp_path)


# -- texts and names -----------------------------------------------------------------------------


def test_a_string_attribute_that_is_not_utf8(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.node("Conv", b.input, b.const(b.random(4, 3, 3, 3)), auto_pad=b"\xff\xfe", name="broken")
    assert "attribute 'auto_pad' of node 'broken' holds a text that is not UTF-8" in refusal(b.build(x), tmp_path)


HOSTILE = ("two\nlines", "a*/int x5;/*", "\x1b[31mred\x1b[0m", "\u202eback", "x" * 100_000, "nul\0", "%s{0}$(id)`id`")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_shown_on_one_short_line(name: str, tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.node("LpNormalization", b.node("Cnov" + name, b.input, name=name), name=name)
    b.nodes[0].output[0] = b.nodes[1].input[0] = name
    message = refusal(b.build(x), tmp_path)
    assert len(message.splitlines()) == 3
    assert len(message) < 2000
    assert message.startswith("2 nodes cannot be compiled:")


def test_a_model_of_hostile_names_compiles(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.input
    for name in HOSTILE:
        x = b.node("Relu", b.conv(x, (x == b.input and 3) or 4, 4, 1, name=name), name=name)
        b.nodes[-1].output[0] = x = f"{name} out"
    compiles(b.build(x), tmp_path)


def test_shown() -> None:
    assert shown("conv_1/äß") == "conv_1/äß"
    assert shown("a\nb\x1b\u202e") == r"a\nb\x1b\u202e"
    assert shown(b"\xffa") == r"\xffa"
    assert shown("x" * 300) == "x" * 97 + "..."


# -- opsets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 18, 21, 22, 25])
def test_opsets(opset: int, tmp_path: Path) -> None:
    """ReduceMean of opset 22, as PyTorch exports it, was called invalid; before 11 a Clip has attributes."""
    if not runs_opset(opset):
        pytest.skip(f"the installed onnxruntime does not run opset {opset}")
    b = ModelBuilder(opset=opset)
    x = b.conv(b.input, 3, 4)
    x = b.node("Clip", x, min=0.0, max=6.0) if opset < 11 else b.clip(x)
    mean = b.node("ReduceMean", x, axes=[2, 3]) if opset < 18 else b.node("ReduceMean", x, b.const([2, 3], np.int64))
    proto = b.build(b.gemm(b.node("Flatten", mean), 4, 3))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    loaded = load_model(tmp_path / "net.onnx").proto
    check_supported(loaded)
    ops = [n.op_type for n in canonicalize(loaded).graph.node]
    assert ops == ["Conv", "Clip", "GlobalAveragePool", "Reshape", "Gemm"]


# -- all problems at once --------------------------------------------------------------------------


def test_nodes_are_counted_not_complaints() -> None:
    b = ModelBuilder()
    b.node("Gemm", b.node("Flatten", b.input), b.node("Flatten", b.input), b.input, transA=1, name="one")
    with pytest.raises(UnsupportedModelError) as caught:
        check_supported(b.build(b.nodes[-1].output[0]))
    assert len(caught.value.problems) > 1
    assert str(caught.value).startswith("1 node cannot be compiled:")


def test_all_problems_of_a_quantised_model() -> None:
    """Two Convs with weights that no int8 holds; what reads them is not blamed."""
    b = ModelBuilder()
    zero, scale = b.const(0, np.int8), b.const(0.05)

    def quantized(x: str) -> str:
        return b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, zero), scale, zero)

    x = quantized(b.input)
    halves = []
    for name in ("left", "right"):
        weights = b.node("DequantizeLinear", b.const(np.full((4, 3, 1, 1), 9), np.int8), scale, b.const(-128, np.int8))
        halves.append(quantized(b.node("Conv", x, weights, name=name)))
    proto = b.build(quantized(b.node("Add", *halves, name="sum")))
    with pytest.raises(UnsupportedModelError) as caught:
        import_qdq(proto)
    assert [p.node for p in caught.value.problems] == ["left", "right"]


# -- wiring --------------------------------------------------------------------------------------


def wired(nodes: Sequence[tuple[str, list[str], list[str]]]) -> onnx.ModelProto:
    b = ModelBuilder((1, 4))
    b.nodes = [helper.make_node(op, inputs, outputs, name=f"n{i}") for i, (op, inputs, outputs) in enumerate(nodes)]
    return b.build("output", rename=None)


WIRINGS: dict[str, tuple[onnx.ModelProto, str]] = {
    "cycle": (wired([("Add", ["input", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["output"])]), "Add 'n0'"),
    "written twice": (
        wired([("Relu", ["input"], ["output"]), ("Relu", ["input"], ["output"])]),
        "Relu 'n1' writes 'output', which an output of Relu 'n0' is already",
    ),
    "input written": (wired([("Relu", ["input"], ["input"])]), "Relu 'n0' writes 'input', which input 'input' is"),
    "no output": (wired([("Relu", ["input"], [])]), "Relu 'n0' writes nothing"),
    "output unwritten": (wired([("Relu", ["input"], ["a"])]), "output 'output' is written by no node"),
    "too few inputs": (wired([("Conv", ["input"], ["output"])]), "Conv 'n0'"),
}


@pytest.mark.parametrize(("proto", "says"), WIRINGS.values(), ids=WIRINGS)
def test_wiring(proto: onnx.ModelProto, says: str, tmp_path: Path) -> None:
    assert says in refusal(proto, tmp_path)


def test_a_branch_that_reads_from_around_it(tmp_path: Path) -> None:
    """It was called invalid: the checker of single nodes does not know the names outside."""
    end = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4])]
    branches = [helper.make_graph([helper.make_node(op, ["input"], ["z"])], op, [], end) for op in ("Relu", "Neg")]
    b = ModelBuilder((1, 4))
    x = b.node("If", b.const(True, np.bool_), name="branch", then_branch=branches[0], else_branch=branches[1])
    assert "If 'branch': the operator is not supported" in refusal(b.build(b.gemm(x, 4, 2)), tmp_path)


def test_constants_of_one_name(tmp_path: Path) -> None:
    proto = small_cnn()
    proto.graph.initializer.append(proto.graph.initializer[0])
    assert "more than one constant called const_0" in refusal(proto, tmp_path)


# -- files ---------------------------------------------------------------------------------------


def external(location: str, **entries: object) -> onnx.ModelProto:
    proto = small_cnn()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../b", "", "C:\\secret", "nul\0"])
def test_weights_outside_the_folder(location: str, tmp_path: Path) -> None:
    assert "outside the model's folder" in refusal(external(location), tmp_path)


@pytest.mark.parametrize("location", ["link.bin", "link/weights.bin"])
def test_weights_that_a_link_shows_inside_the_folder(location: str, tmp_path: Path) -> None:
    """A link to a file elsewhere, and one to a folder elsewhere."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir(), here.mkdir()
    (elsewhere / "weights.bin").write_bytes(bytes(864))
    (here / location.split("/")[0]).symlink_to(elsewhere if "/" in location else elsewhere / "weights.bin")
    assert "a link to a file outside the model's folder" in refusal(external(location), here)


def test_a_download_cache_of_links(tmp_path: Path) -> None:
    """Model and weights are links to two files of one folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), snapshot.mkdir()
    proto = small_cnn()
    (blobs / "b").write_bytes(proto.graph.initializer[0].raw_data)
    (blobs / "a").write_bytes(external("weights.bin").SerializeToString())
    for link, target in (("net.onnx", "a"), ("weights.bin", "b")):
        (snapshot / link).symlink_to(blobs / target)
    read = {t.name: t for t in load_model(snapshot / "net.onnx").proto.graph.initializer}
    assert read["const_0"].raw_data == proto.graph.initializer[0].raw_data


def test_weights_in_a_file_that_is_too_short_or_not_there(tmp_path: Path) -> None:
    assert "which is not beside it" in refusal(external("nowhere.bin"), tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    assert "864 bytes of 'weights.bin' (100 bytes)" in refusal(external("weights.bin"), tmp_path)
    for entries in ({"offset": -1}, {"offset": "x"}, {"length": 10**12}, {"offset": 10**18}):
        assert "cannot be read" in refusal(external("weights.bin", **entries), tmp_path)


def test_a_device_is_no_model() -> None:
    """/dev/zero never ends."""
    with pytest.raises(UsageError, match="is not a file"):
        load_model(Path("/dev/zero"))


def test_a_bomb_stays_small_in_memory(tmp_path: Path) -> None:
    """The largest constant that is allowed, in a process of its own that may not take more than 3 GiB."""
    b = ModelBuilder((1, 4))
    constant = b.node("ConstantOfShape", b.const([MAX_ELEMENTS], np.int64))
    x = b.node("Add", b.gemm(b.input, 4, 4), b.node("ReduceSum", constant, keepdims=0))
    onnx.save(b.build(x), tmp_path / "net.onnx")
    program = f"""
        import resource
        from pathlib import Path
        from tinytrain_compiler.frontends.onnx.file import load_model
        load_model(Path({str(tmp_path / "net.onnx")!r}))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 2**20, "more than a GiB"
