"""One builder per ONNX operator: reads the node's attributes and weights, in the device's layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ...ops.add import AddAttributes
from ...ops.avg_pool import AvgPoolAttributes
from ...ops.conv2d import Conv2dAttributes
from ...ops.fully_connected import FullyConnectedAttributes
from ...ops.lookup import LookupAttributes
from ...ops.max_pool import MaxPoolAttributes
from ...ops.reshape import ReshapeAttributes
from ...ops.softmax import SoftmaxAttributes
from ...ops.window import Window
from .qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _window(attrs: dict[str, Any], kernel: tuple[int, int], height: int, width: int) -> Window:
    """Explicit pads from `pads` or `auto_pad`."""
    stride = tuple(attrs.get("strides", (1, 1)))
    dilation = tuple(attrs.get("dilations", (1, 1)))
    pads = list(attrs.get("pads", (0, 0, 0, 0)))
    mode = attrs.get("auto_pad", b"NOTSET").decode()
    if mode.startswith("SAME"):
        for i, size in enumerate((height, width)):
            extent = (kernel[i] - 1) * dilation[i] + 1
            total = max((-(-size // stride[i]) - 1) * stride[i] + extent - size, 0)
            small, large = total // 2, total - total // 2
            pads[i], pads[i + 2] = (small, large) if mode == "SAME_UPPER" else (large, small)
    return Window(kernel, stride, dilation, (pads[0], pads[1]), (pads[2], pads[3]))


def _checked_window(window: Window, shape: tuple[int, ...], expected: tuple[int, ...]) -> Window:
    if window.output_size(*shape[:2]) != expected[:2]:
        raise UnsupportedNodeError("its output size needs ceil_mode", "export it with ceil_mode=0")
    return window


@builder("Conv")
def conv(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs = attributes(node)
    x = importer.activation(node.input[0])
    weights = importer.integer_weights(node.input[1], axis=0)
    w = weights.values.transpose(0, 2, 3, 1).astype(np.int8)  # OIHW -> OHWI
    out = importer.shape_of(node.output[0])
    window = _checked_window(_window(attrs, (w.shape[1], w.shape[2]), *x.shape[:2]), x.shape, out)
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
    x = importer.activation(node.input[0])
    weights = importer.integer_weights(node.input[1], axis=0 if transposed else 1)
    w = (weights.values if transposed else weights.values.T).astype(np.int8)
    if x.name in importer.flattened:  # columns from NCHW to the memory's NHWC order
        h, width, c = importer.flattened[x.name]
        w = w.reshape(len(w), c, h, width).transpose(0, 2, 3, 1).reshape(len(w), -1)
    bias = importer.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    real = np.zeros(len(w)) if bias is None else np.broadcast_to(bias.real.reshape(-1), len(w))
    return Pending(
        node, "fully_connected", (x.name,), (len(w),), FullyConnectedAttributes(),
        {
            "weights": np.ascontiguousarray(w),
            "weight_scales": np.broadcast_to(weights.scale, len(w)).copy(),
            "bias_real": real.copy(),
        },
    )  # fmt: skip


@builder("Add")
def add(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    a, b = importer.activation(node.input[0]), importer.activation(node.input[1])
    if a.shape != b.shape:
        raise UnsupportedNodeError(
            f"its inputs have the shapes {a.shape} and {b.shape}", "only equal shapes can be added"
        )
    if importer.flattened.get(a.name) != importer.flattened.get(b.name):
        raise UnsupportedNodeError(
            "it adds a flattened image to a vector, whose values lie in another order on the device",
            "add before the Flatten, or let a Gemm follow the Flatten directly",
        )
    return Pending(node, "add", (a.name, b.name), a.shape, AddAttributes())


@builder("GlobalAveragePool")
def global_average_pool(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    x = importer.activation(node.input[0])
    h, w, c = x.shape
    return Pending(node, "avg_pool", (x.name,), (1, 1, c), AvgPoolAttributes(Window((h, w), (h, w))))


@builder("AveragePool", "MaxPool")
def pool(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs = attributes(node)
    x = importer.activation(node.input[0])
    kernel = tuple(attrs["kernel_shape"])
    out = importer.shape_of(node.output[0])
    window = _checked_window(_window(attrs, kernel, *x.shape[:2]), x.shape, out)
    if node.op_type == "MaxPool":
        return Pending(node, "max_pool", (x.name,), out, MaxPoolAttributes(window))
    return Pending(node, "avg_pool", (x.name,), out, AvgPoolAttributes(window, bool(attrs.get("count_include_pad", 0))))


@builder("Relu", "Clip")
def clip(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """Limits of the operator in front; a node of its own where that one is quantised already."""
    low, high = 0.0, np.inf
    if node.op_type == "Clip":
        limits = [importer.constant(n) if n else None for n in (*node.input[1:], "", "")[:2]]
        low, high = (
            default if c is None else float(c.real.reshape(()))
            for c, default in zip(limits, (-np.inf, np.inf), strict=True)
        )
    pending = importer.pending.pop(node.input[0], None)
    if pending is None:
        x = importer.activation(node.input[0])
        pending = Pending(node, "lookup", (x.name,), x.shape, LookupAttributes())
    pending.low, pending.high = (min(max(limit, low), high) for limit in (pending.low, pending.high))
    return pending


@builder("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def reshape(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """Free where NCHW and NHWC order agree on both sides, or where a Gemm's columns can be reordered."""
    x = importer.activation(node.input[0])
    shape = importer.shape_of(node.output[0])

    def same_order(s: tuple[int, ...]) -> bool:
        return len(s) == 1 or s[2] == 1 or s[0] * s[1] == 1

    if x.name in importer.flattened and len(shape) != 1:
        raise UnsupportedNodeError("it reshapes a flattened image", "let a Gemm follow the Flatten directly")
    if shape != x.shape and not (same_order(x.shape) and same_order(shape)):
        if len(shape) != 1:
            raise UnsupportedNodeError(
                f"it turns {x.shape} into {shape} (height, width, channels), which reorders memory",
                "reshape only between images with one channel or one pixel, or flatten into a Gemm",
            )
        importer.flattened[node.output[0]] = x.shape
    return Pending(node, "reshape", (x.name,), shape, ReshapeAttributes())


@builder("Softmax")
def softmax(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    x = importer.activation(node.input[0])
    axis, rank = attributes(node).get("axis", -1), len(importer.dims[node.input[0]])
    if axis % rank != 1 and not (len(x.shape) == 3 and x.shape[0] * x.shape[1] == 1):
        raise UnsupportedNodeError("it does not run over the channels", "use axis=1")
    return Pending(node, "softmax", (x.name,), x.shape, SoftmaxAttributes())
