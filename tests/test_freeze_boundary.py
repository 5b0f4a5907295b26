"""The freeze boundary: one tensor, small, with all residuals inside or outside."""

from __future__ import annotations

import pytest
from graphs import GraphBuilder
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.training.freeze_boundary import FreezeBoundary, freeze_boundary


def network() -> Graph:
    b = GraphBuilder((8, 8, 3), seed=1)
    x = b.conv2d(b.input, 8, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="stem")
    y = b.conv2d(x, 32, name="expand")
    y = b.depthwise(y, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="depthwise")
    x = b.add(x, b.conv2d(y, 8, name="project"))
    y = b.conv2d(x, 32, name="widen")
    y = b.depthwise(y, (3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1), name="strided")
    x = b.conv2d(y, 16, name="narrow")
    features = b.reshape(b.avg_pool(x, name="global"))
    return b.build(b.fully_connected(features, 5, name="classifier"), features)


def first_behind(graph: Graph, boundary: FreezeBoundary) -> str:
    assert boundary.frozen == tuple(node.name for node in graph.nodes[: len(boundary.frozen)])
    return graph.nodes[len(boundary.frozen)].name


@pytest.mark.parametrize(
    ("learning", "reader"),
    [
        ("narrow", "narrow"),
        ("strided", "strided"),  # half a layer's work would be repeated for the smaller tensor in front of it
        ("widen", "widen"),
        ("project", "expand"),  # inside a residual both of its branches are live
        ("depthwise", "expand"),
        ("stem", "stem"),
    ],
)
def test_the_boundary_lies_in_front_of_what_learns(learning: str, reader: str) -> None:
    graph = network()
    boundary = freeze_boundary(graph, {learning, "narrow"})
    node = next(node for node in graph.nodes if node.name == reader)
    assert boundary.tensor == node.inputs[0]
    assert first_behind(graph, boundary) == reader


def test_where_nothing_learns_but_a_head_everything_is_frozen() -> None:
    graph = network()
    boundary = freeze_boundary(graph, ())
    assert graph.tensors[boundary.tensor].bytes == 16, "the embedding, or its bytes in another shape"
    assert first_behind(graph, boundary) == "classifier"


def test_a_little_work_is_repeated_where_features_are_much_smaller_in_front_of_it() -> None:
    b = GraphBuilder((8, 8, 3), seed=1)
    x = b.conv2d(b.input, 64, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="stem")
    x = b.conv2d(b.conv2d(x, 64, (3, 3), pad_before=(1, 1), pad_after=(1, 1), name="body"), 4, name="squeeze")
    x = b.conv2d(x, 16, name="widen")
    x = b.depthwise(x, (3, 3), name="learns")
    features = b.reshape(b.avg_pool(x, name="global"))
    graph = b.build(b.fully_connected(features, 5, name="classifier"), features)
    boundary = freeze_boundary(graph, {"learns"})
    assert first_behind(graph, boundary) == "widen"
    assert graph.tensors[boundary.tensor].bytes == 8 * 8 * 4
