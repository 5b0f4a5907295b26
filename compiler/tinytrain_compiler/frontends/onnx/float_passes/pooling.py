"""ReduceMean over height and width is GlobalAveragePool, and a Reshape where it drops the axes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .edit import GraphEditor, attributes


def reduced_axes(node: onnx.NodeProto, editor: GraphEditor) -> tuple[int, ...] | None:
    """The axes a ReduceMean works on, counted from the front and sorted; None where they can't be known."""
    shape = editor.shapes.get(node.input[0])
    if shape is None:
        return None
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in editor.constants:
            return None
        axes = [int(a) for a in editor.constants[node.input[1]].ravel()]
    else:
        axes = list(attributes(node).get("axes", []))
    if not axes:
        return () if attributes(node).get("noop_with_empty_axes") else tuple(range(len(shape)))
    return tuple(sorted(a % len(shape) for a in axes))


def reduce_mean_to_pool(editor: GraphEditor) -> None:
    for node in editor.nodes("ReduceMean"):
        if reduced_axes(node, editor) != (2, 3) or len(editor.shapes[node.input[0]]) != 4:
            continue
        result = node.output[0]
        if attributes(node).get("keepdims", 1):
            editor.replace(node, [helper.make_node("GlobalAveragePool", [node.input[0]], [result], name=node.name)])
            continue
        pooled = editor.fresh(f"{result}_pooled")
        shape = editor.add_constant(f"{result}_shape", np.array(editor.shapes[result], dtype=np.int64))
        pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name)
        flat = helper.make_node("Reshape", [pooled, shape], [result], name=editor.fresh(f"{node.name}_flat"))
        editor.replace(node, [pool, flat])
