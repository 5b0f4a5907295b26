"""Which weights an input channel meets: against the operators themselves, and against the bytes in flash."""

from __future__ import annotations

import numpy as np
import pytest
from backward_cases import WEIGHTED, examples, make_input, positions
from graphs import GraphBuilder, describe
from numpy.typing import NDArray
from real_operators import real_forward
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.ops import operator_of, weights_of
from tinytrain_compiler.ops.weight_rule import input_bounds
from tinytrain_compiler.reference import run_all
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.visits import TrainOptions


def some_channels(graph: Graph, seed: int) -> list[int]:
    node = graph.nodes[-1]
    count = graph.tensors[node.inputs[0]].shape[-1]
    rng = np.random.default_rng(seed)
    return [int(c) for c in rng.permutation(count)[: rng.integers(1, count + 1)]]


@pytest.mark.parametrize("family", WEIGHTED)
def test_strides_find_every_weight_in_flash(family: str) -> None:
    """The formula of tt_weight_layout, on the constants that the kernels read."""
    for seed, graph in enumerate(examples(family)):
        node, channels = graph.nodes[-1], some_channels(graph, seed)
        layout, kernel = weights_of(node).layout(node), operator_of(node).kernel(node, graph.tensors)
        assert kernel is not None
        flash = kernel.arrays["weights"].reshape(-1)
        assert flash.size == layout.bytes
        selected = layout.select(node.constants["weights"], channels)
        assert selected.size == layout.count(len(channels))
        for o, ky, kx, j in np.ndindex(selected.shape):
            group, within = channels[j] // layout.inputs, channels[j] % layout.inputs
            tap = ky * layout.kernel[1] + kx
            at = group * layout.group_stride + o * layout.output_stride + tap * layout.tap_stride + within
            assert flash[at] == selected[o, ky, kx, j], describe(graph)


@pytest.mark.parametrize("family", WEIGHTED)
def test_a_selection_is_all_weights_that_its_channels_meet(family: str) -> None:
    """Without the selected weights the output no longer depends on these channels, and on the others as before."""
    for seed, graph in enumerate(examples(family)):
        node, channels = graph.nodes[-1], some_channels(graph, seed)
        layout, weights = weights_of(node).layout(node), node.constants["weights"]
        assert np.array_equal(layout.select(weights, channels), weights.reshape(-1)[positions(node, channels)]), (
            describe(graph)
        )
        without = layout.replaced(weights, channels, 0 * layout.select(weights, channels)).astype(np.float64)
        x = run_all(graph, make_input(graph, seed))[node.inputs[0]].astype(np.float64)
        x = x.reshape(-1) if node.op == "fully_connected" else x
        kept = x.copy()
        kept[..., channels] = 0
        got = real_forward(graph, node, [x[None]], without)
        assert np.array_equal(got, real_forward(graph, node, [kept[None]], weights.astype(np.float64)))


def changed(graph: Graph, node: Node, channels: list[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which weights a training moved, and which it was allowed to, in the node's own shape."""
    scheme = Scheme({node.name: TrainedLayer(tuple(channels))})
    trainer = ReferenceTrainer(graph, scheme, 2)
    x = [make_input(graph, seed) for seed in (1, 2)]
    trainer.train(lambda index, epoch: x[index], [0, 1], TrainOptions(epochs=4, rate=2.0))
    now = next(n for n in trainer.effective().nodes if n.name == node.name).constants["weights"]
    allowed = np.zeros(now.shape, np.bool_)
    allowed.reshape(-1)[positions(node, channels)] = True
    return now != node.constants["weights"], allowed


@pytest.mark.parametrize("kind", ["conv2d", "grouped", "depthwise", "fully_connected"])
def test_no_weight_that_was_not_selected_changes(kind: str) -> None:
    b = GraphBuilder((5, 6, 8), zero=-128)
    if kind == "fully_connected":
        x = b.fully_connected(b.reshape(b.input), 5)
    elif kind == "depthwise":
        x = b.depthwise(b.input, (3, 3))
    else:
        x = b.conv2d(b.input, 12, (3, 2), groups=4 if kind == "grouped" else 1)
    node = b.nodes[-1]
    graph = b.build(features=b.reshape(x) if kind != "fully_connected" else x)
    moved, allowed = changed(graph, node, [5, 0, 2])
    assert not (moved & ~allowed).any()
    assert moved.sum() > allowed.sum() / 2


def test_l1_counts_the_lowest_weight_and_only_what_meets() -> None:
    """-128 has no positive counterpart in int8. Two groups meet in no input element."""
    b = GraphBuilder((2,))
    b.fully_connected(b.input, 2)
    node = b.nodes[-1]
    node.constants["weights"][:] = np.array([[-128, 1], [-128, 127]], np.int8)
    assert input_bounds(node, weights_of(node).layout(node)) == (256, 0)
    assert input_bounds(node, weights_of(node).layout(node), trained=True) == (512, 0)
    b = GraphBuilder((1, 1, 4))
    b.conv2d(b.input, 4, groups=2)
    node = b.nodes[-1]
    node.constants["weights"][..., 0] = -128
    node.constants["weights"][..., 1] = 3
    assert input_bounds(node, weights_of(node).layout(node)) == (256, 0)
