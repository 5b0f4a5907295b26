"""The outline of a loaded ONNX model, float or QDQ: its layers with weights, by their shapes."""

from __future__ import annotations

import math

import onnx

from ...graph.outline import LayerOutline
from .float_passes.edit import attributes, static_shape

WEIGHTED = ("Conv", "Gemm", "MatMul")


def outline(proto: onnx.ModelProto) -> list[LayerOutline]:
    """Layers that the output depends on. proto: with constants folded and shapes inferred; a tensor of an unknown
    shape counts as nothing."""
    graph = proto.graph
    sizes = {t.name: math.prod(t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        shape = static_shape(info)
        sizes.setdefault(info.name, 0 if shape is None else math.prod(shape))
    needed = {graph.output[0].name}
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
    layers, seen = [], {""}
    for node in graph.node:
        if node.op_type not in WEIGHTED or node.output[0] not in needed or len(node.input) < 2:
            continue
        x, weights, y = node.input[0], node.input[1], node.output[0]
        layers.append(
            LayerOutline(
                name=node.name or y,
                input_bytes=sizes.get(x, 0),
                output_bytes=sizes.get(y, 0),
                weight_bytes=0 if weights in seen else sizes.get(weights, 0),
                in_place=attributes(node).get("group", 1) > 1,
            )
        )
        seen.add(weights)
    return layers
