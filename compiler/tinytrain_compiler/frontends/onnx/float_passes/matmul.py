"""MatMul (with the Add behind it) and Gemm in one form: Gemm, transB=1, alpha=beta=1, bias (N,) or none."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import helper

from .edit import Array, GraphEditor, attributes


def matmul_to_gemm(editor: GraphEditor) -> None:
    """Those with constant weights; of more than two dimensions as a matrix of rows, by Reshapes around it."""
    for node in editor.nodes("MatMul"):
        weight = editor.constants.get(node.input[1])
        if weight is None:
            continue
        result, last = node.output[0], node
        inputs = [node.input[0], editor.add_constant(f"{node.input[1]}_t", weight.T)]
        after = editor.only_consumer(result)
        if after is not None and after.op_type == "Add":
            other = next(name for name in after.input if name != result) if after.input[0] != after.input[1] else result
            bias = as_bias(editor.constants.get(other), weight.shape[1])
            if bias is not None and editor.shapes[after.output[0]] == editor.shapes[result]:
                inputs.append(editor.add_constant(f"{other}_bias", bias))
                result = after.output[0]
                editor.remove([after])
                last = after
        shape = editor.shapes[last.output[0]]
        if len(shape) == 2:
            editor.replace(node, [helper.make_node("Gemm", inputs, [result], name=node.name, transB=1)])
            continue
        rows = prod(shape[:-1])
        flat, product = editor.fresh(f"{node.input[0]}_rows"), editor.fresh(f"{result}_rows")
        shapes = [
            editor.add_constant(f"{name}_shape", np.array(each, np.int64))
            for name, each in ((flat, (rows, len(weight))), (result, shape))
        ]
        editor.replace(
            node,
            [
                helper.make_node("Reshape", [inputs[0], shapes[0]], [flat], name=editor.fresh(f"{node.name}_rows")),
                helper.make_node("Gemm", [flat, *inputs[1:]], [product], name=node.name, transB=1),
                helper.make_node("Reshape", [product, shapes[1]], [result], name=editor.fresh(f"{node.name}_shape")),
            ],
        )


def scale_behind_matmul(editor: GraphEditor) -> None:
    """Constant factors of a product of two activations become one behind it, where its requantisation takes it in."""
    for node in editor.nodes("MatMul"):
        factor = 1.0
        for i in range(2):
            while (found := _scaling(editor, editor.private_producer(_unmoved(editor, node.input[i])))) is not None:
                before, by = found
                factor *= by
                editor.bypass(before)
        while (found := _scaling(editor, editor.only_consumer(node.output[0]))) is not None:
            after, by = found
            factor *= by
            editor.bypass(after)
        if factor != 1.0:
            result, plain = node.output[0], editor.fresh(f"{node.output[0]}_unscaled")
            constant = editor.add_constant(f"{result}_factor", np.array(factor, np.float32))
            product = onnx.NodeProto()
            product.CopyFrom(node)
            product.output[0] = plain
            name = editor.fresh(f"{node.name}_factor")
            editor.replace(node, [product, helper.make_node("Mul", [plain, constant], [result], name=name)])


def _unmoved(editor: GraphEditor, name: str) -> str:
    """The tensor in front of what only moves it, for nobody else."""
    while (before := editor.private_producer(name)) is not None and before.op_type in ("Transpose", "Reshape"):
        name = before.input[0]
    return name


def _scaling(editor: GraphEditor, node: onnx.NodeProto | None) -> tuple[onnx.NodeProto, float] | None:
    """A node that multiplies with one positive constant, and that; None where it is something else."""
    if node is None or node.op_type not in ("Mul", "Div"):
        return None
    which = 1 if node.input[1] in editor.constants else 0
    value = editor.constants.get(node.input[which])
    if value is None or value.size != 1 or not value.ravel()[0] > 0 or (node.op_type == "Div" and which == 0):
        return None
    # Unknown: what this pass made itself, the factor of another product, which keeps it.
    if editor.shapes.get(node.output[0]) != editor.shapes.get(node.input[1 - which]):
        return None
    if which == 0:  # what stays when the node goes is its first input
        node.input[0], node.input[1] = node.input[1], node.input[0]
    factor = float(value.ravel()[0])
    return node, factor if node.op_type == "Mul" else 1 / factor


def normalize_gemm(editor: GraphEditor) -> None:
    for node in editor.nodes("Gemm"):
        a = attributes(node)
        weight = editor.constants[node.input[1]]
        rows = weight if a.get("transB", 0) else weight.T  # (N, K)
        alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
        inputs = [node.input[0], node.input[1]]
        if not a.get("transB", 0) or alpha != 1.0:
            inputs[1] = editor.add_constant(f"{node.input[1]}_t", (rows * np.float32(alpha)).astype(np.float32))
        if len(node.input) > 2 and node.input[2] and beta != 0.0:
            given = editor.constants[node.input[2]]
            bias = as_bias(given * np.float32(beta), rows.shape[0])
            assert bias is not None, "the support check accepts biases of one number per output only"
            same = given.shape == bias.shape and beta == 1.0
            inputs.append(node.input[2] if same else editor.add_constant(f"{node.input[2]}_bias", bias))
        editor.replace(node, [helper.make_node("Gemm", inputs, list(node.output), name=node.name, transB=1)])


def as_bias(value: Array | None, outputs: int) -> Array | None:
    """A constant as the bias (outputs,) of a fully connected layer; None where it isn't one."""
    if value is None or value.dtype != np.float32:
        return None
    if value.size == 1 and value.ndim <= 2:
        return np.full(outputs, value.ravel()[0], dtype=np.float32)
    if value.size == outputs and value.ndim <= 2 and value.shape[-1] == outputs:
        return value.reshape(outputs)
    return None


def gemm_parts(node: onnx.NodeProto, editor: GraphEditor) -> tuple[Array, Array | None]:
    """Weight (N, K) and bias (N,) of a Gemm in normal form."""
    bias = editor.constants[node.input[2]] if len(node.input) > 2 else None
    return editor.constants[node.input[1]], bias
