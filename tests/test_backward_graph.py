"""The backward pass of whole graphs: against the float pass, and against derivatives taken forwards.

The float pass runs over the same nodes in the same order as the integer one. So that both cannot be wrong together,
a change of the trained parameters is also carried forwards, through the operators on real numbers: what it does to
the embedding, times the embedding's gradient, is what the parameters' gradients have to say about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import tinytrain_compiler.reference.backward as backward_module
from backward_cases import Floats, cosine, positions
from batch import sample
from graphs import ALL, GraphBuilder, describe, random_inputs
from hypothesis import strategies as st
from real_operators import real_forward
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.graph.gradient import MANTISSA_MAX, Gradient, quantize_gradient
from tinytrain_compiler.ops import Int8, backward_of, weights_of
from tinytrain_compiler.ops.backward import NoBackwardRuleError
from tinytrain_compiler.reference import run_all
from tinytrain_compiler.reference.backward import LayerGradient, backward
from tinytrain_compiler.reference.float_backward import float_backward
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer

SAME = {"pad_before": (1, 1), "pad_after": (1, 1)}
HALF = {"stride": (2, 2), "pad_before": (0, 1), "pad_after": (1, 1)}
# Zero point and limits of linear layers, of Relu and Relu6 by the ends of int8, and of both by narrower limits.
LINEAR, RELU, RELU6 = (5, ALL), (-128, ALL), (-128, (-128, 70))
RELU_INSIDE, CLIP = (-20, (-20, 127)), (10, (-60, 90))
ACTIVATIONS = [LINEAR, RELU, RELU6, RELU_INSIDE, CLIP]


@dataclass
class Network:
    """A builder that remembers which nodes clip, and between what."""

    b: GraphBuilder
    clips: dict[str, tuple[int, int]] = field(default_factory=dict)  # by node
    features: str = ""

    def layer(self, kind: str, *args: object, act: tuple[int, tuple[int, int]] = LINEAR, **options: object) -> str:
        zero, limits = act
        output: str = getattr(self.b, kind)(*args, zero=zero, limits=limits, **options)
        if act is not LINEAR:
            self.clips[self.b.nodes[-1].name] = limits
        return output

    @property
    def graph(self) -> Graph:
        return self.b.build(features=self.features)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A few blocks, then an embedding, then a classifier with softmax that gradients never see."""
    size = (draw(st.integers(5, 9)), draw(st.integers(5, 9)))
    net = Network(GraphBuilder((*size, 3), seed=draw(st.integers(0, 2**16))))
    b, act = net.b, lambda: draw(st.sampled_from(ACTIVATIONS))
    x = net.layer("conv2d", b.input, draw(st.sampled_from([4, 6])), (3, 3), act=act(), **SAME)
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=4)):
        h, _, c = b.tensors[x].shape
        if block == "inverted":  # MobileNetV2's
            y = net.layer("conv2d", x, 2 * c + 1, act=RELU6)
            y = net.layer("depthwise", y, (3, 3), act=RELU6, **SAME)
            x = net.layer("add", x, net.layer("conv2d", y, c), act=act())
        elif block == "strided":
            x = net.layer("depthwise", x, (3, 3), act=act(), **HALF) if h > 1 else x
        elif block == "grouped":
            x = net.layer("conv2d", x, c, (1, 3), groups=2, act=act(), **SAME) if c % 2 == 0 else x
        elif block == "dilated":
            x = net.layer("conv2d", x, c + 1, (2, 3), act=act(), dilation=(2, 1), **SAME)
        elif block == "shared":  # read by three, one of them twice
            y = net.layer("conv2d", x, c, act=act())
            x = b.add(b.add(x, y), b.add(x, x))
        elif block == "clip":
            x = net.layer("lookup", x, act=act())
        elif block == "max":
            x = b.max_pool(x, (3, 3), stride=(2, 2), **SAME)
        else:
            x = net.layer("avg_pool", x, (2, 3), act=LINEAR, **SAME)
    head = draw(st.sampled_from(["average", "flatten", "flatten and layer"]))
    x = b.avg_pool(x, zero=-128) if head == "average" else b.reshape(x)
    net.features = net.layer("fully_connected", x, 9, act=act()) if "layer" in head else x
    b.softmax(b.fully_connected(b.reshape(net.features), 5))
    return net


BLOCKS = ["inverted", "inverted", "shared", "strided", "grouped", "dilated", "clip", "max", "average"]


def make_scheme(graph: Graph, seed: int) -> Scheme:
    """About half of the layers in front of the embedding, some with weights."""
    rng = np.random.default_rng(seed)
    names = {node.output for node in graph.nodes[: next(i for i, n in enumerate(graph.nodes) if n.op == "softmax") - 2]}
    layers = {}
    for node in graph.nodes:
        if "weights" in node.constants and node.output in names and rng.random() < 0.6:
            count = weights_of(node).layout(node).channels
            chosen = rng.permutation(count)[: rng.integers(0, count + 1)]
            layers[node.name] = TrainedLayer(tuple(int(c) for c in sorted(chosen)))
    first = graph.nodes[0].name
    return Scheme(layers or {first: TrainedLayer((0, 2))})


@dataclass
class Case:
    net: Network
    graph: Graph
    scheme: Scheme
    values: dict[str, Int8]
    gradient: Gradient


def make_case(net: Network, seed: int) -> Case:
    graph = net.graph
    shape = graph.tensors[graph.features].shape
    gradient = quantize_gradient(np.random.default_rng(seed).normal(0, 1e-3, shape))
    return Case(net, graph, make_scheme(graph, seed), run_all(graph, random_inputs(graph, 1, seed)[0]), gradient)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make_case(net, seed) for seed, net in enumerate(sample(networks(), 60))]


# -- against float ---------------------------------------------------------------------------------


def test_integer_gradients_are_those_of_the_float_pass(cases: list[Case]) -> None:
    errors, cosines = [], []
    for case in cases:
        found = backward(case.graph, case.scheme, case.values, case.gradient)
        expected = float_backward(case.graph, case.scheme, case.values, case.gradient.real)
        assert list(found) == list(expected)
        assert set(found) == set(case.scheme.layers)
        for name, (weights, bias) in expected.items():
            assert (found[name].weights is None) == (weights is None)
            pairs = [(found[name].bias.real, bias)]
            if weights is not None and found[name].weights is not None:
                pairs.append((found[name].weights.real, weights))
            for got, wanted in pairs:
                assert got.shape == wanted.shape
                norm = float(np.linalg.norm(wanted))
                if norm == 0:
                    assert not got.any()
                    continue
                errors.append(float(np.linalg.norm(got - wanted)) / norm)
                cosines.append(cosine(got, wanted))
    assert len(errors) > 150
    assert min(cosines) > 0.999
    assert np.median(errors) < 0.001
    assert np.quantile(errors, 0.95) < 0.01
    assert max(errors) < 0.1  # a bias whose sum all but cancels, behind five additions that cost a bit each


def test_long_residual_chains_keep_their_gradients() -> None:
    """Sixteen blocks: the identity path is never narrowed, so what an addition drops is lost for good."""
    b = GraphBuilder((8, 8, 3))
    x = b.conv2d(b.input, 6, (3, 3), name="first", **SAME)
    for _ in range(16):
        y = b.depthwise(b.conv2d(x, 12, zero=-128), (3, 3), zero=-128, **SAME)
        x = b.add(x, b.conv2d(y, 6))
    graph = b.build(features=b.avg_pool(x))
    values, scheme = run_all(graph, random_inputs(graph, 1)[0]), Scheme({"first": TrainedLayer()})
    gradient = quantize_gradient(np.random.default_rng(0).normal(0, 1e-3, (1, 1, 6)))
    found = backward(graph, scheme, values, gradient)["first"].bias.real
    _, expected = float_backward(graph, scheme, values, gradient.real)["first"]
    assert cosine(found, expected) > 0.99


# -- against forward derivatives -------------------------------------------------------------------


def tangent(case: Case, change: dict[str, tuple[Floats | None, Floats]]) -> Floats:
    """How the embedding moves with a change of real weights and biases, as long as the same elements are clipped."""
    graph, values = case.graph, case.values
    moves = {graph.input: np.zeros((1, *graph.tensors[graph.input].shape))}
    for node in graph.nodes:
        if node.op == "softmax":
            break
        inputs = [moves[name] for name in node.inputs]
        if node.op == "max_pool":
            q = graph.tensors[node.inputs[0]].quantization
            x = values[node.inputs[0]].astype(np.float64)
            x -= np.arange(x.size).reshape(x.shape) / (2 * x.size)  # of equal values the first is the maximum
            step = 1 / (8 * x.size * max(1e-300, np.abs(inputs[0]).max()))
            ends = [real_forward(graph, node, [q.scale * (x + sign * step * inputs[0])]) for sign in (1, -1)]
            move = (ends[0] - ends[1]) / (2 * step * q.scale)
        else:
            move = real_forward(graph, node, inputs)
        weights, bias = change.get(node.name, (None, 0.0))
        if weights is not None:
            q = graph.tensors[node.inputs[0]].quantization
            x = q.scale * (values[node.inputs[0]].astype(np.float64) - q.zero_point)
            move = move + real_forward(graph, node, [x[None]], weights)
        low, high = case.net.clips.get(node.name, (-1000, 1000))
        y = values[node.output]
        moves[node.output] = (move + bias) * ((y > low) & (y < high))
    return moves[graph.features][0]


def check_forwards(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    change: dict[str, tuple[Floats | None, Floats]] = {}
    predicted, size = 0.0, 1e-30
    expected = float_backward(case.graph, case.scheme, case.values, case.gradient.real)
    for node in case.graph.nodes:
        if node.name not in case.scheme.layers:
            continue
        channels = list(case.scheme.layers[node.name].channels)
        shape, move = node.constants["weights"].shape, None
        g_weights, g_bias = expected[node.name]
        if g_weights is not None:
            part = rng.normal(0, 1, g_weights.shape)
            move = np.zeros(shape)
            move.reshape(-1)[positions(node, channels)] = part
            predicted += float((part * g_weights).sum())
            size += float(np.linalg.norm(part) * np.linalg.norm(g_weights))
        bias = rng.normal(0, 1, len(node.constants["bias"]))
        predicted += float(bias @ g_bias)
        size += float(np.linalg.norm(bias) * np.linalg.norm(g_bias))
        change[node.name] = move, bias
    happened = float((tangent(case, change) * case.gradient.real).sum())
    assert abs(happened - predicted) <= 1e-6 * size, describe(case.graph)


def test_gradients_predict_what_a_change_of_parameters_does(cases: list[Case]) -> None:
    for seed, case in enumerate(cases):
        check_forwards(case, seed)


@pytest.mark.parametrize("mutant", ["no masks", "one reader only", "masks of the layer in front"])
def test_a_wrong_graph_pass_is_found(mutant: str, cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """In float and integers alike, where the two share the fault."""
    import tinytrain_compiler.reference.float_backward as float_module

    ones = lambda node, tensors, y: np.ones(y.shape, np.bool_)  # noqa: E731
    if mutant == "no masks":
        for module in (backward_module, float_module):
            monkeypatch.setattr(module, "clip_mask", ones)
    elif mutant == "one reader only":
        monkeypatch.setattr(backward_module, "add_gradients", lambda a, b: b)
    else:
        monkeypatch.setattr(float_module, "clip_mask", lambda node, tensors, y: np.roll(y, 1) > -128)
    check = test_integer_gradients_are_those_of_the_float_pass
    with pytest.raises(AssertionError):
        (check if mutant == "one reader only" else test_gradients_predict_what_a_change_of_parameters_does)(cases)


# -- what is visited -------------------------------------------------------------------------------


def chain() -> Graph:
    """Five convolutions, average, softmax behind the embedding."""
    b = GraphBuilder((6, 6, 3))
    x = b.input
    for i in range(5):
        x = b.conv2d(x, 4, (3, 3), zero=-128, name=f"conv{i}", **SAME)
    features = b.avg_pool(x, name="average")
    b.softmax(b.fully_connected(b.reshape(features), 5, name="classifier"), name="softmax")
    return b.build(features=features)


def run_backward(graph: Graph, scheme: Scheme, keep: set[str] | None = None) -> dict[str, LayerGradient]:
    """keep: the only tensors whose values may be read."""
    values = run_all(graph, random_inputs(graph, 1)[0])
    gradient = quantize_gradient(np.random.default_rng(0).normal(0, 1, graph.tensors[graph.features].shape))
    return backward(graph, scheme, {k: v for k, v in values.items() if keep is None or k in keep}, gradient)


@pytest.mark.parametrize(("channels", "kept"), [((), set()), ((1, 3), {"conv2_out"})])
def test_nothing_in_front_of_the_first_trained_layer_is_visited(
    channels: tuple[int, ...], kept: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No rule is asked there, and no value is read but the input of a layer whose weights learn."""
    asked = []

    for what, rule in (("backward_of", backward_of), ("weights_of", weights_of)):

        def spy(node: Node, what: str = what, rule: Callable[[Node], object] = rule) -> object:
            asked.append((node.name, what))
            return rule(node)

        monkeypatch.setattr(backward_module, what, spy)
    scheme = Scheme({"conv3": TrainedLayer(channels)})
    found = run_backward(chain(), scheme, {"conv3_out", "conv4_out", "average_out"} | kept)
    assert set(found) == {"conv3"}
    own = [("conv3", "weights_of")] if channels else []
    assert asked == [("average", "backward_of"), ("conv4", "backward_of"), *own]


def test_layers_between_trained_ones_are_passed_and_not_trained() -> None:
    assert list(run_backward(chain(), Scheme({"conv0": TrainedLayer((2,)), "conv4": TrainedLayer()}))) == [
        "conv4",
        "conv0",
    ]


def test_no_trained_layer_no_work() -> None:
    assert run_backward(chain(), Scheme({}), set()) == {}


def test_layers_are_handed_over_as_soon_as_they_are_complete_and_pass_gradients_as_updated() -> None:
    graph = chain()
    scheme = Scheme({"conv2": TrainedLayer((0,)), "conv4": TrainedLayer()})
    values = run_all(graph, random_inputs(graph, 1)[0])
    gradient = quantize_gradient(np.ones(graph.tensors[graph.features].shape))
    order: list[str] = []

    def learn(node: Node, found: LayerGradient) -> Node:
        order.append(node.name)
        return replace(node, constants=node.constants | {"weights": 0 * node.constants["weights"]})

    found = backward(graph, scheme, values, gradient, learn)
    assert order == ["conv4", "conv2"]
    assert found["conv4"].bias.values.any()
    assert not found["conv2"].bias.values.any()


def test_an_operator_without_a_rule_on_the_path_is_named() -> None:
    b = GraphBuilder((4, 4, 3))
    x = b.softmax(b.conv2d(b.input, 4, name="early"), name="attention")
    graph = b.build(features=b.conv2d(x, 4, name="late"))
    assert set(run_backward(graph, Scheme({"late": TrainedLayer((0,))}))) == {"late"}
    with pytest.raises(NoBackwardRuleError, match="attention: softmax has no backward rule"):
        run_backward(graph, Scheme({"early": TrainedLayer()}))


def test_an_operator_without_a_rule_beside_the_path_is_no_problem() -> None:
    """A softmax that only the frozen part feeds, and one behind the embedding."""
    b = GraphBuilder((4, 4, 3))
    gate = b.softmax(b.input, name="gate")
    x = b.add(b.conv2d(b.input, 3, name="trained"), gate)
    b.softmax(x, name="output")
    assert set(run_backward(b.build(features=x), Scheme({"trained": TrainedLayer((0, 1))}))) == {"trained"}


def test_weights_of_an_operator_without_any_are_refused() -> None:
    b = GraphBuilder((4, 4, 3))
    graph = b.build(features=b.avg_pool(b.input, name="average"))
    with pytest.raises(NoBackwardRuleError, match="average: avg_pool cannot learn its weights"):
        run_backward(graph, Scheme({"average": TrainedLayer((0,))}))


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["conv2d", "depthwise", "fully_connected"])
def test_clipped_elements_get_no_gradient(kind: str, act: tuple[int, tuple[int, int]]) -> None:
    """The bias of a lone layer: the plain sum over what lies strictly between the limits."""
    net = Network(GraphBuilder((7, 7, 3)))
    net.features = net.layer(kind, net.b.input, *([] if kind == "depthwise" else [40]), act=act, factor=0.02)
    graph = net.graph
    y = run_all(graph, random_inputs(graph, 1)[0])[net.features]
    low, high = (-1000, 1000) if act is LINEAR else act[1]
    inside = (y > low) & (y < high)
    mantissa = np.random.default_rng(1).integers(-MANTISSA_MAX, MANTISSA_MAX, y.shape).astype(np.int16)
    values = run_all(graph, random_inputs(graph, 1)[0])
    found = backward(graph, Scheme({graph.nodes[0].name: TrainedLayer()}), values, Gradient(mantissa, -7))
    wanted = np.where(inside, mantissa.astype(np.int64), 0).reshape(-1, y.shape[-1]).sum(0)
    bias = found[graph.nodes[0].name].bias
    assert np.array_equal(bias.values, wanted)
    assert (bias.exponent, bias.scale) == (-7, 1.0)
    if act is not LINEAR:
        assert (y == low).any() if kind != "fully_connected" or low != -60 else True
        assert inside.any()


# -- tensors with several readers ------------------------------------------------------------------


@pytest.mark.parametrize("readers", ["x + x", "x + (x + x)", "(x + x) + (x + x)"])
def test_every_reader_adds_its_gradient(readers: str) -> None:
    b = GraphBuilder((2, 2, 3), zero=0)
    x = b.conv2d(b.input, 4, name="layer")
    two = b.add(x, x)
    last = {"x + x": lambda: two, "x + (x + x)": lambda: b.add(x, two), "(x + x) + (x + x)": lambda: b.add(two, two)}
    graph = b.build(features=last[readers]())
    values = run_all(graph, np.zeros(12, np.int8))
    times = {"x + x": 2, "x + (x + x)": 3, "(x + x) + (x + x)": 4}[readers]
    for mantissa in (MANTISSA_MAX, -MANTISSA_MAX, 20_000, 4):
        gradient = Gradient(np.full((2, 2, 4), mantissa, np.int16), -3)
        found = backward(graph, Scheme({"layer": TrainedLayer()}), values, gradient)["layer"].bias.real
        assert found == pytest.approx(np.full(4, 4 * times * mantissa / 8), rel=2**-12)
