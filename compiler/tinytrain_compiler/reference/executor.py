"""Runs a quantised graph node by node."""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from ..ops import Int8, operator_of


def run_all(graph: Graph, x: Int8) -> dict[str, Int8]:
    """Every tensor's value for one input. x: int8, any shape with the input's number of elements."""
    values = {graph.input: np.ascontiguousarray(x).reshape(graph.tensors[graph.input].shape)}
    for node in graph.nodes:
        y = operator_of(node).forward(node, graph.tensors, [values[name] for name in node.inputs])
        if y.shape != graph.tensors[node.output].shape or y.dtype != np.int8:
            raise AssertionError(f"{node.name}: {y.dtype} {y.shape}, expected int8 {graph.tensors[node.output].shape}")
        values[node.output] = y
    return values


def run(graph: Graph, x: Int8) -> tuple[Int8, Int8]:
    """Output and embedding for one input, as flat int8 arrays."""
    values = run_all(graph, x)
    return values[graph.output].reshape(-1), values[graph.features].reshape(-1)
