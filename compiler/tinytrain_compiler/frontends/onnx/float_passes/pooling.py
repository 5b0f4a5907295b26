"""ReduceMean over all pixels is GlobalAveragePool, and a Reshape where it drops the axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from .edit import Array, GraphEditor, attributes


def reduced_axes(node: onnx.NodeProto, editor: GraphEditor) -> tuple[int, ...] | None:
    """The axes a reduction works on, counted from the front and sorted; None where they can't be known."""
    shape = editor.shapes.get(node.input[0])
    return None if shape is None else axes_of(node, len(shape), editor.constants)


def axes_of(node: onnx.NodeProto, rank: int, constants: Mapping[str, Array]) -> tuple[int, ...] | None:
    """The same for an input of so many axes; they stand in an attribute or, in newer operator sets, in an input."""
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            return None
        axes = [int(a) for a in constants[node.input[1]].ravel()]
    else:
        axes = list(attributes(node).get("axes", []))
    if not axes:
        return () if attributes(node).get("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted({a % rank for a in axes}))


def reduce_mean_to_pool(editor: GraphEditor) -> None:
    for node in editor.nodes("ReduceMean"):
        rank = len(editor.shapes[node.input[0]])
        if rank not in (3, 4) or reduced_axes(node, editor) != tuple(range(2, rank)):
            continue
        result = node.output[0]
        if attributes(node).get("keepdims", 1) == 1:  # any other number drops the axes: shape inference and onnxruntime
            editor.replace(node, [helper.make_node("GlobalAveragePool", [node.input[0]], [result], name=node.name)])
            continue
        pooled = editor.fresh(f"{result}_pooled")
        shape = editor.add_constant(f"{result}_shape", np.array(editor.shapes[result], dtype=np.int64))
        pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name)
        flat = helper.make_node("Reshape", [pooled, shape], [result], name=editor.fresh(f"{node.name}_flat"))
        editor.replace(node, [pool, flat])
