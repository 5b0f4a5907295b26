"""passes/fuse_clip.py: the same bytes with fewer nodes."""

from __future__ import annotations

import numpy as np
from tinytrain_compiler.graph import Graph, Node, Quantization, Tensor, verify
from tinytrain_compiler.ops.add import AddAttributes
from tinytrain_compiler.ops.lookup import LookupAttributes
from tinytrain_compiler.passes.fuse_clip import FuseClip
from tinytrain_compiler.reference import run

Q = Quantization(0.1, 3)


def graph_with_clip(output: Quantization, *, read_twice: bool = False) -> Graph:
    nodes = [
        Node("add", "add", ("x", "x"), "sum", AddAttributes(low=-100)),
        Node("clip", "lookup", ("sum",), "clipped", LookupAttributes(low=3, high=50)),
        Node("last", "add", ("clipped", "sum" if read_twice else "clipped"), "y", AddAttributes()),
    ]
    quantizations = {"x": Q, "sum": Q, "clipped": output, "y": Q}
    tensors = {name: Tensor(name, (2, 3, 5), q) for name, q in quantizations.items()}
    graph = Graph("x", "y", "y", tensors, nodes)
    verify(graph, after="building")
    return graph


def test_a_clip_of_equal_scale_becomes_limits_of_the_node_in_front() -> None:
    graph = graph_with_clip(Q)
    fused = FuseClip().apply(graph)
    verify(fused, after="fusing")
    assert [node.op for node in fused.nodes] == ["add", "add"]
    assert (fused.nodes[0].attributes.low, fused.nodes[0].attributes.high) == (3, 50)
    x = np.random.default_rng(0).integers(-128, 128, 30, np.int8)
    assert run(fused, x)[0].tobytes() == run(graph, x)[0].tobytes()


def test_a_clip_that_changes_the_scale_stays() -> None:
    assert len(FuseClip().apply(graph_with_clip(Quantization(0.05, 0))).nodes) == 3


def test_a_clip_whose_input_is_read_elsewhere_stays() -> None:
    assert len(FuseClip().apply(graph_with_clip(Q, read_twice=True)).nodes) == 3
