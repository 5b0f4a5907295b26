"""Layers with weights: Conv, Gemm, MatMul; BatchNormalization, which is folded into them."""

from __future__ import annotations

import numpy as np
import onnx

from ....graph import Layout
from ....ops.conv2d import Conv2dAttributes
from ....ops.fully_connected import FullyConnectedAttributes
from ..float_passes.affine import as_affine
from ..float_passes.edit import attributes
from ..float_passes.matmul import as_bias
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .demands import need_constant, need_rank
from .windows import checked_window, node_window


@support_rule("Conv")
def _conv(c: Context) -> Findings:
    """2-D, any kernel, strides, pads, auto_pad, dilations and groups (depthwise too); constant weights and bias."""
    yield from need_rank(c, 4)
    yield from need_constant(c, 1, "weight")
    yield from need_constant(c, 2, "bias")


@support_rule("Gemm")
def _gemm(c: Context) -> Findings:
    """Input (1, F), transA=0, any alpha, beta and transB; constant B, and C one number per output or absent."""
    yield from need_rank(c, 2)
    if c.attributes.get("transA", 0):
        yield "transA=1", "export a Linear layer, which has transA=0"
    yield from need_constant(c, 1, "B")
    yield from need_constant(c, 2, "C")
    shape, bias = c.output_shape(), c.constant(2)
    if shape is not None and bias is not None and as_bias(bias, shape[-1]) is None:
        yield f"its C has shape {bias.shape}", ""


@support_rule("MatMul")
def _matmul(c: Context) -> Findings:
    """Input (1, F) times a constant matrix, also with an Add of a constant behind it."""
    yield from need_rank(c, 2)
    if not c.is_constant(1):
        what = "its left side is the constant" if c.is_constant(0) else "it multiplies two computed tensors"
        yield what, "use Gemm or a Linear layer with constant weights"
    elif (shape := c.shape(1)) is not None and len(shape) != 2:
        yield f"its right side has shape {shape}", ""


@support_rule("BatchNormalization")
def _batch_normalization(c: Context) -> Findings:
    """Inference mode, constant parameters; folded into the layer in front or made a depthwise 1x1 Conv."""
    if c.attributes.get("training_mode", 0) or len([o for o in c.node.output if o]) > 1:
        yield "it is in training mode", "export with model.eval()"
    elif c.quantized:
        yield "it stands alone in a quantised model", "fold it into the Conv before quantising"
    elif c.shape() is not None and as_affine(c.node, c.editor) is None:
        yield "its parameters are computed by the model", "export with model.eval()"


@builder("Conv")
def conv(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs = attributes(node)
    x = importer.image(node.input[0])
    weights = importer.integer_weights(node.input[1], axis=0)
    w = weights.values.transpose(0, 2, 3, 1).astype(np.int8)  # OIHW -> OHWI
    out = Layout.image(importer.shape(node.output[0]))
    window = checked_window(node_window(attrs, (w.shape[1], w.shape[2]), *x.shape[:2]), x.shape, out.device)
    groups = attrs.get("group", 1)
    depthwise = groups == x.shape[2] == len(w) and groups > 1
    bias = importer.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return Pending(
        node,
        "depthwise_conv2d" if depthwise else "conv2d",
        (x.name,),
        out,
        Conv2dAttributes(window, groups),
        {
            "weights": np.ascontiguousarray(w),
            "weight_scales": np.broadcast_to(weights.scale, len(w)).copy(),
            "bias_real": np.zeros(len(w)) if bias is None else bias.real.reshape(-1),
        },
    )


@builder("Gemm")
def gemm(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs = attributes(node)
    if attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1.0 or attrs.get("beta", 1.0) != 1.0:
        raise UnsupportedNodeError("transA, alpha and beta other than 1 have no kernel", "fold them into the weights")
    return _fully_connected(importer, node, transposed=bool(attrs.get("transB", 0)))


@builder("MatMul")
def matmul(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    return _fully_connected(importer, node, transposed=False)


def _fully_connected(importer: QdqImporter, node: onnx.NodeProto, transposed: bool) -> Pending:
    x, layout = importer.flat(node.input[0])
    weights = importer.integer_weights(node.input[1], axis=0 if transposed else 1)
    w = (weights.values if transposed else weights.values.T).astype(np.int8)[:, layout.positions]
    bias = importer.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    real = np.zeros(len(w)) if bias is None else np.broadcast_to(bias.real.reshape(-1), len(w))
    return Pending(
        node, "fully_connected", (x.name,), Layout.row_major(importer.shape(node.output[0])),
        FullyConnectedAttributes(),
        {
            "weights": np.ascontiguousarray(w),
            "weight_scales": np.broadcast_to(weights.scale, len(w)).copy(),
            "bias_real": real.copy(),
        },
    )  # fmt: skip
