"""Pools and means over pixels."""

from __future__ import annotations

import onnx

from ....graph import Layout
from ....ops.avg_pool import AvgPoolAttributes
from ....ops.max_pool import MaxPoolAttributes
from ....ops.window import Window
from ..float_passes.edit import attributes
from ..float_passes.pooling import reduced_axes
from ..qdq_importer import Pending, QdqImporter, builder
from ..rule import Context, Findings, support_rule
from .demands import need_rank
from .windows import checked_window, need_window, node_window

RAW_MEANS = "tinytrain.raw_means"  # property of a model whose AveragePools are TensorFlow Lite's: see ops/avg_pool.py


@support_rule("GlobalAveragePool")
def _global_average_pool(c: Context) -> Findings:
    """Input (1, C, H, W)."""
    yield from need_rank(c, 4)


@support_rule("AveragePool")
def _average_pool(c: Context) -> Findings:
    """2-D, any kernel, strides and pads, count_include_pad 0 and 1; no dilations, ceil_mode without effect only."""
    yield from need_window(c)


@support_rule("MaxPool")
def _max_pool(c: Context) -> Findings:
    """2-D, any kernel, strides and pads; no dilations, no Indices output, ceil_mode without effect only."""
    yield from need_window(c)
    if len([o for o in c.node.output if o]) > 1:
        yield "it also returns indices", "export with return_indices=False"


@support_rule("ReduceMean")
def _reduce_mean(c: Context) -> Findings:
    """Over height and width of (1, C, H, W), axes constant, keepdims 0 or 1; becomes GlobalAveragePool."""
    shape = c.shape()
    if shape is None:
        return
    axes = reduced_axes(c.node, c.editor)
    if axes is None:
        yield "its axes are computed by the model", "make the axes a constant"
    elif len(shape) != 4 or axes != (2, 3):
        yield f"it averages over axes {axes} of {shape}", "average over height and width, axes 2 and 3"


@builder("GlobalAveragePool")
def global_average_pool(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    x = importer.image(node.input[0])
    h, w, _ = x.shape
    out = Layout.image(importer.shape(node.output[0]))
    return Pending(node, "avg_pool", (x.name,), out, AvgPoolAttributes(Window((h, w), (h, w))))


@builder("AveragePool", "MaxPool")
def pool(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs = attributes(node)
    x = importer.image(node.input[0])
    kernel = tuple(attrs["kernel_shape"])
    out = Layout.image(importer.shape(node.output[0]))
    window = checked_window(node_window(attrs, kernel, *x.shape[:2]), x.shape, out.device)
    if node.op_type == "MaxPool":
        return Pending(node, "max_pool", (x.name,), out, MaxPoolAttributes(window))
    pooling = AvgPoolAttributes(
        window, bool(attrs.get("count_include_pad", 0)), raw_mean=importer.properties.get(RAW_MEANS) == "1"
    )
    return Pending(node, "avg_pool", (x.name,), out, pooling)
