"""Concat with constants, such as the class token of a transformer: padding with zeros, and one Add of a constant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from .edit import Array, GraphEditor, attributes


def pad_for_constants(editor: GraphEditor) -> None:
    """Concat(c, x) -> Pad(x) + [c, 0]; an Add of a constant behind it, as of embedded positions, takes [c, 0] in."""
    for node in editor.nodes("Concat"):
        constants = [name in editor.constants for name in node.input]
        if any(constants) and not all(constants) and all(name in editor.shapes for name in node.input):
            _pad(editor, node)


def _pad(editor: GraphEditor, node: onnx.NodeProto) -> None:
    """Each activation is padded where the constants in front of it stood, the last also for those behind it."""
    rank = len(editor.shapes[node.input[0]])
    axis = attributes(node)["axis"] % rank
    last = max(i for i, name in enumerate(node.input) if name not in editor.constants)
    behind = sum(editor.shapes[name][axis] for name in node.input[last + 1 :])
    new: list[onnx.NodeProto] = []
    parts: list[str] = []
    before = 0
    for i, name in enumerate(node.input[: last + 1]):
        if name in editor.constants:
            before += editor.shapes[name][axis]
            continue
        after = behind if i == last else 0
        if before or after:
            new.append(_zeros_around(editor, node.name, name, rank, axis, (before, after)))
            name = new[-1].output[0]
        parts.append(name)
        before = 0
    if len(parts) > 1:
        joined = editor.fresh(f"{node.output[0]}_padded")
        new.append(helper.make_node("Concat", parts, [joined], name=editor.fresh(f"{node.name}_joined"), axis=axis))
        parts = [joined]
    shares = [editor.constants.get(name, np.zeros(editor.shapes[name], np.float32)) for name in node.input]
    _add_behind(editor, node, new, parts[0], np.concatenate(shares, axis).astype(np.float32))


def _zeros_around(
    editor: GraphEditor, base: str, name: str, rank: int, axis: int, sizes: Sequence[int]
) -> onnx.NodeProto:
    pads = np.zeros((2, rank), np.int64)
    pads[:, axis] = sizes
    constant = editor.add_constant(f"{base}_pads", pads.ravel())
    return helper.make_node("Pad", [name, constant], [editor.fresh(f"{name}_padded")], name=editor.fresh(f"{base}_pad"))


def _add_behind(
    editor: GraphEditor, node: onnx.NodeProto, new: list[onnx.NodeProto], padded: str, share: Array
) -> None:
    output = node.output[0]
    add = editor.only_consumer(output)
    i = 0 if add is None or add.input[0] == output else 1
    other = editor.constants.get(add.input[1 - i]) if add is not None and add.op_type == "Add" else None
    if add is not None and other is not None and np.broadcast_shapes(other.shape, share.shape) == share.shape:
        editor.set_input(add, 1 - i, editor.add_constant(f"{add.input[1 - i]}_joined", other + share))
        editor.set_input(add, i, padded)
    else:
        constant = editor.add_constant(f"{output}_constant", share)
        new.append(helper.make_node("Add", [padded, constant], [output], name=editor.fresh(f"{node.name}_add")))
    editor.replace(node, new)
