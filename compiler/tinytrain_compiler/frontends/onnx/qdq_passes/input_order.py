"""The model's input is quantised first: in front of a Flatten or Transpose, not behind it."""

from __future__ import annotations

import numpy as np
import onnx

from ..float_passes.edit import GraphEditor
from .integers import MOVES
from .pairs import dequantize, parameters_of, quantize

_MONOTONE = MOVES - {"Concat", "Split"} | {"Clip", "Relu"}


def quantize_first(editor: GraphEditor) -> list[str]:
    """Exact: rounding to integers keeps the order of values, and zeros stay zeros."""
    (name,) = [i.name for i in editor.graph.input if i.name not in editor.constants]
    row: list[onnx.NodeProto] = []
    node = editor.only_consumer(name)
    while node is not None and node.op_type in _MONOTONE and _keeps_zero(node, editor):
        row.append(node)
        node = editor.only_consumer(node.output[0])
    p = parameters_of(node) if node is not None and node.op_type == "QuantizeLinear" else None
    if p is None:
        return []
    for each in row:
        integers = quantize(editor, each.input[0], p)
        back = dequantize(editor, integers.output[0], p)
        editor.replace(each, [integers, back, each])
        editor.set_input(each, 0, back.output[0])
    return []


def _keeps_zero(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Whether no number but zero is put in between."""
    value = editor.constants.get(node.input[2]) if node.op_type == "Pad" and len(node.input) > 2 else None
    return value is None or not np.any(value)
