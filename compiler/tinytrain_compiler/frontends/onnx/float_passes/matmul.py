"""MatMul (with the Add behind it) and Gemm in one form: Gemm, transB=1, alpha=beta=1, bias (N,) or none."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .edit import Array, GraphEditor, attributes


def matmul_to_gemm(editor: GraphEditor) -> None:
    for node in editor.nodes("MatMul"):
        weight = editor.constants[node.input[1]]
        result = node.output[0]
        inputs = [node.input[0], editor.add_constant(f"{node.input[1]}_t", weight.T)]
        after = editor.only_consumer(result)
        if after is not None and after.op_type == "Add":
            other = next(name for name in after.input if name != result) if after.input[0] != after.input[1] else result
            bias = as_bias(editor.constants.get(other), weight.shape[1])
            if bias is not None and editor.shapes[after.output[0]] == editor.shapes[result]:
                inputs.append(editor.add_constant(f"{other}_bias", bias))
                result = after.output[0]
                editor.remove([after])
        editor.replace(node, [helper.make_node("Gemm", inputs, [result], name=node.name, transB=1)])


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
