"""The same backward pass in float: the yardstick of the integer one, and `--gradients float32` in spirit.

Forward values are the integer network's, so both see the same clipped elements; every gradient is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..ops import Int8, operator_of
from ..ops.backward import clip_mask
from ..ops.learning import PIXEL
from ..ops.window import Window
from .scheme import Scheme, backward_nodes

Floats = NDArray[np.float64]


def float_backward(
    graph: Graph, scheme: Scheme, values: Mapping[str, Int8], features: Floats
) -> dict[str, tuple[Floats | None, Floats]]:
    """Node name -> (dLoss/dW (outputs of a group, KH, KW, selected) or None, dLoss/db), with respect to real values."""
    gradients = {graph.features: features}
    found: dict[str, tuple[Floats | None, Floats]] = {}
    nodes = backward_nodes(graph, scheme)
    wanted = {node.output for node in nodes}
    for node in nodes:
        g = gradients.pop(node.output) * clip_mask(node, graph.tensors, values[node.output])
        if node.name in scheme.layers:
            channels = list(scheme.layers[node.name].channels)
            weights = _weight_gradient(graph, node, values[node.inputs[0]], g, channels) if channels else None
            found[node.name] = weights, g.reshape(-1, g.shape[-1]).sum(0)
        if any(name in wanted for name in node.inputs):
            for name, part in zip(node.inputs, _RULES[node.op](graph, node, values, g), strict=True):
                if name in wanted:
                    gradients[name] = gradients.get(name, 0.0) + part
    return found


def _real_weights(node: Node) -> Floats:
    w: Floats = node.constants["weights"].astype(np.float64)
    scales: Floats = node.constants["weight_scales"].reshape(-1, *[1] * (w.ndim - 1))
    return w * scales


def _weight_gradient(graph: Graph, node: Node, x: Int8, g: Floats, channels: list[int]) -> Floats:
    q, layout = graph.tensors[node.inputs[0]].quantization, operator_of(node).weight_layout(node)
    real = (x.astype(np.float64) - q.zero_point) * q.scale
    if node.op == "fully_connected":
        real = real.reshape(1, 1, -1)
    window: Window = getattr(node.attributes, "window", PIXEL)
    patches = window.patches(real, 0)
    g = g.reshape(*patches.shape[:2], layout.groups, layout.outputs)
    parts = []
    for c in channels:
        own = g[:, :, c // layout.inputs]
        parts.append(np.einsum("yxhw,yxo->ohw", patches[..., c], own, optimize=True))
    return np.stack(parts, -1)


def _conv2d(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    h, width, _ = graph.tensors[node.inputs[0]].shape
    w = _real_weights(node)
    per_group = len(w) // node.attributes.groups
    parts = []
    for start in range(0, len(w), per_group):
        group = slice(start, start + per_group)
        parts.append(np.einsum("yxo,ohwi->yxhwi", g[..., group], w[group], optimize=True))
    return (node.attributes.window.scatter(np.concatenate(parts, -1), h, width),)


def _depthwise(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    h, width, _ = graph.tensors[node.inputs[0]].shape
    w = _real_weights(node)[..., 0].transpose(1, 2, 0)
    return (node.attributes.window.scatter(g[:, :, None, None, :] * w, h, width),)


def _fully_connected(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    return ((g @ _real_weights(node)).reshape(graph.tensors[node.inputs[0]].shape),)


def _avg_pool(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    h, width, _ = graph.tensors[node.inputs[0]].shape
    a = node.attributes
    counts = a.window.taps if a.count_include_pad else a.window.valid_counts(h, width)[..., None]
    share = g.reshape(*a.window.output_size(h, width), -1) / counts
    taps = np.broadcast_to(share[:, :, None, None, :], (*share.shape[:2], *a.window.kernel, share.shape[2]))
    return (a.window.scatter(taps, h, width),)


def _max_pool(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    h, width, _ = graph.tensors[node.inputs[0]].shape
    patches = node.attributes.window.patches(values[node.inputs[0]].astype(np.int16), -129)
    oh, ow, kh, kw, c = patches.shape
    wins = np.arange(kh * kw)[:, None] == patches.reshape(oh, ow, kh * kw, c).argmax(2)[:, :, None, :]
    return (node.attributes.window.scatter((wins * g[:, :, None, :]).reshape(patches.shape), h, width),)


def _same(graph: Graph, node: Node, values: Mapping[str, Int8], g: Floats) -> tuple[Floats, ...]:
    return tuple(g.reshape(graph.tensors[name].shape) for name in node.inputs)


_RULES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise,
    "fully_connected": _fully_connected,
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "add": _same,
    "reshape": _same,
    "lookup": _same,
}
