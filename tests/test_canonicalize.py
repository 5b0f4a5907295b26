"""Canonicalisation changes the form of a float model and nothing of what it computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.float_passes.edit import attributes, default_opset
from tinytrain_compiler.frontends.onnx.float_passes.fold_constants import fold_constants
from tinytrain_compiler.frontends.onnx.float_passes.runtime import new_session
from tinytrain_compiler.frontends.onnx.support import check_supported

CANONICAL = {
    "Conv", "Gemm", "Relu", "Clip", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Reshape", "Softmax",
}  # fmt: skip


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = new_session(proto).run(None, {"input": x})[0]
    return result


def canonical(proto: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The canonical form, after checking all that must hold of any."""
    proto = fold_constants(proto)
    check_supported(proto)
    before = proto.SerializeToString()
    result = canonicalize(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    assert {n.op_type for n in result.graph.node} <= CANONICAL
    names = [n.name for n in result.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert [o.name for o in result.graph.output] == [o.name for o in proto.graph.output]
    assert [(o.domain, o.version >= 17) for o in result.opset_import] == [("", True)]
    constants = {t.name for t in result.graph.initializer}
    assert len(constants) == len(result.graph.initializer)
    assert constants <= {name for n in result.graph.node for name in n.input}
    for node in result.graph.node:
        a = attributes(node)
        if node.op_type == "Gemm":
            assert a == {"transB": 1}
            assert set(node.input[1:]) <= constants
        if node.op_type == "Conv":
            assert {"kernel_shape", "strides", "pads", "dilations", "group"} == set(a)
        if node.op_type in ("AveragePool", "MaxPool"):
            assert (
                {"kernel_shape", "strides", "pads"}
                <= set(a)
                <= {"kernel_shape", "strides", "pads", "count_include_pad"}
            )
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 2
    expected, got = run(proto, x), run(result, x)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    return result


def ops(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


@pytest.mark.parametrize("opset", range(11, 22))
def test_a_network_of_every_opset(opset: int) -> None:
    result = canonical(small_cnn(opset))
    assert default_opset(result) == max(opset, 17)
    assert [n.name for n in result.graph.node] == [
        "stem", "stem_act", "depthwise", "depthwise_act", "project", "residual", "expand", "expand_act", "pool",
        "flatten", "gemm_10",
    ]  # fmt: skip


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_batch_norm_goes_into_the_conv_in_front(opset: int) -> None:
    b = ModelBuilder(opset=opset)
    x = b.batch_norm(b.conv(b.input, 3, 4, bias=False, pads=[1, 1, 1, 1], name="conv"), 4)
    assert ops(canonical(b.build(b.node("Relu", x)))) == ["Conv", "Relu"]


def test_batch_norm_with_no_layer_to_go_into_becomes_a_depthwise_conv() -> None:
    b = ModelBuilder()
    x = b.batch_norm(b.input, 3, name="first")
    x = b.node("Relu", b.conv(x, 3, 3, pads=[1, 1, 1, 1], name="conv"))
    x = b.batch_norm(b.node("Add", x, x), 3, name="last")
    result = canonical(b.build(x))
    assert ops(result) == ["Conv", "Conv", "Relu", "Add", "Conv"]
    assert [attributes(n)["group"] for n in result.graph.node if n.op_type == "Conv"] == [3, 1, 3]
    assert result.graph.node[0].name == "first"


def test_batch_norm_between_fully_connected_layers() -> None:
    b = ModelBuilder((1, 6))
    x = b.batch_norm(b.gemm(b.input, 6, 5), 5)  # into the first
    x = b.batch_norm(b.node("Relu", x), 5)  # into the second
    x = b.batch_norm(b.node("Relu", b.gemm(x, 5, 4)), 4)  # a layer of its own
    assert ops(canonical(b.build(x))) == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]


def test_a_conv_that_two_nodes_read_keeps_its_weights() -> None:
    b = ModelBuilder()
    x = b.conv(b.input, 3, 3, pads=[1, 1, 1, 1])
    result = canonical(b.build(b.node("Add", b.batch_norm(x, 3), x)))
    assert ops(result) == ["Conv", "Conv", "Add"]


def test_shared_weights_are_folded_apart() -> None:
    b = ModelBuilder()
    weight, bias = b.const(b.random(3, 3, 1, 1)), b.const(b.random(3))
    x = b.batch_norm(b.node("Conv", b.input, weight, bias), 3)
    y = b.node("Conv", x, weight, bias)
    assert ops(canonical(b.build(b.node("Add", x, y)))) == ["Conv", "Conv", "Add"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("place", ["input", "conv"])
def test_constant_arithmetic_per_channel(op: str, first: bool, place: str) -> None:
    b = ModelBuilder()
    x = b.input if place == "input" else b.conv(b.input, 3, 3)
    value = b.const(b.rng.uniform(0.5, 2, (1, 3, 1, 1)))
    if op == "Div" and not first:
        return  # a constant divided by an activation is no affine map
    y = b.node(op, *((x, value) if first else (value, x)), name="affine")
    assert ops(canonical(b.build(b.node("Relu", y)))) == ["Conv", "Relu"]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_mean_over_space_is_global_average_pool(keepdims: int, opset: int) -> None:
    b = ModelBuilder(opset=opset)
    x = b.conv(b.input, 3, 4)
    if opset < 18:
        x = b.node("ReduceMean", x, axes=[2, 3], keepdims=keepdims, name="mean")
    else:
        x = b.node("ReduceMean", x, b.const([-1, -2], np.int64), keepdims=keepdims, name="mean")
    result = canonical(b.build(x))
    assert ops(result) == ["Conv", "GlobalAveragePool", "Reshape"][: 3 - keepdims]
    assert result.graph.node[1].name == "mean"


@pytest.mark.parametrize("bias", ["none", "vector", "row", "scalar", "left"])
def test_matmul_becomes_gemm(bias: str) -> None:
    b = ModelBuilder((1, 6))
    x = b.node("MatMul", b.input, b.const(b.random(6, 4)), name="matmul")
    if bias != "none":
        value = b.const({"vector": b.random(4), "row": b.random(1, 4), "scalar": 0.5, "left": b.random(4)}[bias])
        x = b.node("Add", *((value, x) if bias == "left" else (x, value)))
    result = canonical(b.build(b.node("Relu", x)))
    assert ops(result) == ["Gemm", "Relu"]
    assert len(result.graph.node[0].input) == (2 if bias == "none" else 3)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (1,), (4,), (1, 4)])
def test_gemm_in_all_its_spellings(trans_b: int, c_shape: tuple[int, ...] | None) -> None:
    b = ModelBuilder((1, 6))
    inputs = [b.input, b.const(b.random(*((4, 6) if trans_b else (6, 4))))]
    if c_shape is not None:
        inputs.append(b.const(b.random(*c_shape)))
    result = canonical(b.build(b.node("Gemm", *inputs, transB=trans_b, alpha=0.5, beta=-2.0)))
    assert ops(result) == ["Gemm"]


def test_reshapes_are_merged_and_useless_ones_go() -> None:
    b = ModelBuilder((1, 24))
    x = b.node("Reshape", b.input, b.const([1, 1, 4, 6], np.int64))
    x = b.node("GlobalAveragePool", b.conv(x, 1, 5))
    x = b.node("Squeeze", b.node("Squeeze", x, b.const([-1], np.int64)), b.const([-1], np.int64))
    x = b.node("Flatten", x)
    assert ops(canonical(b.build(b.gemm(x, 5, 3)))) == ["Reshape", "Conv", "GlobalAveragePool", "Reshape", "Gemm"]


def test_activations_move_in_front_of_pools_and_merge() -> None:
    b = ModelBuilder()
    x = b.node("MaxPool", b.conv(b.input, 3, 4), kernel_shape=[2, 2], strides=[2, 2], name="pool")
    x = b.clip(b.node("Relu", b.node("Flatten", x, name="flatten")), None, 1.0, name="clip")
    result = canonical(b.build(x))
    assert ops(result) == ["Conv", "Clip", "MaxPool", "Reshape"]
    assert [n.name for n in result.graph.node] == ["conv_0", "clip", "pool", "flatten"]
    low, high = (numpy_helper.to_array(t) for t in result.graph.initializer if t.name in result.graph.node[1].input)
    assert {float(low), float(high)} == {0.0, 1.0}


@settings(max_examples=25, deadline=None)
@given(
    limits=st.lists(
        st.tuples(st.sampled_from([None, -2.0, 0.0, 0.5]), st.sampled_from([None, -1.0, 1.0, 6.0])), max_size=3
    )
)
def test_any_chain_of_clips(limits: list[tuple[float | None, float | None]]) -> None:
    b = ModelBuilder()
    x = b.conv(b.input, 3, 2)
    for low, high in limits:
        if low is None or high is None or low <= high:
            x = b.clip(x, low, high)
    result = canonical(b.build(x))
    assert ops(result) in (["Conv"], ["Conv", "Clip"], ["Conv", "Relu"])


def test_no_ops_vanish_also_at_the_ends() -> None:
    b = ModelBuilder()
    x = b.node("Dropout", b.conv(b.node("Identity", b.input), 3, 4, name="conv"), name="drop")
    assert [n.name for n in canonical(b.build(b.node("Identity", x))).graph.node] == ["conv"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@settings(max_examples=8, deadline=None)
@given(size=st.integers(20, 26), kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2))
def test_auto_pad_becomes_numbers(mode: str, size: int, kernel: int, stride: int, dilation: int) -> None:
    stride = min(stride, kernel)  # onnxruntime pads by negative amounts otherwise
    window = {"kernel": (kernel, 2), "strides": [stride, 1], "auto_pad": mode}
    b = ModelBuilder((1, 3, size, 7))
    if mode == "VALID":  # onnxruntime, which we compare with, refuses dilation with SAME
        window["dilations"] = [dilation, 1]
    x = b.conv(b.input, 3, 4, **window)
    x = b.node("MaxPool", x, kernel_shape=[stride, 2], strides=[stride, 1], auto_pad=mode)
    canonical(b.build(b.node("AveragePool", x, kernel_shape=[1, 2], auto_pad=mode)))


def test_dilation_with_auto_pad() -> None:
    b = ModelBuilder()
    proto = fold_constants(b.build(b.conv(b.input, 3, 4, auto_pad="SAME_LOWER", dilations=[2, 3], name="conv")))
    result = canonicalize(proto)
    assert attributes(result.graph.node[0])["pads"] == [2, 3, 2, 3]
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        run(result, x), ReferenceEvaluator(proto).run(None, {"input": x})[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_before_and_after_opset_13(opset: int) -> None:
    b = ModelBuilder(opset=opset)
    x = b.node("Softmax", b.node("GlobalAveragePool", b.conv(b.input, 3, 4)), axis=1)
    assert "Softmax" in ops(canonical(b.build(b.node("Flatten", x))))


def test_unnamed_nodes_get_names_from_their_outputs() -> None:
    b = ModelBuilder()
    x = b.node("Relu", b.conv(b.input, 3, 3, name=""), name="same")
    x = b.conv(x, 3, 3, name="same")
    result = canonicalize(fold_constants(b.build(x)))
    assert [n.name for n in result.graph.node] == ["Conv_conv_0_out", "same", "same_1"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), plan=st.lists(st.sampled_from("cbrmdaps"), max_size=9))
def test_random_networks_compute_the_same(seed: int, plan: list[str]) -> None:
    b = ModelBuilder(seed=seed)
    steps: dict[str, Callable[[str], str]] = {
        "c": lambda x: b.conv(x, 3, 3, pads=[1, 1, 1, 1]),
        "b": lambda x: b.batch_norm(x, 3),
        "r": lambda x: b.node("Relu", x),
        "m": lambda x: b.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        "d": lambda x: b.conv(x, 3, 3, group=3, pads=[1, 1, 1, 1]),
        "a": lambda x: b.node("Add", x, x),
        "p": lambda x: b.node("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        "s": lambda x: b.node("Mul", x, b.const(b.random(3, 1, 1))),
    }
    x = b.input
    for step in plan:
        x = steps[step](x)
    canonical(b.build(b.gemm(b.node("Flatten", b.node("ReduceMean", x, axes=[2, 3])), 3, 2)), seed)


def test_a_quantised_model_keeps_its_structure() -> None:
    b = ModelBuilder()
    scale, zero = b.const(0.05), b.const(3, np.int8)
    x = b.node("DequantizeLinear", b.node("QuantizeLinear", b.input, scale, zero), scale, zero)
    weight = b.node("DequantizeLinear", b.const(b.rng.integers(-9, 9, (4, 3, 3, 3)), np.int8), b.const(0.1))
    x = b.node("Conv", x, weight, auto_pad="SAME_UPPER", name="")
    x = b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, zero), scale, zero)
    proto = fold_constants(b.build(x))
    check_supported(proto)
    result = canonicalize(proto)
    assert ops(result) == ops(proto)
    (conv,) = (n for n in result.graph.node if n.op_type == "Conv")
    assert conv.name
    assert attributes(conv)["pads"] == [1, 1, 1, 1]


def test_layers_that_do_not_fit_together() -> None:
    b = ModelBuilder()
    with pytest.raises(UsageError, match="don't fit together"):
        check_supported(fold_constants(b.build(b.conv(b.input, 5, 4))))


def test_functions_and_extra_domains_leave_no_trace() -> None:
    b = ModelBuilder()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    canonical(b.build(b.conv(b.input, 3, 4), opset_imports=opsets))
