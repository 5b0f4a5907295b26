"""Weights that are transposed or reshaped behind their DequantizeLinear are so in front of it.

PyTorch's exporter writes a Linear layer this way.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from ..float_passes.edit import Array, GraphEditor, attributes
from .pairs import dequantize, parameters_of

_SHAPES = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")


def move_constants(editor: GraphEditor) -> list[str]:
    for node in editor.nodes("Transpose", *_SHAPES):
        source = editor.producer(node.input[0])
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in editor.constants:
            continue
        p, values = parameters_of(source), editor.constants[source.input[0]]
        known = None if p is None else p.values(editor)
        shape = editor.shapes.get(node.output[0])
        if p is None or known is None or shape is None or math.prod(shape) != values.size:
            continue
        axis = None if known[0].size == 1 else attributes(source).get("axis", 1) % values.ndim
        new_axis = None if axis is None else _moved(node, axis, values.shape, shape)
        if axis is not None and new_axis is None:
            continue
        name = editor.add_constant(f"{source.input[0]}_moved", _apply(node, values, shape))
        back = dequantize(editor, name, p, new_axis)
        back.output[0] = node.output[0]
        editor.replace(node, [back])
    return []


def _apply(node: onnx.NodeProto, values: Array, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Transpose":
        return np.ascontiguousarray(values.transpose(attributes(node).get("perm")))
    return values.reshape(shape)


def _moved(node: onnx.NodeProto, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Where an axis has gone; None where it is no axis of its own any more."""
    if node.op_type == "Transpose":
        return list(attributes(node).get("perm", range(len(before))[::-1])).index(axis)
    for i, size in enumerate(after):
        if size == before[axis] and math.prod(after[:i]) == math.prod(before[:axis]):
            return i
    return None
