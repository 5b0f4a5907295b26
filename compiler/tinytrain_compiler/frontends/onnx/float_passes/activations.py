"""Relu and Clip: one form, one per place, and right behind the layer they belong to."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .edit import GraphEditor

FLOAT_MAX = float(np.finfo(np.float32).max)


def clip_limits(node: onnx.NodeProto, editor: GraphEditor) -> tuple[float, float] | None:
    """(low, high) of a Relu or Clip, infinite where open; None where a limit isn't constant."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    limits = [-np.inf, np.inf]
    for i, name in enumerate(node.input[1:3]):
        if name:
            if name not in editor.constants:
                return None
            value = float(editor.constants[name].ravel()[0])
            limits[i] = value if abs(value) < FLOAT_MAX else limits[i]
    return limits[0], limits[1]


def hoist_activations(editor: GraphEditor) -> None:
    """Move Relu and Clip in front of MaxPool and Reshape, which commute with any monotone function.

    There they become the clip limits of the layer, and pooling keeps the scale of its input.
    """
    moved = True
    while moved:
        moved = False
        for node in editor.nodes("Relu", "Clip"):
            before = editor.private_producer(node.input[0])
            if before is None or before.op_type not in ("MaxPool", "Reshape"):
                continue
            source, middle, result = before.input[0], before.output[0], node.output[0]
            editor.remove([node])
            node_inputs = [source, *node.input[1:]]
            early = helper.make_node(node.op_type, node_inputs, [middle], name=node.name)
            late = onnx.NodeProto()
            late.CopyFrom(before)
            late.input[0], late.output[0] = middle, result
            editor.replace(before, [early, late])
            editor.shapes[middle] = editor.shapes[source]
            moved = True


def merge_activations(editor: GraphEditor) -> None:
    """Two in a row are one; one that never acts goes; Clip from 0 upwards is Relu."""
    for node in editor.nodes("Relu", "Clip"):
        limits = clip_limits(node, editor)
        assert limits is not None, "the support check accepts constant limits only"
        low, high = limits
        before = editor.private_producer(node.input[0])
        if before is not None and before.op_type in ("Relu", "Clip"):
            first = clip_limits(before, editor)
            assert first is not None
            # The second one's limits win where the two don't overlap.
            low, high = float(np.clip(first[0], low, high)), float(np.clip(first[1], low, high))
            node.input[0] = before.input[0]
            editor.remove([before])
        if (low, high) == (-np.inf, np.inf):
            editor.bypass(node)
        else:
            editor.replace(node, [_activation(editor, node, low, high)])


def _activation(editor: GraphEditor, node: onnx.NodeProto, low: float, high: float) -> onnx.NodeProto:
    result = node.output[0]
    if (low, high) == (0.0, np.inf):
        return helper.make_node("Relu", [node.input[0]], [result], name=node.name)
    limits = [max(low, -FLOAT_MAX), min(high, FLOAT_MAX)]
    names = [
        editor.add_constant(f"{result}_{end}", np.array(value, dtype=np.float32))
        for end, value in zip(("min", "max"), limits, strict=True)
    ]
    return helper.make_node("Clip", [node.input[0], *names], [result], name=node.name)
