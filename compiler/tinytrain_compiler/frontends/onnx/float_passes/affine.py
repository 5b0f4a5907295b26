"""y = scale * x + shift per channel: BatchNormalization and Add, Sub, Mul, Div with a constant.

Folded into the Conv or Gemm in front, else into the Gemm behind, else made a layer of its own: a depthwise
1x1 Conv for images, a Gemm with a diagonal matrix for vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ....errors import Problem, UnsupportedModelError
from ..limits import MAX_ELEMENTS
from .edit import Array, GraphEditor, attributes

AFFINE = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift; float64 (C,) each, along axis 1."""

    source: str
    scale: Array
    shift: Array


def as_affine(node: onnx.NodeProto, editor: GraphEditor) -> Affine | None:
    """A node as an affine map of its one activation; None where it is something else."""
    if node.op_type == "BatchNormalization":
        if any(name not in editor.constants for name in node.input[1:5]):
            return None
        gamma, beta, mean, variance = (editor.constants[name].astype(np.float64) for name in node.input[1:5])
        with np.errstate(all="ignore"):  # canonicalize refuses weights that are no numbers
            scale = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
            return Affine(node.input[0], scale, beta - mean * scale)
    if node.op_type not in AFFINE or len(node.input) != 2:
        return None
    left, right = node.input
    if (left in editor.constants) == (right in editor.constants):
        return None
    source, other = (right, left) if left in editor.constants else (left, right)
    if editor.shapes.get(source) is None or editor.shapes.get(node.output[0]) != editor.shapes[source]:
        return None  # the constant would make the tensor larger
    value = per_channel(editor.constants[other], editor.shapes[source])
    if value is None:
        return None
    one, zero = np.ones_like(value), np.zeros_like(value)
    first = source == left
    if node.op_type == "Add":
        return Affine(source, one, value)
    if node.op_type == "Sub":
        return Affine(source, one, -value) if first else Affine(source, -one, value)
    if node.op_type == "Mul":
        return Affine(source, value, zero)
    if first and np.all(value != 0):
        return Affine(source, 1.0 / value, zero)
    return None


def per_channel(value: Array, shape: tuple[int, ...]) -> Array | None:
    """A constant that broadcasts against `shape` with one number per channel (axis 1), as float64 (C,); else None."""
    if len(shape) < 2 or value.ndim > len(shape) or value.dtype != np.float32:
        return None
    aligned = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    if any(n != 1 for axis, n in enumerate(aligned.shape) if axis != 1) or aligned.shape[1] not in (1, shape[1]):
        return None
    return np.broadcast_to(aligned.ravel().astype(np.float64), (shape[1],))


def fold_affine(editor: GraphEditor) -> None:
    for node in editor.nodes(*AFFINE):
        affine = as_affine(node, editor)
        if affine is None or _is_factor(node, editor, affine):
            continue
        if np.all(affine.scale == 1) and np.all(affine.shift == 0):
            editor.bypass(node)
        elif not (_fold_back(editor, node, affine) or _fold_forward(editor, node, affine)):
            _stand_alone(editor, node, affine)


def _is_factor(node: onnx.NodeProto, editor: GraphEditor, affine: Affine) -> bool:
    """Whether it is the one positive factor of a product of two activations, whose requantisation takes it in."""
    product = editor.private_producer(affine.source)
    one = bool(np.all(affine.scale == affine.scale[0]) and affine.scale[0] > 0 and not affine.shift.any())
    return one and node.op_type == "Mul" and product is not None and product.op_type == "MatMul"


def _fold_back(editor: GraphEditor, node: onnx.NodeProto, affine: Affine) -> bool:
    """Into the Conv or Gemm that computes the input, when nobody else reads that."""
    layer = editor.private_producer(affine.source)
    if layer is None or layer.op_type not in ("Conv", "Gemm"):
        return False
    weight = editor.constants[layer.input[1]].astype(np.float64)
    bias = editor.constants[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(weight))
    scale = affine.scale.reshape(-1, *(1,) * (weight.ndim - 1))
    _set_parameters(editor, layer, weight * scale, bias * affine.scale + affine.shift)
    editor.remove([node])
    editor.set_output(layer, 0, node.output[0])
    return True


def fold_into_rows(editor: GraphEditor) -> None:
    """Mul with a number for each output of a Gemm over rows, behind the Reshape that gives these their dimensions, and
    perhaps a Transpose."""
    for node in editor.nodes("Mul"):
        which = 1 if node.input[1] in editor.constants else 0
        value, shape = editor.constants.get(node.input[which]), editor.shapes[node.output[0]]
        last = before = editor.private_producer(node.input[1 - which])
        axis = len(shape) - 1
        if before is not None and before.op_type == "Transpose":
            axis = list(attributes(before).get("perm", range(len(shape))[::-1])).index(len(shape) - 1)
            before = editor.private_producer(before.input[0])
        layer = None if before is None or before.op_type != "Reshape" else editor.private_producer(before.input[0])
        if value is None or last is None or layer is None or layer.op_type != "Gemm":
            continue
        weight = editor.constants[layer.input[1]].astype(np.float64)
        aligned = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        along = tuple(size if i == axis else 1 for i, size in enumerate(shape))
        if aligned.shape != along or editor.shapes[last.output[0]] != shape or len(weight) != shape[axis]:
            continue
        bias = editor.constants[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(weight))
        scale = value.reshape(-1).astype(np.float64)
        _set_parameters(editor, layer, weight * scale[:, None], bias * scale)
        editor.remove([node])
        editor.set_output(last, 0, node.output[0])


def _fold_forward(editor: GraphEditor, node: onnx.NodeProto, affine: Affine) -> bool:
    """Into the only reader, a Gemm. Not into a Conv: its padding zeros come after the affine map."""
    layer = editor.only_consumer(node.output[0])
    if layer is None or layer.op_type != "Gemm":
        return False
    weight = editor.constants[layer.input[1]].astype(np.float64)
    bias = editor.constants[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(weight))
    _set_parameters(editor, layer, weight * affine.scale, bias + weight @ affine.shift)
    editor.remove([node])
    editor.set_input(layer, 0, affine.source)
    return True


def _stand_alone(editor: GraphEditor, node: onnx.NodeProto, affine: Affine) -> None:
    """One number for all channels is a table; arithmetic of other ranks than images and vectors keeps its constant."""
    uniform = bool((affine.scale == affine.scale[0]).all() and (affine.shift == affine.shift[0]).all())
    if node.op_type == "BatchNormalization" or (not uniform and len(editor.shapes[affine.source]) in (2, 4)):
        _own_layer(editor, node, affine)


def reciprocal_constants(editor: GraphEditor) -> None:
    """A division by a constant of several values is a product with its reciprocals."""
    for node in editor.nodes("Div"):
        value = editor.constants.get(node.input[1])
        if value is not None and (value != value.flat[0]).any():
            name = editor.add_constant(f"{node.input[1]}_reciprocal", (1 / value).astype(np.float32))
            editor.replace(node, [helper.make_node("Mul", [node.input[0], name], list(node.output), name=node.name)])


def _own_layer(editor: GraphEditor, node: onnx.NodeProto, affine: Affine) -> None:
    channels = len(affine.scale)
    pixels = len(editor.shapes[affine.source]) - 2  # axes of them
    image = pixels > 0
    if not image and channels**2 > MAX_ELEMENTS:
        reason = f"as a layer of its own, which scales {channels:,} features, it would need {channels**2:,} weights"
        raise UnsupportedModelError([Problem(node.name, node.op_type, reason, "fold it into a layer before export")])
    weight = affine.scale.reshape(-1, 1, *(1,) * pixels) if image else np.diag(affine.scale)
    parameters = [
        editor.add_constant(f"{node.output[0]}_weight", weight.astype(np.float32)),
        editor.add_constant(f"{node.output[0]}_bias", affine.shift.astype(np.float32)),
    ]
    extra = {"group": channels, "kernel_shape": [1] * pixels} if image else {"transB": 1}
    op = "Conv" if image else "Gemm"
    inputs = [affine.source, *parameters]
    editor.replace(node, [helper.make_node(op, inputs, [node.output[0]], name=node.name, **extra)])


def _set_parameters(editor: GraphEditor, layer: onnx.NodeProto, weight: Array, bias: Array) -> None:
    """New constants for one layer: others may share its old ones."""
    weight_base = f"{layer.input[1].removesuffix('_folded')}_folded"
    old = list(layer.input[1:])
    editor.set_inputs(layer, [layer.input[0]])
    for name in old:  # or a chain of affine nodes would leave one copy of the weights for each
        editor.drop_constant(name)
    weight_name = editor.add_constant(weight_base, weight.astype(np.float32))
    bias_name = editor.add_constant(f"{layer.name or layer.output[0]}_bias", bias.astype(np.float32))
    editor.set_inputs(layer, [layer.input[0], weight_name, bias_name])
