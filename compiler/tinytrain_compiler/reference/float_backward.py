"""The same backward pass on real numbers: in float64 the yardstick of the others, in float32 `--gradients float32`.

Forward values are the integer network's, so all see the same clipped elements. This file has the walk through the
graph; each operator's record has its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..graph import Graph, Node, Tensor
from ..ops import Int8, backward_of, weights_of
from ..ops.arrays import Floats
from ..ops.backward import Backward
from ..ops.clipping import clip_mask
from ..ops.weight_rule import WeightRule
from ..training.scheme import Scheme, backward_nodes

LayerGradient = tuple[Floats | None, Floats]  # (dLoss/dW (outputs of a group, KH, KW, selected) or None, dLoss/db)
InputRule = Callable[[Node, Mapping[str, Tensor], Sequence[Int8], Floats], tuple[Floats, ...]]
ParameterRule = Callable[[Node, Mapping[str, Tensor], Int8, Floats, list[int]], Floats]


@dataclass(frozen=True)
class Rules:
    """One format's rules, out of those of an operator's record."""

    inputs: Callable[[Backward], InputRule]
    weights: Callable[[WeightRule], ParameterRule]
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
            weights = None
            if channels:
                weights = rules.weights(weights_of(node))(node, graph.tensors, values[node.inputs[0]], g, channels)
            found[node.name] = weights, rules.bias(g)
            if learn is not None:
                node = learn(node, found[node.name])
        observed = observe is not None and node.name in candidates
        if not observed and not any(name in wanted for name in node.inputs):
            continue  # nobody in front of it learns
        inputs = [values[name] for name in node.inputs]
        passed = rules.inputs(backward_of(node))(node, graph.tensors, inputs, g)
        if observe is not None and observed:
            observe(node, passed[0])
        for name, part in zip(node.inputs, passed, strict=True):
            if name in wanted:
                gradients[name] = gradients[name] + part if name in gradients else part
    return found


FLOAT64 = Rules(lambda rule: rule.float64, lambda rule: rule.float64, lambda g: g.reshape(-1, g.shape[-1]).sum(0))
