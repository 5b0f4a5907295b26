"""Backward rules of single operators: against float64 rules, against finite differences of the operator on real
numbers, and against the bounds that the compiler proves.

Proved error. Let m be the largest mantissa that goes in, S the largest weight scale and l1 the largest sum of |w|
that meets in one element. One step U of the scaled mantissas is at most 2 S 2^exponent (2^pre_shift more where an
l1 beyond 2^16 makes the compiler drop bits). Scaling is off by less than U a mantissa, so the sum by l1 U; narrow
by one step of the result, 2^-14 of the bound l1 (m S 2^exponent + U). With all mantissa bits in use that is below
2^-13 + 2^-14 = 0.02 % of the largest gradient these weights can make; what cancellation leaves of that maximum
decides the relative error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from backward_cases import (
    FAMILIES,
    INT32,
    WEIGHTED,
    Floats,
    cosine,
    examples,
    gradients,
    integer_gradients,
    make_gradient,
    make_input,
    positions,
)
from graphs import GraphBuilder, describe, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from operator_cases import STRATEGIES
from real_operators import finite_differences, real_forward, real_weights
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.graph.gradient import Gradient, quantize_factors
from tinytrain_compiler.ops import Int8, backward_of, weights_of
from tinytrain_compiler.ops.backward import NoBackwardRuleError
from tinytrain_compiler.ops.window import Window
from tinytrain_compiler.reference import run_all

COORDINATES = 40  # elements that finite differences look at


def float_gradients(graph: Graph, node: Node, values: dict[str, Int8], gradient: Gradient) -> list[Floats]:
    return list(backward_of(node).float64(node, graph.tensors, [values[name] for name in node.inputs], gradient.real))


def proved_error(graph: Graph, node: Node, gradient: Gradient) -> float:
    """The largest error of any element (module docstring), in real units."""
    m, unit = float(gradient.magnitude), np.ldexp(1.0, gradient.exponent)
    if "slopes" in node.constants:
        unit *= 2.0 ** quantize_factors(node.constants["slopes"]).exponent
        return unit / 2 + m * unit / 2**16
    if node.op in ("mul", "broadcast_add"):
        return broadcast_error(graph, node, m, unit)
    if node.op in ("add", "reshape", "lookup", "transpose", "concat"):
        return 0.0
    if node.op == "take":
        most = np.prod([max(Counter(some).values(), default=1) for some in node.attributes.indices])
        return float(most * m * unit / 2**14)
    window: Window | None = getattr(node.attributes, "window", None)
    if node.op == "max_pool":
        return window.taps * m * unit / 2**14
    if node.op == "avg_pool":
        scale, l1 = 1.0, float(window.taps)
    else:
        scale, l1 = float(node.constants["weight_scales"].max()), float(most_weights(node))
    step = 2 * scale * unit * max(1.0, l1 / 2**14)
    return l1 * step + max(step, l1 * (m * scale * unit + step) / 2**14)


def broadcast_error(graph: Graph, node: Node, m: float, unit: float) -> float:
    """Half a step of the result, and half of one of the other operand's scale as a fraction of 2^15."""
    sizes = [graph.tensors[name].bytes for name in node.inputs] + [
        node.constants[key].size for key in node.constants if key == "operand"
    ]
    bound = m * graph.tensors[node.output].bytes / min(sizes) * (255 if node.op == "mul" else 1)
    step = 0.5 * max(1.0, bound / 2**14)
    if node.op != "mul":
        return unit * step if bound >= 2**15 else 0.0
    scales = [graph.tensors[name].quantization.scale for name in node.inputs]
    return 2 * max(*scales, node.attributes.operand_scale) * unit * (step + bound / 2**16)


def most_weights(node: Node) -> int:
    """Sum of |w| that meets in one input element if every tap does."""
    w = np.abs(node.constants["weights"].astype(np.int64))
    if node.op == "fully_connected":
        return int(w.sum(0).max())
    groups = len(w) if node.op == "depthwise_conv2d" else node.attributes.groups
    return int(w.reshape(groups, -1, *w.shape[1:]).sum((1, 2, 3)).max())


def numeric_gradient(
    graph: Graph, node: Node, values: dict[str, Int8], gradient: Gradient, which: int, at: NDArray[np.intp]
) -> Floats:
    """Central differences of sum(gradient * operator) in input `which`.

    Values that tie get a tilt below one step, the first the highest: a maximum then has a derivative.
    """
    reals = []
    for name in node.inputs:
        q, x = graph.tensors[name].quantization, values[name].astype(np.float64)
        tilt = np.arange(x.size).reshape(x.shape) / (2 * x.size)
        reals.append(q.scale * (x - q.zero_point - (tilt if node.op == "max_pool" else 0)))
    step = graph.tensors[node.inputs[which]].quantization.scale / (8 * reals[which].size)

    def loss(batch: Floats) -> Floats:
        inputs = [np.broadcast_to(r, (len(batch), *r.shape)) for r in reals]
        inputs[which] = batch
        y = real_forward(graph, node, inputs)
        return (y * gradient.mantissa).reshape(len(batch), -1).sum(1)

    return np.ldexp(finite_differences(loss, reals[which], at, step), gradient.exponent)


def check_input_gradients(graph: Graph, gradient: Gradient, seed: int) -> None:
    node = graph.nodes[-1]
    values = run_all(graph, make_input(graph, seed))
    integer = integer_gradients(graph, node, values, gradient)
    real = float_gradients(graph, node, values, gradient)
    tolerance = proved_error(graph, node, gradient)
    unit = max(gradient.magnitude, 1) * np.ldexp(1.0, gradient.exponent)
    size = real_weights(node).max(initial=1e-3) if "weights" in node.constants else 1.0
    for which, (got, expected) in enumerate(zip(integer, real, strict=True)):
        assert np.abs(got.real - expected).max() <= tolerance * (1 + 1e-9), describe(graph)
        at = np.random.default_rng(seed).permutation(expected.size)[:COORDINATES]
        numeric = numeric_gradient(graph, node, values, gradient, which, at)
        exact = 1e-5 * unit * max(size, float(np.abs(numeric).max() / unit))
        assert np.abs(expected.reshape(-1)[at] - numeric).max() <= exact, describe(graph)
        assert np.abs(got.real.reshape(-1)[at] - numeric).max() <= tolerance + exact, describe(graph)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_input_gradients_are_those_of_the_real_operator(family: str, data: st.DataObject) -> None:
    graph = data.draw(STRATEGIES[family])
    kind, seed, exponent = data.draw(gradients)
    check_input_gradients(graph, make_gradient(graph, graph.nodes[-1], kind, seed, exponent), seed)


# -- how close in practice -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_input_gradients_are_within_one_percent(family: str) -> None:
    """With all mantissa bits in use; the worst of the fixed examples. (Of layers with weights only the dense ones:
    operator_cases also makes layers of a few ones and many zeros.)"""
    errors, cosines = [0.0], [1.0]
    for seed, graph in enumerate(examples(family)):
        node, values = graph.nodes[-1], run_all(graph, make_input(graph, seed))
        if family in WEIGHTED and np.abs(node.constants["weights"].astype(int)).max() < 100:
            continue
        gradient = make_gradient(graph, node, "all bits", seed, -20)
        for got, expected in zip(
            integer_gradients(graph, node, values, gradient),
            float_gradients(graph, node, values, gradient),
            strict=True,
        ):
            norm = float(np.linalg.norm(expected))
            if family == "broadcast_add":
                assert np.abs(got.real - expected).max() <= 2.0 ** (got.exponent - 1), "half a step, whatever cancels"
                if norm < 0.1 * float(np.linalg.norm(gradient.real)):
                    continue  # terms of a sum that cancel leave few steps: its bound is that of all terms of one sign
            if norm > 0:  # the lone tap of a stride may have weight zero
                errors.append(float(np.linalg.norm(got.real - expected)) / norm)
                cosines.append(cosine(got.real, expected))
    assert len(errors) > 20
    assert max(errors) < 0.01
    assert min(cosines) > 0.9999


def test_pools_hand_on_the_whole_gradient() -> None:
    """Maxima on the border of an image of lowest values are pixels, not padding."""
    b = GraphBuilder((3, 3, 2), zero=-128)
    b.max_pool(b.input, (3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1))
    b.avg_pool(b.input, (3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1))
    graph = b.build()
    values = run_all(graph, np.full(18, -128, np.int8))
    for node in graph.nodes:
        gradient = Gradient(np.full((2, 2, 2), 9 * 256, np.int16), 0)
        (got,) = integer_gradients(graph, node, values, gradient)
        (expected,) = float_gradients(graph, node, values, gradient)
        assert expected.sum() == pytest.approx(8 * 9 * 256)
        assert got.real.sum() == pytest.approx(8 * 9 * 256, rel=1e-3)


# -- gradients of parameters ----------------------------------------------------------------------


def check_weight_gradient(graph: Graph, gradient: Gradient, channels: list[int], seed: int) -> None:
    node = graph.nodes[-1]
    x = run_all(graph, make_input(graph, seed))[node.inputs[0]]
    q = graph.tensors[node.inputs[0]].quantization
    found = weights_of(node).int16(node, graph.tensors, x, gradient, np.array(channels, np.intp))
    expected = weights_of(node).float64(node, graph.tensors, x, gradient.real, channels)
    assert np.abs(found.values).max() < INT32
    pixels = graph.tensors[node.output].bytes // len(node.constants["bias"])
    reach = gradient.magnitude * pixels * 255  # rounding costs half a step per pixel, and only beyond int32
    step = 0.0 if reach < INT32 else reach / 2**30
    tolerance = pixels * 255 * q.scale * np.ldexp(step, gradient.exponent) + 1e-12 * np.abs(expected).max()
    assert found.values.shape == expected.shape
    assert np.abs(found.real - expected).max() <= tolerance, describe(graph)

    real = (q.scale * (x.astype(np.float64) - q.zero_point))[None]
    weights = real_weights(node)
    index = positions(node, channels).reshape(-1)
    at = np.random.default_rng(seed).permutation(index.size)[:12]

    def loss(batch: Floats) -> Floats:
        return np.array([(real_forward(graph, node, [real], w)[0] * gradient.mantissa).sum() for w in batch])

    numeric = np.ldexp(finite_differences(loss, weights, index[at], 0.01), gradient.exponent)
    exact = 1e-7 * np.ldexp(max(1.0, float(gradient.magnitude)) * pixels * 255 * q.scale, gradient.exponent)
    assert np.abs(found.real.reshape(-1)[at] - numeric).max() <= tolerance + exact, describe(graph)


@pytest.mark.parametrize("family", WEIGHTED)
@settings(max_examples=30, deadline=None)
@given(gradients, st.data())
def test_weight_gradients_are_those_of_the_real_operator(family: str, how: tuple, data: st.DataObject) -> None:
    kind, seed, exponent = how
    graph = data.draw(STRATEGIES[family])
    count = graph.tensors[graph.nodes[-1].inputs[0]].shape[-1]
    channels = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))  # any order
    check_weight_gradient(graph, make_gradient(graph, graph.nodes[-1], kind, seed, exponent), channels, seed)


def test_rounded_weight_gradients_are_within_one_percent() -> None:
    """Images so large that mantissas lose bits. Rounding half up adds half an unrounded mantissa a pixel, which
    does not cancel where all x - z are positive: 0.4 % here."""
    for side in (48, 96):
        b = GraphBuilder((side, side, 3), zero=-128)
        b.conv2d(b.input, 4, (3, 3), stride=(1, 1), pad_before=(1, 1), pad_after=(1, 1))
        graph = b.build()
        node, x = graph.nodes[-1], random_inputs(graph, 1)[0].reshape(side, side, 3)
        gradient = make_gradient(graph, node, "all bits", side, -30)
        found = weights_of(node).int16(node, graph.tensors, x, gradient, np.array([2, 0], np.intp))
        assert found.exponent > gradient.exponent
        expected = weights_of(node).float64(node, graph.tensors, x, gradient.real, [2, 0])
        assert np.linalg.norm(found.real - expected) < 0.01 * np.linalg.norm(expected)
        assert cosine(found.real, expected) > 0.9999


def test_operators_without_a_rule_name_the_node() -> None:
    b = GraphBuilder((2, 2, 3))
    b.softmax(b.input, name="the softmax")
    graph = b.build()
    gradient = Gradient(np.zeros((2, 2, 3), np.int16), 0)
    with pytest.raises(NoBackwardRuleError, match="the softmax"):
        backward_of(graph.nodes[0]).int16(graph.nodes[0], graph.tensors, [], gradient)
    with pytest.raises(NoBackwardRuleError, match="the softmax"):
        weights_of(graph.nodes[0]).int16(
            graph.nodes[0], graph.tensors, np.zeros((2, 2, 3), np.int8), gradient, np.array([0])
        )


# -- the tests above fail when they should ------------------------------------------------------------


def shifted(window: Window, values: NDArray, height: int, width: int) -> NDArray:
    return np.roll(SCATTER(window, values, height, width), 1, axis=1)


def mirrored(window: Window, values: NDArray, height: int, width: int) -> NDArray:
    return SCATTER(window, values[:, :, ::-1, ::-1], height, width)


def pads_swapped(window: Window, values: NDArray, height: int, width: int) -> NDArray:
    return SCATTER(replace(window, pad_before=window.pad_after, pad_after=window.pad_before), values, height, width)


def last_tap_lost(window: Window, values: NDArray, height: int, width: int) -> NDArray:
    kept = values.copy()
    kept[:, :, -1, -1] = 0
    return SCATTER(window, kept, height, width)


SCATTER = Window.scatter


@pytest.mark.parametrize("mutant", [shifted, mirrored, pads_swapped, last_tap_lost])
def test_a_wrong_transpose_is_found(mutant, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Integer and float rules share the transposed window: only finite differences can tell."""
    b = GraphBuilder((5, 6, 2))
    window = {"stride": (2, 1), "pad_before": (1, 0), "pad_after": (0, 2)}
    b.conv2d(b.input, 3, (3, 3), **window)
    graph = b.build()
    gradient = make_gradient(graph, graph.nodes[-1], "all bits", 1, 0)
    check_input_gradients(graph, gradient, 1)
    monkeypatch.setattr(Window, "scatter", mutant)
    with pytest.raises(AssertionError):
        check_input_gradients(graph, gradient, 1)
