"""The graph: its verifier sees every mistake, and passes change neither well-formedness nor a single byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, describe, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS
from tinytrain_compiler.graph import Graph, GraphError, Layout, Origin, Quantization, verify
from tinytrain_compiler.ops import operator_of, registered
from tinytrain_compiler.passes import PIPELINE, run_passes
from tinytrain_compiler.passes.fuse_clip import FuseClip
from tinytrain_compiler.reference import run, run_all


def chain() -> Graph:
    b = GraphBuilder((4, 4, 3))
    x = b.conv2d(b.input, 5, name="first")
    return b.build(b.conv2d(x, 2, name="second"), x)


def with_tensor(graph: Graph, **changes: Any) -> Graph:
    tensor = replace(graph.tensors["first_out"], **changes)
    return replace(graph, tensors=graph.tensors | {"first_out": tensor})


def with_node(graph: Graph, index: int, **changes: Any) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(graph, nodes=nodes)


ORIGIN = Origin("integers", Layout.row_major((1, 4, 4)))
MISTAKES: dict[str, Callable[[Graph], Graph]] = {
    "input nowhere is not a tensor": lambda g: replace(g, input="nowhere"),
    "two nodes are called first": lambda g: with_node(g, 1, name="first"),
    "second reads later before it is written": lambda g: with_node(g, 1, inputs=("later",)),
    "second reads first_out before it is written": lambda g: replace(g, nodes=g.nodes[::-1]),
    "first writes the unknown tensor lost": lambda g: with_node(g, 0, output="lost"),
    "first_out is written twice": lambda g: with_node(g, 1, output="first_out"),
    "input is written twice": lambda g: with_node(g, 1, output="input"),
    "output second_out is never written": lambda g: replace(g, nodes=g.nodes[:1]),
    "features lost are never written": lambda g: replace(g, features="lost"),
    "first_out has scale 0.0": lambda g: with_tensor(g, quantization=Quantization(0.0, 0)),
    "first_out has scale nan": lambda g: with_tensor(g, quantization=Quantization(float("nan"), 0)),
    "first_out has zero point 128": lambda g: with_tensor(g, quantization=Quantization(0.1, 128)),
    r"first_out has shape \(1, 1, 1, 1, 1, 1, 80\)": lambda g: with_tensor(g, shape=(1, 1, 1, 1, 1, 1, 80)),
    r"first_out has an origin and is no tensor": lambda g: replace(
        g,
        tensors={"input": g.tensors["input"]},
        nodes=[],
        output="input",
        features="input",
        origins={"first_out": ORIGIN},
    ),
    "first_out lies on the device as": lambda g: replace(g, origins={"first_out": ORIGIN}),
    "input lies on the device as": lambda g: replace(g, input_layout=ORIGIN.layout),
    r"first_out has shape \(4, 0, 5\)": lambda g: with_tensor(g, shape=(4, 0, 5)),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_verifier_names_the_pass_and_the_mistake(what: str) -> None:
    graph = chain()
    verify(graph, after="nothing")
    with pytest.raises(GraphError, match=f"after my-pass: {what}"):
        verify(MISTAKES[what](graph), after="my-pass")


def test_dump_shows_every_node_on_a_line() -> None:
    lines = chain().dump().splitlines()
    assert lines[0] == "input input (4, 4, 3)"
    assert lines[1].startswith("first_out (4, 4, 5) scale=")
    assert lines[1].endswith("zero=5 = conv2d(input) 'first'")
    assert lines[-2:] == ["features first_out", "output second_out"]


def test_graph_finds_neighbours() -> None:
    graph = chain()
    assert [node.name for node in graph.consumers("first_out")] == ["second"]
    producer = graph.producer("first_out")
    assert producer is not None
    assert producer.name == "first"
    assert graph.producer("input") is None


@pytest.mark.parametrize("name", NETWORKS)
def test_reference_returns_output_and_embedding_in_memory_order(name: str) -> None:
    graph = NETWORKS[name]()
    x = random_inputs(graph, 1)[0]
    values = run_all(graph, x)
    assert set(values) == set(graph.tensors)
    for tensor, value in values.items():
        assert (value.shape, value.dtype) == (graph.tensors[tensor].shape, np.int8)
    output, features = run(graph, x)
    assert (output == values[graph.output].reshape(-1)).all()
    assert (features == values[graph.features].reshape(-1)).all()


def test_reference_refuses_an_operator_that_returns_the_wrong_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain()
    monkeypatch.setattr(type(operator_of(graph.nodes[0])), "forward", lambda *_: np.zeros((1, 1, 1), np.int8))
    with pytest.raises(AssertionError, match=r"first: int8 \(1, 1, 1\), expected int8 \(4, 4, 5\)"):
        run(graph, random_inputs(graph, 1)[0])


def test_every_operator_has_one_record_under_its_own_name() -> None:
    assert {name: record.name for name, record in registered().items()} == {name: name for name in registered()}


# -- passes ------------------------------------------------------------------------------------


limits = st.tuples(st.integers(-128, 127), st.integers(-128, 127)).map(sorted).map(tuple)


@st.composite
def clipped(draw: st.DrawFn) -> Graph:
    """Operators with lookups behind them that only clip, in chains and with other readers."""
    b = GraphBuilder((3, 3, 4), seed=draw(st.integers(0, 99)))
    x = b.input
    for _ in range(draw(st.integers(1, 4))):
        ops = {
            "conv2d": lambda x=x: b.conv2d(x, 4, limits=draw(limits)),
            "add": lambda x=x: b.add(x, x, limits=draw(limits)),
            "max_pool": lambda x=x: b.max_pool(x, (1, 1), limits=draw(limits)),
            "softmax": lambda x=x: b.softmax(x, scale=0.1, zero=0),
            "lookup": lambda x=x: b.lookup(x, limits=draw(limits)),
            "reshape": lambda x=x: b.reshape(x, b.tensors[x].shape),
        }
        x = ops[draw(st.sampled_from(sorted(ops)))]()
        for _ in range(draw(st.integers(0, 2))):
            zero = b.tensors[x].quantization.zero_point
            x = b.lookup(x, ratio=draw(st.sampled_from([1.0, 1.0, 1.0, 0.9])), zero=zero, limits=draw(limits))
    return b.build(x, draw(st.sampled_from(list(b.tensors))))


@settings(deadline=None, max_examples=200)
@given(clipped())
def test_fused_clips_change_no_byte(graph: Graph) -> None:
    fused = FuseClip().apply(graph)
    verify(fused, after="fuse-clip")
    for x in random_inputs(graph, 2):
        wanted, got = run_all(graph, x), run_all(fused, x)
        for tensor in got:
            assert (got[tensor] == wanted[tensor]).all(), f"{tensor}\n{describe(graph)}\nbecame\n{describe(fused)}"


def test_clip_behind_a_convolution_disappears_and_others_stay() -> None:
    b = GraphBuilder((3, 3, 4))
    x = b.lookup(b.conv2d(b.input, 4, name="conv"), ratio=1.0, zero=5, limits=(5, 90), name="relu6")
    b.lookup(x, ratio=0.5, name="rescale")
    fused = FuseClip().apply(b.build())
    assert [(node.name, node.output) for node in fused.nodes] == [("conv", "relu6_out"), ("rescale", "rescale_out")]
    assert (fused.nodes[0].attributes.low, fused.nodes[0].attributes.high) == (5, 90)
    assert "conv_out" not in fused.tensors


def test_pipeline_verifies_and_reports_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run_passes(chain(), lambda name, graph: seen.append(name))
    assert seen == [step.name for step in PIPELINE]
    monkeypatch.setattr(FuseClip, "apply", lambda self, graph: replace(graph, nodes=graph.nodes[1:]))
    with pytest.raises(GraphError, match="after fuse-clip: second reads first_out before it is written"):
        run_passes(chain())
