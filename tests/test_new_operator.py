"""An operator is a record, a folder of templates, a builder of the importer and a support rule, and nothing else.

The one below is none of the compiler's: this file registers it from outside, with its template in a temporary
folder, and compiles a model that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import tinytrain_compiler.frontends.onnx.reader  # noqa: F401  (registers builders and rules)
from onnx_models import ModelBuilder
from tinytrain_compiler import compile_model, resources
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.emulate import emulate
from tinytrain_compiler.frontends.onnx import qdq_importer, rule
from tinytrain_compiler.graph import Node, Tensor
from tinytrain_compiler.graph.gradient import Gradient
from tinytrain_compiler.ops import Int8, Kernel, Operator, base, register
from tinytrain_compiler.ops.arrays import Floats
from tinytrain_compiler.ops.backward import Backward
from tinytrain_compiler.verify import verify
from tools import require_or_skip


@dataclass(frozen=True)
class AbsAttributes:
    low: int = -128
    high: int = 127


class AbsBackward(Backward):
    needs_inputs = True

    def int16(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], gradient: Gradient
    ) -> tuple[Gradient, ...]:
        zero = tensors[node.inputs[0]].quantization.zero_point
        sign = np.where(inputs[0] < zero, -1, 1).astype(np.int16)
        return (Gradient(gradient.mantissa * sign, gradient.exponent),)

    def float64(
        self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8], g: Floats
    ) -> tuple[Floats, ...]:
        return (np.where(inputs[0] < tensors[node.inputs[0]].quantization.zero_point, -g, g),)


class Abs(Operator):
    """y = zero + |x - zero|, with the input's scale."""

    name = "abs"
    attributes = AbsAttributes
    keeps_scale = True
    keeps_order = True
    backward = AbsBackward()

    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        zero = tensors[node.inputs[0]].quantization.zero_point
        y = zero + np.abs(inputs[0].astype(np.int32) - zero)
        return np.clip(y, node.attributes.low, node.attributes.high).astype(np.int8)

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        return (0,)

    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel:
        y = tensors[node.output]
        shape = {
            "N": y.bytes,
            "ZERO": y.quantization.zero_point,
            "LOW": node.attributes.low,
            "HIGH": node.attributes.high,
        }
        return Kernel("abs/forward", f"abs_{y.bytes}", "tt_no_params", shape, code={"portable": 200})


TEMPLATE = """\
{
    enum { {{ constants }} };
    for (int32_t i = 0; i < N; i++) {
        const int32_t difference = x[i] - ZERO;
        y[i] = tt_clamp(ZERO + (difference < 0 ? -difference : difference), LOW, HIGH);
    }
}
"""


def build(importer: qdq_importer.QdqImporter, node: onnx.NodeProto) -> qdq_importer.Pending:
    x, layout = importer.as_it_lies(node.input[0])
    return qdq_importer.Pending(node, "abs", (x.name,), layout, AbsAttributes())


def any_shape(c: rule.Context) -> rule.Findings:
    """Any shape."""
    yield from ()


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator while a test runs."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(qdq_importer, "BUILDERS", dict(qdq_importer.BUILDERS))
    monkeypatch.setattr(rule, "_RULES", dict(rule._RULES))
    monkeypatch.setattr(resources, "_template_folders", list(resources._template_folders))
    template = tmp_path / "mine" / "kernels" / "abs" / "forward.portable.c.j2"
    template.parent.mkdir(parents=True)
    template.write_text(TEMPLATE)
    register(Abs(), templates=tmp_path / "mine")
    qdq_importer.builder("Abs")(build)
    rule.support_rule("Abs")(any_shape)


def model(path: Path) -> Path:
    """A quantised model: |x|."""
    b = ModelBuilder((1, 3, 6, 5))
    scale, zero = b.const(0.05), b.const(-20, np.int8)

    def quantized(x: str) -> str:
        return b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, zero), scale, zero)

    onnx.save(b.build(quantized(b.node("Abs", quantized(b.input)))), path)
    return path


@pytest.mark.usefixtures("registered")
def test_a_new_operator_is_compiled_and_verified(tmp_path: Path) -> None:
    require_or_skip("gcc")
    compiled = compile_model(model(tmp_path / "abs.onnx"), "stm32f746", tmp_path / "out", name="net")
    assert [node.op for node in compiled.graph.nodes] == ["abs"]
    assert "net_abs_90" in compiled.files["net_kernels.c"].decode() + compiled.files["net.c"].decode()
    found = verify(load_compiled(tmp_path / "out"))
    assert found["host"]["mismatched_bytes"] == 0
    assert found["onnxruntime"]["identical"] == 1
    require_or_skip("arm-none-eabi-gcc")
    require_or_skip("qemu-system-arm")
    assert emulate(load_compiled(tmp_path / "out"), 2)["mismatched_bytes"] == 0


def test_without_it_a_table_computes_the_same(tmp_path: Path) -> None:
    compiled = compile_model(model(tmp_path / "abs.onnx"), "stm32f746", name="net")
    assert [node.op for node in compiled.graph.nodes] == ["lookup"]
