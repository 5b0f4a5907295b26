"""The integer backward pass through a quantised graph, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..graph import Graph, Node
from ..graph.gradient import Gradient, add_gradients
from ..ops import Int8, backward_of, weights_of
from ..ops.backward import masked, parameter_shift, prepare
from ..ops.clipping import clip_mask
from ..ops.weight_rule import ParameterGradient
from ..training.scheme import Scheme, backward_nodes


@dataclass(frozen=True)
class LayerGradient:
    """One trained layer's gradients for one sample; weights (outputs of a group, KH, KW, selected) or None."""

    weights: ParameterGradient | None
    bias: ParameterGradient


Learn = Callable[[Node, LayerGradient], Node]


def backward(
    graph: Graph,
    scheme: Scheme,
    values: Mapping[str, Int8],
    features: Gradient,
    learn: Learn | None = None,
    observe: Callable[[Node, Gradient], None] | None = None,
) -> dict[str, LayerGradient]:
    """Gradients of all trained layers for one sample.

    values: every tensor of the forward pass (reference.run_all). features: dLoss/d(embedding).
    learn: called with each layer's gradients as soon as they are complete; returns the layer as updated,
    and gradients pass on through that one. Nothing needs to be kept until the end of the pass.
    observe: called with each candidate (Scheme.candidates) and what it passes to its first input.
    """
    gradients = {graph.features: features}
    found: dict[str, LayerGradient] = {}
    nodes = backward_nodes(graph, scheme)
    wanted = {node.output for node in nodes}
    candidates = set(scheme.candidates)
    for node in nodes:
        gradient = masked(gradients.pop(node.output), clip_mask(node, graph.tensors, values[node.output]))
        if node.name in scheme.layers:
            found[node.name] = _layer(graph, scheme, node, values, gradient)
            if learn is not None:
                node = learn(node, found[node.name])
        observed = observe is not None and node.name in candidates
        if not observed and not any(name in wanted for name in node.inputs):
            continue  # nobody in front of it learns
        inputs = [values[name] for name in node.inputs]
        passed = backward_of(node).int16(node, graph.tensors, inputs, gradient)
        if observe is not None and observed:
            observe(node, passed[0])
        for name, part in zip(node.inputs, passed, strict=True):
            if name in wanted:
                gradients[name] = add_gradients(gradients[name], part) if name in gradients else part
    return found


def _layer(graph: Graph, scheme: Scheme, node: Node, values: Mapping[str, Int8], gradient: Gradient) -> LayerGradient:
    channels = np.array(scheme.layers[node.name].channels, np.intp)
    weights = None
    if len(channels):
        weights = weights_of(node).int16(node, graph.tensors, values[node.inputs[0]], gradient, channels)
    return LayerGradient(weights, bias_gradient(gradient))


def bias_gradient(gradient: Gradient) -> ParameterGradient:
    """Sums over all pixels. Mantissas lose bits first where more than 65,538 of them could leave int32."""
    pixels = gradient.mantissa.size // gradient.mantissa.shape[-1]
    shift = parameter_shift(gradient, pixels, 1)
    sums = prepare(gradient, shift).reshape(pixels, -1).sum(0)
    return ParameterGradient(sums, gradient.exponent + shift, 1.0, (gradient.magnitude * pixels) >> shift)
