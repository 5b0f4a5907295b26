"""What the passes share: scale and zero point of a tensor by name, and nodes made with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..float_passes.edit import Array, GraphEditor, attributes


@dataclass(frozen=True)
class Parameters:
    """Names of a scale and of its zero point, whose type is that of the integers."""

    scale: str
    zero: str

    def values(self, editor: GraphEditor) -> tuple[Array, Array] | None:
        """None where the model computes one of them."""
        found = editor.constants.get(self.scale), editor.constants.get(self.zero)
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def same(self, other: Parameters, editor: GraphEditor) -> bool:
        """Whether both mean the same numbers and the same type."""
        if self == other:
            return True
        a, b = self.values(editor), other.values(editor)
        return a is not None and b is not None and all(map(_equal, a, b))


def _equal(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and bool(np.array_equal(a.ravel(), b.ravel()))


def parameters_of(node: onnx.NodeProto) -> Parameters | None:
    """Of a QuantizeLinear or DequantizeLinear; None without a zero point, which leaves the type open."""
    return Parameters(node.input[1], node.input[2]) if len(node.input) > 2 and node.input[2] else None


def quantize(editor: GraphEditor, source: str, p: Parameters, result: str | None = None) -> onnx.NodeProto:
    """result: name of the integers, a new one where it is None."""
    return _node(editor, "QuantizeLinear", source, p, result or editor.fresh(f"{source}_quantized"))


def dequantize(editor: GraphEditor, source: str, p: Parameters, axis: int | None = None) -> onnx.NodeProto:
    return _node(editor, "DequantizeLinear", source, p, editor.fresh(f"{source}_dequantized"), axis)


def _node(
    editor: GraphEditor, op: str, source: str, p: Parameters, result: str, axis: int | None = None
) -> onnx.NodeProto:
    along: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node(op, [source, p.scale, p.zero], [result], name=editor.fresh(f"{result}_{op}"), **along)


def renamed(node: onnx.NodeProto, op: str, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    """A standard operator in a node's place: its name and its attributes."""
    return helper.make_node(op, inputs, outputs, name=node.name, **attributes(node))
