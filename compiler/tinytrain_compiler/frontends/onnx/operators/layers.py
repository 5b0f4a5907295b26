"""Layers with weights: Conv, Gemm, MatMul; BatchNormalization, which is folded into them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx

from ....graph import Layout
from ....ops.conv2d import Conv2dAttributes
from ....ops.fully_connected import FullyConnectedAttributes
from ....ops.window import Window
from ..float_passes.affine import as_affine
from ..float_passes.edit import attributes
from ..float_passes.matmul import as_bias
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .attention import matmul_of_activations
from .demands import need_auto_pad, need_constant, need_image
from .windows import checked_window, node_window


@support_rule("Conv")
def _conv(c: Context) -> Findings:
    """1-D and 2-D, any kernel, strides, pads, auto_pad, dilations, groups (depthwise too); constant weights, bias."""
    yield from need_image(c)
    yield from need_auto_pad(c)
    yield from need_constant(c, 1, "weight")
    yield from need_constant(c, 2, "bias")


@support_rule("ConvTranspose")
def _conv_transpose(c: Context) -> Findings:
    """1-D and 2-D, strides up to the kernel's size, any pads, output_padding and groups; constant weights, bias."""
    yield from need_image(c)
    yield from need_constant(c, 1, "weight")
    yield from need_constant(c, 2, "bias")
    if c.quantized:
        yield "it is quantised", "pass the float model"
    if any(d != 1 for d in c.attributes.get("dilations", ())):
        yield "its kernel is dilated", "use dilations 1"
    if c.attributes.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in c.attributes:
        yield "its pads follow from auto_pad or output_shape", "export it with numbers in pads"
    elif any(pad < 0 for pad in c.attributes.get("pads", ())):
        yield "its pads are negative", "use pads of 0 and a Pad behind it"
    weight, strides = c.shape(1), c.attributes.get("strides", ())
    if weight is not None and any(s > k for s, k in zip(strides, weight[2:], strict=False)):
        yield (
            f"its strides {tuple(strides)} are larger than its kernel {weight[2:]}",
            "use a kernel as large as the strides",
        )


@support_rule("Gemm")
def _gemm(c: Context) -> Findings:
    """Input (rows, F), transA=0, any alpha, beta and transB; constant B, and C one number per output or absent."""
    if (rows := c.shape()) is not None and len(rows) != 2:
        yield f"its input has shape {rows}", "give it an input of shape (rows, F)"
    if c.attributes.get("transA", 0):
        yield "transA=1", "export a Linear layer, which has transA=0"
    yield from need_constant(c, 1, "B")
    yield from need_constant(c, 2, "C")
    shape, bias = c.output_shape(), c.constant(2)
    if shape is not None and bias is not None and as_bias(bias, shape[-1]) is None:
        yield f"its C has shape {bias.shape}", ""


@support_rule("MatMul")
def _matmul(c: Context) -> Findings:
    """Rows times a constant matrix, with the Add of a constant behind it; or two computed tensors, with a factor."""
    if not c.is_constant(1) and c.is_constant(0):
        yield "its left side is the constant", "transpose both sides, or use a Linear layer"
    elif not c.is_constant(1):
        if any(shape is not None and len(shape) < 2 for shape in (c.shape(0), c.shape(1))):
            yield f"one of its inputs is a vector (shapes {c.shape(0)} and {c.shape(1)})", "give both two dimensions"
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
    kernel = weights.values.shape[2:]
    images = weights.values.reshape(*weights.values.shape[:2], -1, kernel[-1])
    w = images.transpose(0, 2, 3, 1).astype(np.int8)  # OIHW -> OHWI
    out = Layout.image(importer.shape(node.output[0]))
    window = checked_window(node_window(attrs, kernel, *x.shape[:2]), x.shape, out.device)
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
    if node.input[1] not in importer.constants and node.input[1] not in importer.initializers:
        return matmul_of_activations(importer, node)
    return _fully_connected(importer, node, transposed=False)


def _fully_connected(importer: QdqImporter, node: onnx.NodeProto, transposed: bool) -> Pending:
    if prod(importer.shape(node.input[0])[:-1]) > 1:
        return _pointwise(importer, node, transposed)
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


def _pointwise(importer: QdqImporter, node: onnx.NodeProto, transposed: bool) -> Pending:
    """A matrix of several rows: a 1x1 convolution whose pixels they are."""

    def pixels(name: str) -> Layout:
        shape = importer.shape(name)
        return replace(Layout.row_major(shape), device=(1, prod(shape[:-1]), shape[-1]))

    x = importer.arranged(node.input[0], pixels(node.input[0]))
    weights = importer.integer_weights(node.input[1], axis=0 if transposed else 1)
    w = (weights.values if transposed else weights.values.T).astype(np.int8)[:, None, None, :]
    bias = importer.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    real = np.zeros(len(w)) if bias is None else np.broadcast_to(bias.real.reshape(-1), len(w))
    return Pending(
        node, "conv2d", (x.name,), pixels(node.output[0]), Conv2dAttributes(Window((1, 1))),
        {
            "weights": np.ascontiguousarray(w),
            "weight_scales": np.broadcast_to(weights.scale, len(w)).copy(),
            "bias_real": real.copy(),
        },
    )  # fmt: skip
