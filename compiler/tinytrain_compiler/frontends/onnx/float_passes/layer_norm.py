"""Layer normalisation spelled out as means, a difference, a square and a root is one LayerNormalization again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from .edit import Array, GraphEditor
from .pooling import reduced_axes


@dataclass(frozen=True)
class _Spelled:
    """(x - mean) / sqrt(variance + epsilon), both along one axis."""

    source: str
    axis: int
    epsilon: float


def recognize_layer_norm(editor: GraphEditor) -> None:
    """Over an axis that is not the last one, such as the channels of an image, between two Transposes."""
    for node in editor.nodes("Div"):
        found = _spelled(editor, node)
        if found is None:
            continue
        shape = editor.shapes[found.source]
        last, result = node, node.output[0]
        scale = _parameter(editor, result, "Mul", shape, found.axis)
        if scale is not None:
            last, result = scale[0], scale[0].output[0]
        shift = _parameter(editor, result, "Add", shape, found.axis)
        if shift is not None:
            last, result = shift[0], shift[0].output[0]
        n = shape[found.axis]
        values = [
            np.full(n, default, np.float32) if each is None else each[1]
            for each, default in ((scale, 1.0), (shift, 0.0))
        ]
        new = _nodes(editor, node.name, found, result, values)
        removed = [each[0] for each in (scale, shift) if each is not None and each[0] is not last]
        editor.remove([*removed, *([node] if last is not node else [])])
        editor.replace(last, new)


def _nodes(editor: GraphEditor, name: str, found: _Spelled, result: str, values: list[Array]) -> list[onnx.NodeProto]:
    constants = [
        editor.add_constant(f"{result}_{role}", value) for role, value in zip(("gamma", "beta"), values, strict=True)
    ]
    rank = len(editor.shapes[found.source])
    if found.axis == rank - 1:
        inputs = [found.source, *constants]
        return [helper.make_node("LayerNormalization", inputs, [result], name=name, axis=-1, epsilon=found.epsilon)]
    there = [axis for axis in range(rank) if axis != found.axis] + [found.axis]
    source, normal = editor.fresh(f"{found.source}_last"), editor.fresh(f"{result}_last")
    back = [there.index(axis) for axis in range(rank)]
    editor.shapes[source] = editor.shapes[normal] = tuple(editor.shapes[found.source][axis] for axis in there)
    return [
        helper.make_node("Transpose", [found.source], [source], name=editor.fresh(f"{name}_there"), perm=there),
        helper.make_node(
            "LayerNormalization", [source, *constants], [normal], name=name, axis=-1, epsilon=found.epsilon
        ),
        helper.make_node("Transpose", [normal], [result], name=editor.fresh(f"{name}_back"), perm=back),
    ]


def _spelled(editor: GraphEditor, node: onnx.NodeProto) -> _Spelled | None:
    centred = _centred(editor, node.input[0])
    root = editor.producer(node.input[1])
    if centred is None or root is None or root.op_type != "Sqrt":
        return None
    raised = editor.producer(root.input[0])
    if raised is None or raised.op_type != "Add":
        return None
    which = 1 if raised.input[1] in editor.constants else 0
    epsilon, mean = editor.constants.get(raised.input[which]), editor.producer(raised.input[1 - which])
    if epsilon is None or epsilon.size != 1 or mean is None or mean.op_type != "ReduceMean":
        return None
    source, axis = centred
    square = editor.producer(mean.input[0])
    if square is None or _mean_axis(editor, mean) != axis or _squared(editor, square) != centred:
        return None
    return _Spelled(source, axis, float(epsilon.ravel()[0]))


def _squared(editor: GraphEditor, node: onnx.NodeProto) -> tuple[str, int] | None:
    """What a Pow by 2 or a Mul with itself squares."""
    if node.op_type == "Pow":
        power = editor.constants.get(node.input[1])
        if power is None or power.size != 1 or float(power.ravel()[0]) != 2.0:
            return None
    elif node.op_type != "Mul" or node.input[0] != node.input[1]:
        return None
    return _centred(editor, node.input[0])


def _centred(editor: GraphEditor, name: str) -> tuple[str, int] | None:
    """(x, axis) of x minus its mean along an axis."""
    node = editor.producer(name)
    if node is None or node.op_type != "Sub":
        return None
    mean = editor.producer(node.input[1])
    axis = None if mean is None or mean.op_type != "ReduceMean" else _mean_axis(editor, mean)
    if mean is None or axis is None or mean.input[0] != node.input[0]:
        return None
    return node.input[0], axis


def _mean_axis(editor: GraphEditor, mean: onnx.NodeProto) -> int | None:
    """The one axis of a ReduceMean that keeps it."""
    axes = reduced_axes(mean, editor)
    if axes is None or len(axes) != 1 or len(editor.shapes[mean.output[0]]) != len(editor.shapes[mean.input[0]]):
        return None
    return axes[0]


def _parameter(
    editor: GraphEditor, name: str, op: str, shape: tuple[int, ...], axis: int
) -> tuple[onnx.NodeProto, Array] | None:
    """The Mul or Add right behind with one constant for each index of the axis, and these (n,)."""
    node = editor.only_consumer(name)
    if node is None or node.op_type != op:
        return None
    other = next((each for each in node.input if each != name), name)
    value = editor.constants.get(other)
    if value is None or value.ndim > len(shape) or value.dtype != np.float32:
        return None
    aligned = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    if any(size != 1 for i, size in enumerate(aligned.shape) if i != axis) or aligned.shape[axis] not in (
        1,
        shape[axis],
    ):
        return None
    return node, np.broadcast_to(aligned.ravel(), (shape[axis],)).copy()
