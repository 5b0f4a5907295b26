"""ConvTranspose becomes a Conv and moves of bytes: the same floats, and integers within a step of onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import ModelBuilder
from test_against_onnxruntime import check
from tinytrain_compiler import compile_model
from tinytrain_compiler.frontends.onnx.canonicalize import canonicalize
from tinytrain_compiler.frontends.onnx.float_passes.edit import attributes
from tinytrain_compiler.frontends.onnx.float_passes.runtime import new_session
from tinytrain_compiler.frontends.onnx.support import check_supported


def transposed(
    b: ModelBuilder, x: str, cin: int, cout: int, kernel: list[int], bias: bool = True, **attrs: object
) -> str:
    group = attrs.get("group", 1)
    assert isinstance(group, int)
    inputs = [x, b.const(b.random(cin, cout // group, *kernel, scale=0.3))]
    return b.node("ConvTranspose", *inputs, *([b.const(b.random(cout))] if bias else []), **attrs)


# kernel, its attributes, the size of the input; the kernel and the operators that it becomes
CASES = {
    "blocks": ([2, 2], {"strides": [2, 2]}, (3, 4), [1, 1], False),
    "doubles": ([3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, (3, 4), [2, 2], False),
    "even": ([4, 4], {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (3, 4), [2, 2], True),
    "stride 1": ([3, 3], {"pads": [1, 0, 0, 1]}, (3, 4), [3, 3], False),
    "axes differ": ([5, 2], {"strides": [3, 1], "pads": [0, 1, 2, 0], "output_padding": [2, 0]}, (2, 5), [2, 2], True),
    "pads of whole kernels": ([2, 3], {"strides": [1, 2], "pads": [3, 4, 1, 0]}, (7, 6), [2, 2], True),
    "groups": ([3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 3}, (3, 4), [2, 2], True),
    "series": ([4], {"strides": [2], "pads": [1, 1]}, (7,), [2], True),
    "series in groups": ([3], {"strides": [3], "group": 2}, (5,), [1], False),
    "one element": ([3, 3], {"strides": [3, 3], "pads": [1, 1, 1, 1]}, (1, 1), [1, 1], True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_floats(name: str, bias: bool) -> None:
    kernel, attrs, size, smaller, cut = CASES[name]
    b = ModelBuilder((1, 6, *size))
    y = transposed(b, b.input, 6, 12, kernel, bias, **attrs)
    proto = b.build(b.clip(b.batch_norm(y, 12), -1.0, 2.0))
    check_supported(proto)
    result = canonicalize(proto)
    nodes = {node.op_type: node for node in result.graph.node}
    assert list(nodes)[:2] == ["Conv", "Clip"], "the activation belongs to the Conv"
    assert ("Slice" in nodes) == cut
    if name != "pads of whole kernels":
        assert attributes(nodes["Conv"])["kernel_shape"] == smaller
    x = b.random(1, 6, *size)
    expected, found = (new_session(p).run(None, {b.input: x})[0] for p in (proto, result))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def decoder() -> onnx.ModelProto:
    b = ModelBuilder((1, 3, 8, 8))
    x = b.node("Relu", b.conv(b.input, 3, 4, strides=[2, 2], pads=[1, 1, 1, 1]))
    skip = x
    x = b.node("Relu", b.conv(x, 4, 6, strides=[2, 2], pads=[1, 1, 1, 1]))
    x = b.node("Concat", b.node("Relu", transposed(b, x, 6, 4, [2, 2], strides=[2, 2])), skip, axis=1)
    x = transposed(b, x, 8, 5, [4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    return b.build(b.node("Sigmoid", b.conv(x, 5, 3, 1)))


def test_a_decoder(tmp_path: Path) -> None:
    check(decoder(), tmp_path, identical=0.9)


def test_a_series_decoder(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 9))
    x = b.node("Relu", transposed(b, b.input, 3, 4, [3], strides=[2], pads=[1, 1], output_padding=[1]))
    check(b.build(transposed(b, x, 4, 4, [4], strides=[2], pads=[1, 1], group=2)), tmp_path, identical=0.9)


def test_its_weights_learn(tmp_path: Path) -> None:
    b = ModelBuilder((1, 3, 6, 6))
    x = b.node("Relu", transposed(b, b.input, 3, 4, [3, 3], strides=[2, 2], pads=[1, 1, 1, 1], name="up"))
    x = b.node("Flatten", b.node("GlobalAveragePool", b.conv(x, 4, 6)))
    onnx.save(b.build(b.gemm(x, 6, 3)), tmp_path / "net.onnx")
    report = compile_model(tmp_path / "net.onnx", "stm32f746", policy="full", classes=3).report
    assert "up" in [layer["name"] for layer in report["training"]["layers"]]
