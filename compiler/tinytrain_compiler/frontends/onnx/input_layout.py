"""In which order the device takes the model's input: the one that the first operator wants, so that nothing is copied.

Images are taken with their channels innermost, whether the file has (1, C, H, W) or (1, H, W, C) and a Transpose.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from ...graph import Layout
from .float_passes.edit import GraphEditor, attributes
from .float_passes.reshapes import RESHAPES

Shapes = Mapping[str, tuple[int, ...]]

_IMAGE_OPERATORS = frozenset(
    {
        "Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
        "InstanceNormalization", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip
_VECTOR_OPERATORS = frozenset({"Gemm"})  # their weights follow any order


def input_layout(proto: onnx.ModelProto) -> Layout:
    """How a sample of the model's input lies on the device. proto: float or quantised, with one input that counts."""
    editor = GraphEditor(onnx.ModelProto.FromString(proto.SerializeToString()))
    (name,) = [i.name for i in proto.graph.input if i.name not in editor.constants]
    shape = editor.shapes[name]
    found = _first_wish(editor, name, shape)
    if found is not None:
        return found
    return Layout.image(shape) if len(shape) == 4 else Layout.row_major(shape)


def _first_wish(editor: GraphEditor, name: str, shape: tuple[int, ...]) -> Layout | None:
    """What the first operator that wants an order makes of the input; None where nobody wants one."""
    views = {name: Layout.row_major(shape)}  # tensors that show the input, as if it lay in the file's order
    for node in editor.nodes():
        view = next((views[n] for n in node.input if n in views), None)
        if view is None:
            continue
        if node.op_type in _VECTOR_OPERATORS:
            return None
        result = editor.shapes.get(node.output[0])
        if node.op_type == "Transpose":
            perm = attributes(node).get("perm", range(len(view.shape))[::-1])
            turned = view.transposed(perm)
        elif result is not None and (node.op_type in RESHAPES or result == view.shape):
            turned = view.reshaped(result)
        else:
            turned = None
        if node.op_type not in _IMAGE_OPERATORS and turned is not None and _moves_nothing(node, editor.constants):
            views[node.output[0]] = turned
            continue
        is_image = node.op_type in _IMAGE_OPERATORS and len(view.shape) in (3, 4) and view.shape[0] == 1
        return _seen_from_the_input(view, Layout.image(view.shape), shape) if is_image else Layout.row_major(shape)
    return None


def _moves_nothing(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether each output comes from the one input at its place: nodes of one input that is not constant."""
    return node.op_type not in ("Softmax", "LogSoftmax", "LayerNormalization", "MatMul", "CumSum") and (
        sum(name not in constants for name in node.input if name) == 1
    )


def _seen_from_the_input(view: Layout, wanted: Layout, shape: tuple[int, ...]) -> Layout:
    move = view.move_to(wanted)
    if move is None or (len(move[0]) < 2 and len(wanted.device) != 3):
        return Layout.row_major(shape)
    return Layout(shape, wanted.device, *move)
