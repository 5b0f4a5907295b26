"""Operators on integer tensors, between a QuantizeLinear and a DequantizeLinear, compute the same on real numbers.

They move values or choose the largest; a Clip has its limits in integers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ..float_passes.edit import GraphEditor
from .pairs import Parameters, dequantize, parameters_of, quantize, renamed

MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool", "Pad",
        "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
_CLIPS = frozenset({"Clip", "Relu"})


def spell_out_integers(editor: GraphEditor) -> list[str]:
    known: dict[str, Parameters] = {}  # integer tensor -> how it was quantised
    for node in editor.nodes():
        if node.op_type == "QuantizeLinear":
            p = parameters_of(node)
        elif node.op_type in MOVES | _CLIPS and not node.domain:
            p = _shared(node, known, editor)
            new = None if p is None else _spelled(node, known, p, editor)
            if new is None:
                continue
            editor.replace(node, new)
        else:
            continue
        if p is not None:
            known |= dict.fromkeys(node.output, p)
    return []


def _shared(node: onnx.NodeProto, known: dict[str, Parameters], editor: GraphEditor) -> Parameters | None:
    """Scale and zero point of all the integer tensors a node reads; None where there are none, or several kinds."""
    found = [known[name] for name in node.input if name in known]
    if not found or any(not found[0].same(p, editor) for p in found[1:]):
        return None
    if node.op_type == "Concat" and len(found) < len(node.input):
        return None
    return found[0]


def _spelled(
    node: onnx.NodeProto, known: dict[str, Parameters], p: Parameters, editor: GraphEditor
) -> list[onnx.NodeProto] | None:
    front = {name: dequantize(editor, name, p) for name in dict.fromkeys(node.input) if name in known}
    inputs = [front[name].output[0] if name in front else name for name in node.input]
    outputs = [editor.fresh(f"{name}_real") if name else "" for name in node.output]
    if node.op_type in _CLIPS:
        limits = [0, None] if node.op_type == "Relu" else [_limit(node, i, editor) for i in (1, 2)]
        names = [_real(value, p, editor, node.output[0]) for value in limits]
        if None in names or any(_computed(node, i, editor) for i in (1, 2)):
            return None
        body = helper.make_node("Clip", [inputs[0], *map(str, names)], outputs, name=node.name)
    else:
        if node.op_type == "Pad" and len(inputs) > 2 and inputs[2]:
            value = _real(_limit(node, 2, editor), p, editor, node.output[0])
            if not value:
                return None
            inputs[2] = value
        body = renamed(node, node.op_type, inputs, outputs)
    back = [quantize(editor, real, p, name) for real, name in zip(outputs, node.output, strict=True) if name]
    return [*front.values(), body, *back]


def _computed(node: onnx.NodeProto, i: int, editor: GraphEditor) -> bool:
    return len(node.input) > i and bool(node.input[i]) and node.input[i] not in editor.constants


def _limit(node: onnx.NodeProto, i: int, editor: GraphEditor) -> int | None:
    values = editor.constants.get(node.input[i]) if len(node.input) > i else None
    return None if values is None else int(values.ravel()[0])


def _real(value: int | None, p: Parameters, editor: GraphEditor, base: str) -> str | None:
    """A constant for an integer in these units: "" for no limit, None where the units are not known."""
    if value is None:
        return ""
    known = p.values(editor)
    if known is None or known[0].size != 1:
        return None
    real = (value - int(known[1].ravel()[0])) * np.float32(known[0].ravel()[0])
    return editor.add_constant(f"{base}_limit", np.array(real, np.float32))
