"""What the tests of backward rules share: gradients of all kinds, inputs, and fixed examples of every operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
from batch import sample
from graphs import random_inputs
from hypothesis import strategies as st
from numpy.typing import NDArray
from operator_cases import STRATEGIES
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.graph.gradient import MANTISSA_MAX, Gradient, quantize_gradient
from tinytrain_compiler.ops import Int8, backward_of

Floats = NDArray[np.float64]
INT32 = 2**31
NO_BACKWARD = ("softmax", "matmul", "layer_norm")  # the layers in front of these are frozen
FAMILIES = [family for family in STRATEGIES if family not in NO_BACKWARD]
WEIGHTED = ["conv", "pointwise", "depthwise", "fully_connected"]
KINDS = ("all bits", "all bits", "extreme", "small", "sparse", "zero")


def make_gradient(graph: Graph, node: Node, kind: str, seed: int, exponent: int) -> Gradient:
    shape = graph.tensors[node.output].shape
    rng = np.random.default_rng(seed)
    if kind == "all bits":
        return replace(quantize_gradient(rng.normal(0, 1, shape)), exponent=exponent)
    mantissa = {
        "extreme": rng.choice([-MANTISSA_MAX, MANTISSA_MAX], shape),
        "small": rng.integers(-3, 4, shape),
        "sparse": rng.integers(-MANTISSA_MAX, MANTISSA_MAX, shape) * (rng.random(shape) < 0.1),
        "zero": np.zeros(shape),
    }[kind]
    return Gradient(mantissa.astype(np.int16), exponent)


gradients = st.tuples(st.sampled_from(KINDS), st.integers(0, 2**16), st.integers(-40, 20))


def make_input(graph: Graph, seed: int) -> Int8:
    """Random bytes, or (one in three) mostly the lowest ones, as behind a Relu."""
    x = random_inputs(graph, 1, seed)[0]
    return np.where(np.random.default_rng(seed).random(x.shape) < 0.9, -128, x).astype(np.int8) if seed % 3 == 0 else x


def integer_gradients(graph: Graph, node: Node, values: Mapping[str, Int8], gradient: Gradient) -> list[Gradient]:
    """Operators that do not ask for their inputs get none."""
    rule = backward_of(node)
    inputs = [values[name] for name in node.inputs] if rule.needs_inputs else []
    found = rule.int16(node, graph.tensors, inputs, gradient)
    assert [g.mantissa.dtype for g in found] == [np.int16] * len(node.inputs)
    assert [g.mantissa.shape for g in found] == [graph.tensors[name].shape for name in node.inputs]
    assert max(g.magnitude for g in found) <= MANTISSA_MAX
    return list(found)


def positions(node: Node, channels: list[int]) -> NDArray[np.int64]:
    """(outputs of a group, KH, KW, selected): flat indices of the weights that the selected channels meet."""
    shape = node.constants["weights"].shape
    outputs, kh, kw, per_in = shape if len(shape) == 4 else (shape[0], 1, 1, shape[1])
    groups = outputs if node.op == "depthwise_conv2d" else getattr(node.attributes, "groups", 1)
    per_out = outputs // groups
    found = np.empty((per_out, kh, kw, len(channels)), np.int64)
    for o, ky, kx, j in np.ndindex(found.shape):
        row = channels[j] // per_in * per_out + o
        found[o, ky, kx, j] = ((row * kh + ky) * kw + kx) * per_in + channels[j] % per_in
    return found


@cache
def examples(family: str) -> list[Graph]:
    return sample(STRATEGIES[family], 60)


def cosine(a: Floats, b: Floats) -> float:
    return float(a.reshape(-1) @ b.reshape(-1) / (np.linalg.norm(a) * np.linalg.norm(b)))
