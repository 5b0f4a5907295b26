"""A Transpose at the front, as exporters of channels-last networks write it, comes before the normalisation."""

from __future__ import annotations

import onnx
from onnx import helper

from .edit import GraphEditor, attributes

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def transposes_first(editor: GraphEditor) -> None:
    """Behind it, constants of the normalisation lie along axis 1, where they can be folded."""
    inputs = {i.name for i in editor.graph.input}
    for node in editor.nodes("Transpose"):
        chain: list[onnx.NodeProto] = []
        source = node.input[0]
        while (before := editor.private_producer(source)) is not None and _other(before, editor) is not None:
            chain.append(before)
            source = before.input[1 - (_other(before, editor) or 0)]
        if source not in inputs:
            continue
        for before in chain:
            node = _swapped(editor, before, node)


def _other(node: onnx.NodeProto, editor: GraphEditor) -> int | None:
    """Which input of an arithmetic node is the constant that does not enlarge the other; None where none is."""
    if node.op_type not in _ARITHMETIC or len(node.input) != 2:
        return None
    constant = [i for i in (0, 1) if node.input[i] in editor.constants]
    if len(constant) != 1 or editor.shapes[node.input[1 - constant[0]]] != editor.shapes[node.output[0]]:
        return None
    return constant[0]


def _swapped(editor: GraphEditor, before: onnx.NodeProto, node: onnx.NodeProto) -> onnx.NodeProto:
    """Transpose(before(x, constant)) as before(Transpose(x), Transpose(constant)); returns the new Transpose."""
    at = _other(before, editor)
    assert at is not None
    x, constant = before.input[1 - at], editor.constants[before.input[at]]
    rank = len(editor.shapes[x])
    perm = list(attributes(node).get("perm", range(rank)[::-1]))
    aligned = constant.reshape((1,) * (rank - constant.ndim) + constant.shape).transpose(perm)
    turned = editor.fresh(f"{x}_transposed")
    editor.shapes[turned] = tuple(editor.shapes[x][axis] for axis in perm)
    names = [turned, turned]
    names[at] = editor.add_constant(f"{before.input[at]}_transposed", aligned)
    first = helper.make_node("Transpose", [x], [turned], name=node.name, perm=perm)
    editor.replace(before, [first])
    editor.replace(node, [helper.make_node(before.op_type, names, list(node.output), name=before.name)])
    return first
