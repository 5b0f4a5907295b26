"""The same backward pass on real numbers: in float64 the yardstick of the others, in float32 `--gradients float32`.

Forward values are the integer network's, so all see the same clipped elements. This file has the walk through the
graph and the float64 rules; the float32 rules, whose sums have one order, are in float32.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..ops import Int8, operator_of
from ..ops.backward import clip_mask
from ..ops.learning import PIXEL
from ..ops.window import Window
from ..training.scheme import Scheme, backward_nodes

Floats = NDArray[Any]  # float64 or float32, as the rules make them
LayerGradient = tuple[Floats | None, Floats]  # (dLoss/dW (outputs of a group, KH, KW, selected) or None, dLoss/db)


@dataclass(frozen=True)
class Rules:
    """How a backward pass computes; every function gets (graph, node, ...)."""

    inputs: Mapping[str, Callable[..., tuple[Floats, ...]]]  # operator -> (values, g) -> one gradient per input
    weights: Callable[[Graph, Node, Int8, Floats, list[int]], Floats]  # (x, g, channels)
    bias: Callable[[Floats], Floats]  # g -> (O,)


def float_backward(
    graph: Graph,
    scheme: Scheme,
    values: Mapping[str, Int8],
    features: Floats,
    learn: Callable[[Node, LayerGradient], Node] | None = None,
    observe: Callable[[Node, Floats], None] | None = None,
    rules: Rules | None = None,
) -> dict[str, LayerGradient]:
    """Node name -> gradients of its parameters, with respect to real values.

    learn, observe: as in backward.py. rules: float64 unless told otherwise.
    """
    rules = FLOAT64 if rules is None else rules
    gradients = {graph.features: features}
    found: dict[str, LayerGradient] = {}
    nodes = backward_nodes(graph, scheme)
    wanted = {node.output for node in nodes}
    candidates = set(scheme.candidates)
    for node in nodes:
        g = gradients.pop(node.output) * clip_mask(node, graph.tensors, values[node.output])
        if node.name in scheme.layers:
            channels = list(scheme.layers[node.name].channels)
            weights = rules.weights(graph, node, values[node.inputs[0]], g, channels) if channels else None
            found[node.name] = weights, rules.bias(g)
            if learn is not None:
                node = learn(node, found[node.name])
        observed = observe is not None and node.name in candidates
        if not observed and not any(name in wanted for name in node.inputs):
            continue  # nobody in front of it learns
        passed = rules.inputs[node.op](graph, node, values, g)
        if observe is not None and observed:
            observe(node, passed[0])
        for name, part in zip(node.inputs, passed, strict=True):
            if name in wanted:
                gradients[name] = gradients[name] + part if name in gradients else part
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

FLOAT64 = Rules(_RULES, _weight_gradient, lambda g: g.reshape(-1, g.shape[-1]).sum(0))
