"""Pools, and means and maxima over whole axes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import onnx

from ....graph import Layout, Tensor
from ....ops.avg_pool import AvgPoolAttributes
from ....ops.max_pool import MaxPoolAttributes
from ....ops.window import Window
from ..float_passes.edit import attributes
from ..float_passes.pooling import axes_of, reduced_axes
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .demands import need_image
from .windows import checked_window, need_window, node_window

RAW_MEANS = "tinytrain.raw_means"  # property of a model whose AveragePools are TensorFlow Lite's: see ops/avg_pool.py


@support_rule("GlobalAveragePool")
def _global_average_pool(c: Context) -> Findings:
    """Input (1, C, H, W) or (1, C, L)."""
    yield from need_image(c)


@support_rule("GlobalMaxPool")
def _global_max_pool(c: Context) -> Findings:
    """Input (1, C, H, W) or (1, C, L)."""
    yield from need_image(c)


@support_rule("AveragePool")
def _average_pool(c: Context) -> Findings:
    """1-D and 2-D, any kernel, strides and pads, count_include_pad, ceil_mode; not both of these; no dilations."""
    yield from need_window(c)


@support_rule("MaxPool")
def _max_pool(c: Context) -> Findings:
    """1-D and 2-D, any kernel, strides and pads, ceil_mode; no dilations, no Indices output."""
    yield from need_window(c)
    if len([o for o in c.node.output if o]) > 1:
        yield "it also returns indices", "export with return_indices=False"


@support_rule("ReduceMean")
def _reduce_mean(c: Context) -> Findings:
    """Over any axes, which are constant; keepdims 0 or 1."""
    yield from _need_constant_axes(c)


@support_rule("ReduceMax")
def _reduce_max(c: Context) -> Findings:
    """Over any axes, which are constant; keepdims 0 or 1."""
    yield from _need_constant_axes(c)


def _need_constant_axes(c: Context) -> Findings:
    if c.shape() is not None and reduced_axes(c.node, c.editor) is None:
        yield "its axes are computed by the model", "make the axes a constant"


@builder("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")
def reduction(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """One window over everything that the axes hold, wherever they lie next to each other in memory."""
    shape = importer.shape(node.input[0])
    axes = tuple(range(2, len(shape)))
    if node.op_type.startswith("Reduce"):
        found = axes_of(node, len(shape), importer.initializers)
        if found is None:
            raise UnsupportedNodeError("its axes are computed by the model", "make the axes a constant")
        axes = found
    x, layout, window = _together(importer, node.input[0], axes)
    out = layout.reshaped(importer.shape(node.output[0]))
    if node.op_type.endswith("Max") or node.op_type == "GlobalMaxPool":
        return Pending(node, "max_pool", (x.name,), out, MaxPoolAttributes(window))
    return Pending(node, "avg_pool", (x.name,), out, AvgPoolAttributes(window))


def _together(importer: QdqImporter, name: str, axes: tuple[int, ...]) -> tuple[Tensor, Layout, Window]:
    """The input with these axes next to each other in memory as (H, W, C), how what is left of it lies, and the window.

    Axes that lie outermost are H and W, as in the mean of an image; others are W alone, behind those kept.
    """
    shape = importer.shape(name)
    usual = Layout.image(shape) if len(shape) == 4 else importer.as_it_lies(name)[1]
    order = usual.axes or tuple(range(len(shape)))
    long = [axis for axis in order if shape[axis] > 1]
    inside = [i for i, axis in enumerate(long) if axis in axes]
    if inside and inside[-1] - inside[0] >= len(inside):  # something kept lies between them
        long = [axis for axis in long if axis in axes] + [axis for axis in long if axis not in axes]
        inside = list(range(len(inside)))
    first, end = (inside[0], inside[-1] + 1) if inside else (0, 0)
    sizes = [shape[axis] for axis in long]
    outer, inner = prod(sizes[:first]), prod(sizes[end:])
    whole = sizes[first:end]
    if outer == 1:
        height, width = (whole[0], prod(whole[1:])) if whole else (1, 1)
        device, window = (height, width, inner), Window((height, width), (height, width))
        result: tuple[int, ...] = (1, 1, inner)
    else:
        width = prod(whole)
        device, window = (outer, width, inner), Window((1, width), (1, width))
        result = (outer, 1, inner)
    ones = [axis for axis in range(len(shape)) if shape[axis] == 1]
    x = importer.arranged(name, replace(Layout.of_axes(shape, (*ones, *long)), device=device))
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return x, replace(Layout.of_axes(kept, (*ones, *long)), device=result), window


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
