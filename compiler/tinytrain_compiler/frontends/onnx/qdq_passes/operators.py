"""QLinearConv and its kind are DequantizeLinears, the float operator and a QuantizeLinear.

That is what ONNX defines them to compute, up to the rounding of ties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..float_passes.edit import GraphEditor, attributes, default_opset
from .pairs import Parameters, dequantize, quantize


def spell_out_operators(editor: GraphEditor) -> list[str]:
    for node in editor.nodes(*SPELLED):
        new = SPELLED[node.op_type](_Spelling(node, editor))
        if new is not None:
            editor.replace(node, new)
    return []


class _Spelling:
    """The nodes that take one node's place."""

    def __init__(self, node: onnx.NodeProto, editor: GraphEditor) -> None:
        self.node = node
        self.editor = editor
        self.attributes = attributes(node)
        self.front: list[onnx.NodeProto] = []
        self._lost = bool(self.attributes.pop("channels_last", 0))  # an order of values that no exporter writes

    def parameters(self, at: int) -> Parameters:
        """Scale and zero point from input `at` on."""
        names = [*self.node.input[at : at + 2], "", ""]
        self._lost |= not all(names[:2])  # without a zero point nothing says which integers these are
        return Parameters(names[0], names[1])

    def real(self, at: int, axis: int | None = None, factor: float = 1.0) -> str:
        """The float tensor of inputs at .. at + 2: integers, scale, zero point. axis: that scales may run along."""
        p = self.parameters(at + 1)
        known = p.values(self.editor)
        if known is not None and factor != 1.0:
            name = self.editor.add_constant(f"{p.scale}_scaled", (known[0] * np.float32(factor)).astype(np.float32))
            p = Parameters(name, p.zero)
        several = known is not None and known[0].size > 1
        self.front.append(dequantize(self.editor, self.node.input[at], p, axis if several else None))
        return str(self.front[-1].output[0])

    def bias(self, at: int, x_scale: int, w_scale: int, factor: float = 1.0) -> list[str]:
        """int32, in units of the product of two scales; [] where the node has none."""
        if len(self.node.input) <= at or not self.node.input[at]:
            return []
        scales = [self.editor.constants.get(self.node.input[i]) for i in (x_scale, w_scale)]
        if scales[0] is None or scales[1] is None:
            self._lost = True
            return []
        unit = (scales[0].ravel().astype(np.float64) * scales[1].ravel() * factor).astype(np.float32)
        name = self.node.input[at]
        zero = self.editor.add_constant(f"{name}_zero", np.zeros(unit.shape if unit.size > 1 else (), np.int32))
        scale = self.editor.add_constant(f"{name}_scale", unit if unit.size > 1 else unit.reshape(()))
        self.front.append(dequantize(self.editor, name, Parameters(scale, zero), 0 if unit.size > 1 else None))
        return [self.front[-1].output[0]]

    def operator(self, op: str, inputs: list[str], at: int | None, **changed: Any) -> list[onnx.NodeProto] | None:
        """All nodes; the output's scale and zero point from input `at` on, None for a float output."""
        (result,) = self.node.output
        kept = {k: v for k, v in (self.attributes | changed).items() if v is not None}
        if at is None:
            return [*self.front, helper.make_node(op, inputs, [result], name=self.node.name, **kept)]
        p = self.parameters(at)
        if self._lost:
            return None
        real = self.editor.fresh(f"{result}_real")
        body = helper.make_node(op, inputs, [real], name=self.node.name, **kept)
        return [*self.front, body, quantize(self.editor, real, p, result)]


Nodes = list[onnx.NodeProto] | None


def _conv(s: _Spelling) -> Nodes:
    return s.operator("Conv", [s.real(0), s.real(3, axis=0), *s.bias(8, 1, 4)], 6)


def _matmul(s: _Spelling) -> Nodes:
    return s.operator("MatMul", [s.real(0), s.real(3, axis=1)], 6)


def _gemm(s: _Spelling) -> Nodes:
    alpha = s.attributes.get("alpha", 1.0)
    inputs = [s.real(0), s.real(3, axis=0 if s.attributes.get("transB", 0) else 1, factor=alpha)]
    inputs += s.bias(6, 1, 4, alpha)
    has_scale = len(s.node.input) > 7 and s.node.input[7]
    return s.operator("Gemm", inputs, 7 if has_scale else None, alpha=None)


def _binary(op: str) -> Callable[[_Spelling], Nodes]:
    return lambda s: s.operator(op, [s.real(0), s.real(3)], 6)


def _unary(op: str) -> Callable[[_Spelling], Nodes]:
    return lambda s: s.operator(op, [s.real(0)], 3)


def _softmax(s: _Spelling) -> Nodes:
    axis = s.attributes.get("axis", -1)
    shape = s.editor.shapes.get(s.node.input[0])
    last = axis == -1 or (shape is not None and axis == len(shape) - 1)
    # Before opset 13 it ran over this axis and all behind it together.
    return s.operator("Softmax", [s.real(0)], 3, opset=None) if last or s.attributes.get("opset", 13) >= 13 else None


def _reduce_mean(s: _Spelling) -> Nodes:
    if default_opset(s.editor.proto) < 18 or "axes" not in s.attributes:
        return s.operator("ReduceMean", [s.real(0)], 3)
    axes = s.editor.add_constant(f"{s.node.output[0]}_axes", np.array(s.attributes["axes"], np.int64))
    return s.operator("ReduceMean", [s.real(0), axes], 3, axes=None)


def _concat(s: _Spelling) -> Nodes:
    return s.operator("Concat", [s.real(i) for i in range(2, len(s.node.input), 3)], 0)


SPELLED: dict[str, Callable[[_Spelling], Nodes]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearReduceMean": _reduce_mean,
    "QLinearConcat": _concat,
}
