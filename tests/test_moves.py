"""Slices, concats and their like on a training path: NumPy reference = host C, in both formats of gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_training
from graphs import GraphBuilder
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tools import require_or_skip


def network() -> tuple[Graph, Scheme]:
    """Indices that repeat, run backwards, leave gaps and pad on every axis; parts in scales of their own, one twice."""
    b = GraphBuilder((6, 5, 3), seed=1)
    x = b.conv2d(b.input, 7, zero=-128, name="front")
    turned = b.take(x, [-1, 4, 3, 3, 2, 0], [], [5, 1, 1], name="turned")
    rows = b.take(x, range(1, 4), [], [], name="rows")
    wide = b.take(rows, [0, 0, 1, 1, 2, 2], [], [], name="wide")
    x = b.concat(turned, wide, b.lookup(turned, ratio=2.0), axis=2, scale=0.1, limits=(3, 90), name="side by side")
    x = b.conv2d(b.concat(x, rows_of(b, x), axis=0, name="below"), 9, (2, 2), name="middle")
    features = b.fully_connected(b.reshape(b.avg_pool(x)), 8, name="vector")
    graph = b.build(b.fully_connected(features, 4, name="classifier"), features)
    return graph, Scheme({"front": TrainedLayer((0, 2)), "middle": TrainedLayer((4, 1, 12))})


def rows_of(b: GraphBuilder, x: str) -> str:
    return b.take(x, [5, 0], [4, 3, 2, 1, 0], [], name="corners")


@pytest.mark.parametrize("gradients", ["int16", "float32"])
def test_gradients_pass_moves_in_every_byte(gradients: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_or_skip("gcc")
    monkeypatch.setattr(test_training, "network", network)
    case = test_training.Case(tmp_path, gradients=gradients)
    host, reference = case.host(), case.reference()
    host.train(case.sample, test_training.LABELS, 9, 0.08, 3)
    reference.train(case.sample, test_training.LABELS, test_training.OPTIONS)
    state = np.frombuffer(case.training_state(host), np.uint8)
    assert case.lowered.training is not None
    for layer in case.lowered.training.layers:
        deltas = state[layer.deltas_offset :][: 2 * layer.deltas].view(np.int16)
        assert deltas.tolist() == reference.weights[layer.node.name].deltas.reshape(-1).tolist()
        assert np.abs(deltas).max() > 64, "the layer must have moved"
