"""The rules: what they accept, what they refuse, and that all problems come at once with a fix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import ModelBuilder, small_cnn
from tinytrain_compiler.errors import Problem, UnsupportedModelError
from tinytrain_compiler.frontends.onnx.support import check_supported, support_table

Build = Callable[[ModelBuilder], str]


def problems(proto: onnx.ModelProto) -> tuple[Problem, ...]:
    with pytest.raises(UnsupportedModelError) as caught:
        check_supported(proto)
    assert all(p.node and p.op and p.reason and p.fix for p in caught.value.problems)
    return caught.value.problems


def test_every_rule_has_a_line_of_documentation() -> None:
    table = support_table()
    assert table == sorted(table)
    assert all(doc.endswith(".") and len(doc) <= 120 for _, doc in table)
    assert {"Conv", "Gemm", "BatchNormalization", "Softmax", "QuantizeLinear"} <= {op for op, _ in table}


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_a_usual_network_is_supported(opset: int) -> None:
    check_supported(small_cnn(opset))


def test_all_offending_nodes_are_listed_at_once() -> None:
    b = ModelBuilder()
    x = b.node("LpNormalization", b.conv(b.input, 3, 4), name="act")
    x = b.node("Einsum", x, equation="nchw->nchw", name="join")
    x = b.node("FancyOp", x, domain="com.microsoft", name="fancy")
    x = b.node("Hardmax", x, name="")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    found = problems(b.build(x, opset_imports=opsets))
    assert [(p.op, p.node) for p in found] == [
        ("LpNormalization", "act"),
        ("Einsum", "join"),
        ("com.microsoft.FancyOp", "fancy"),
        ("Hardmax", "output"),
    ]
    assert "tinytrain ops" in found[0].fix
    assert "com.microsoft" in found[2].reason


def test_a_misspelt_operator() -> None:
    b = ModelBuilder()
    (found,) = problems(b.build(b.node("Cnov", b.input)))
    assert found.reason == "there is no such operator in ONNX"


def test_constant_subgraphs_may_use_any_operator() -> None:
    b = ModelBuilder((1, 4))
    weight = b.node("Transpose", b.node("Sigmoid", b.const(b.random(3, 4))), perm=[1, 0])
    check_supported(b.build(b.node("MatMul", b.input, weight)))


ACCEPTED: dict[str, Build] = {
    "conv same": lambda b: b.conv(b.input, 3, 4, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv dilated": lambda b: b.conv(b.input, 3, 4, dilations=[2, 2]),
    "pool ceil without effect": lambda b: b.node("MaxPool", b.input, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "average, pads counted": lambda b: b.node(
        "AveragePool", b.input, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "mean over space": lambda b: b.node("ReduceMean", b.input, axes=[-1, -2]),
    "input normalisation": lambda b: b.node(
        "Div", b.node("Sub", b.input, b.const(np.ones((1, 3, 1, 1)))), b.const([[[2.0]]] * 3)
    ),
    "batch norm alone": lambda b: b.batch_norm(b.input, 3),
    "squeeze twice": lambda b: b.node(
        "Squeeze",
        b.node("Squeeze", b.node("GlobalAveragePool", b.input), b.const([-1], np.int64)),
        b.const([-1], np.int64),
    ),
    "dropout": lambda b: b.node("Dropout", b.input, outputs=2),
    "softmax over channels": lambda b: b.node("Softmax", b.input, axis=1),
    "gemm scaled": lambda b: b.node(
        "Gemm",
        b.node("Flatten", b.input),
        b.const(b.random(192, 4)),
        b.const([[1.0] * 4]),
        alpha=0.5,
        beta=2.0,
    ),
}


@pytest.mark.parametrize("build", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(build: Build) -> None:
    b = ModelBuilder()
    check_supported(b.build(build(b)))


def _transposed(b: ModelBuilder, **attrs: object) -> str:
    return b.node("ConvTranspose", b.input, b.const(b.random(3, 4, 3, 3)), **{"strides": [2, 2], **attrs})


REFUSED: dict[str, tuple[Build, str]] = {
    "weights computed": (lambda b: b.node("Conv", b.input, b.node("Relu", b.input)), "weight is computed"),
    "matmul with a constant in front": (
        lambda b: b.node("MatMul", b.const(b.random(4, 8)), b.input),
        "left side is the constant",
    ),
    "gemm transA": (
        lambda b: b.node("Gemm", b.node("Flatten", b.input), b.const(b.random(1, 4)), transA=1),
        "transA=1",
    ),
    "batch norm training": (lambda b: b.batch_norm(b.input, 3, training_mode=1, outputs=3), "training mode"),
    "dropout training": (
        lambda b: b.node("Dropout", b.input, b.const(0.5), b.const(True, np.bool_)),
        "training mode",
    ),
    "clip limits computed": (
        lambda b: b.node(
            "Clip",
            b.input,
            b.node(
                "Squeeze",
                b.node(
                    "GlobalAveragePool",
                    b.node("Slice", b.input, b.const([0], np.int64), b.const([1], np.int64), b.const([1], np.int64)),
                ),
            ),
        ),
        "min or max",
    ),
    "maximum of two": (
        lambda b: b.node("Max", b.input, b.node("GlobalAveragePool", b.input)),
        "several computed tensors",
    ),
    "parameter per channel": (lambda b: b.node("PRelu", b.input, b.const(b.random(3, 1, 1))), "several values"),
    "div by zero": (lambda b: b.node("Div", b.input, b.const(0.0)), "that is 0"),
    "pool dilated": (lambda b: b.node("MaxPool", b.input, kernel_shape=[2, 2], dilations=[2, 2]), "dilated"),
    "transposed convolution by auto_pad": (lambda b: _transposed(b, auto_pad="SAME_UPPER"), "follow from auto_pad"),
    "transposed convolution by output_shape": (lambda b: _transposed(b, output_shape=[16, 16]), "output_shape"),
    "transposed convolution, dilated": (lambda b: _transposed(b, dilations=[2, 2]), "dilated"),
    "transposed convolution with gaps": (lambda b: _transposed(b, strides=[2, 4]), "larger than its kernel"),
    "transposed convolution of computed weights": (
        lambda b: b.node("ConvTranspose", b.conv(b.input, 3, 8), b.conv(b.input, 3, 8)),
        "weight is computed",
    ),
    "two images": (
        lambda b: b.conv(b.node("Reshape", b.input, b.const([3, 1, 8, 8], np.int64)), 1, 2, 1),
        "it works on 3 samples",
    ),
}


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(build: Build, reason: str) -> None:
    b = ModelBuilder()
    found = problems(b.build(build(b)))
    matching = [p for p in found if reason in p.reason or reason in p.fix]
    assert matching, [str(p) for p in found]
    rules = dict(support_table())
    for p in matching:
        assert rules[p.op] in p.fix  # the documentation and the message are one text
