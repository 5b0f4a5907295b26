"""Nodes that exporters write and that change nothing: whole slices, gathers in order, permutations that stand still."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from .edit import GraphEditor, attributes

Test = Callable[[onnx.NodeProto, GraphEditor], bool]


def remove_identities(editor: GraphEditor) -> None:
    """Models that are quantised already are cleaned too: behind the scales such nodes would be refused."""
    for node in editor.nodes(*_TESTS):
        source, result = editor.shapes.get(node.input[0]), editor.shapes.get(node.output[0])
        if source is not None and source == result and _TESTS[node.op_type](node, editor):
            editor.bypass(node)


def _gathers_in_order(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Indices 0, 1, 2 ... along the axis, as PyTorch writes them for an input that was permuted."""
    indices, shape = editor.constants.get(node.input[1]), editor.shapes[node.input[0]]
    if indices is None or indices.ndim != 1:
        return False
    size = shape[attributes(node).get("axis", 0)]
    return bool(np.array_equal(np.where(indices < 0, indices + size, indices), np.arange(size)))


def _slices_all(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """As long as before means all of it, unless it runs backwards."""
    steps = editor.constants.get(node.input[4]) if len(node.input) > 4 and node.input[4] else np.ones(1)
    return steps is not None and bool(np.all(steps > 0))


def _stands_still(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    rank = len(editor.shapes[node.input[0]])
    return list(attributes(node).get("perm", range(rank)[::-1])) == list(range(rank))


def _same_shape(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    return True


def _pads_nothing(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    pads = editor.constants.get(node.input[1]) if len(node.input) > 1 else None
    return pads is not None and not pads.any()


def _one_input(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    return len(node.input) == 1


_TESTS: dict[str, Test] = {
    "Gather": _gathers_in_order,
    "Slice": _slices_all,
    "Transpose": _stands_still,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Pad": _pads_nothing,
    "Concat": _one_input,
    "Sum": _one_input,
}
