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
    """Move Relu and Clip in front of MaxPool, Reshape and Transpose, which commute with any monotone function.

    There they become the clip limits of the layer, and pooling keeps the scale of its input.
    """
    for node in editor.nodes(*_COMMUTING):
        before = editor.private_producer(node.input[0])
        if before is None or before.op_type not in _COMMUTING:
            _activations_first(editor, _run(editor, node))


_COMMUTING = ("Relu", "Clip", "MaxPool", "Reshape", "Transpose")


def _run(editor: GraphEditor, head: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The longest row of such nodes from `head` on in which each is the only reader of the one before."""
    run = [head]
    while (after := editor.only_consumer(run[-1].output[0])) is not None and after.op_type in _COMMUTING:
        if after.input[0] != run[-1].output[0]:
            break
        run.append(after)
    return run


def _activations_first(editor: GraphEditor, run: list[onnx.NodeProto]) -> None:
    """Reorder a row of nodes; the tensors between them keep their places, not their shapes."""
    ordered = sorted(run, key=lambda node: node.op_type not in ("Relu", "Clip"))
    if [id(node) for node in ordered] == [id(node) for node in run]:
        return
    tensors = [run[0].input[0], *(node.output[0] for node in run)]
    changed = [(node, editor.shapes[node.output[0]]) for node in ordered]
    shape = editor.shapes[tensors[0]]
    for old, (node, result), source, target in zip(run, changed, tensors, tensors[1:], strict=False):
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        moved.input[0], moved.output[0] = source, target
        editor.replace(old, [moved])
        shape = shape if node.op_type in ("Relu", "Clip") else result
        editor.shapes[target] = shape


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
            editor.remove([before])
            editor.set_input(node, 0, before.input[0])
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
