"""The size of the training pool: what it must have, what it can use, and what may be chosen at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from graphs import GraphBuilder
from networks import ONE, THREE
from tinytrain_compiler.errors import DoesNotFitError, UsageError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.reference.selection import choose
from tinytrain_compiler.training.heads import PROTOTYPE
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.plan import plan_training
from tinytrain_compiler.training.policies import TinyTrain
from tinytrain_compiler.training.pool import DEFAULT_LIMIT, SelectionPlan
from tinytrain_compiler.training.scheme import Scheme
from tinytrain_compiler.training.selectors import FISHER, FISHER_RESAMPLE, Selector
from tinytrain_compiler.training.trainable import scheme_of

Network = Callable[[], Graph]


def one_candidate() -> Graph:
    """A candidate whose whole input is larger than the buffer for its chosen channels."""
    b = GraphBuilder((16, 16, 3))
    x = b.conv2d(b.input, 8, name="stem")
    features = b.reshape(b.avg_pool(b.conv2d(x, 16, name="wide")))
    return b.build(b.fully_connected(features, 4, name="classifier"), features)


def separable_blocks() -> Graph:
    """DS-CNN in little: after the first layer, which has one input channel, no layer widens."""
    b = GraphBuilder((12, 5, 1))
    x = b.conv2d(b.input, 8, THREE, pad_before=ONE, pad_after=ONE, name="stem")
    for i in range(2):
        x = b.conv2d(b.depthwise(x, THREE, pad_before=ONE, pad_after=ONE, name=f"deep{i}"), 8, name=f"point{i}")
    features = b.reshape(b.avg_pool(x))
    return b.build(b.fully_connected(features, 4, name="classifier"), features)


def tinytrain(graph: Graph, policy: TinyTrain | None = None) -> Scheme:
    scheme = scheme_of(policy or TinyTrain(), graph, PROTOTYPE)
    assert scheme is not None
    return scheme


def planned(graph: Graph, pool: int | None, selector: Selector) -> SelectionPlan:
    plan = plan_training(graph, tinytrain(graph), 4, LearningOptions(pool=pool, selector=selector)).selection
    assert plan is not None
    return plan


@pytest.mark.parametrize("selector", [FISHER, FISHER_RESAMPLE], ids=lambda s: s.name)
@pytest.mark.parametrize("network", [one_candidate, separable_blocks])
def test_the_smallest_pool_of_a_message_works_and_less_does_not(network: Network, selector: Selector) -> None:
    graph = network()
    sizes = range(64, 4096, 16)
    with pytest.raises(DoesNotFitError, match=r"is too small.*give --pool \d+ or more") as caught:
        planned(graph, sizes[0], selector)
    named = re.search(r"the rest of ([\d,]+); give --pool (\d+) or more", str(caught.value))
    assert named is not None
    smallest, kib = int(named[1].replace(",", "")), int(named[2])
    for size in sizes:
        if size < smallest:
            with pytest.raises(DoesNotFitError, match=f"give --pool {kib} or more"):
                planned(graph, size, selector)
        else:
            assert planned(graph, size, selector).pool_bytes <= size
    assert kib - 1 < smallest / 1024 <= kib


@pytest.mark.parametrize("selector", [FISHER, FISHER_RESAMPLE], ids=lambda s: s.name)
@pytest.mark.parametrize("network", [one_candidate, separable_blocks])
@pytest.mark.parametrize("pool", [None, DEFAULT_LIMIT, 2**20])
def test_a_pool_is_as_large_as_candidates_can_use(pool: int | None, network: Network, selector: Selector) -> None:
    """It was planned at 64 KiB for models whose candidates can use two."""
    plan = planned(network(), pool, selector)
    assert plan.pool_bytes == plan.usable_bytes < 4096
    assert plan.groups == 1
    scores = np.ones(sum(c.channels for c in plan.candidates), np.float32)
    chosen = choose(plan.candidates, scores, [np.float32(0)] * len(plan.candidates), plan.budget(selector))
    assert {name: len(channels) for name, channels in chosen.items()} == {c.node.name: c.limit for c in plan.candidates}


def test_candidates_where_no_layer_widens() -> None:
    """Biases alone were trained, without a word."""
    scheme = tinytrain(separable_blocks())
    assert {name: scheme.layers[name].limit for name in scheme.candidates} == {"point0": 4, "point1": 4}
    assert set(scheme.layers) == {"stem", "deep0", "point0", "deep1", "point1"}


def test_tinytrain_without_candidates_is_refused(tmp_path: Path) -> None:
    b = GraphBuilder((6, 6, 3))
    features = b.reshape(b.avg_pool(b.depthwise(b.conv2d(b.input, 6, name="stem"), THREE, name="deep")))
    graph = b.build(b.fully_connected(features, 4, name="classifier"), features)
    with pytest.raises(UsageError, match=r"the last 20 layers: no layer gives the device four input channels.*bias"):
        tinytrain(graph)
    (tmp_path / "biases.toml").write_text("depth = 2\n")
    with pytest.raises(UsageError, match=r"biases.toml: no layer gives the device four input channels"):
        tinytrain(graph, TinyTrain(tmp_path / "biases.toml"))


def test_the_report_says_how_many_weights_may_be_chosen(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    ran = run_cli(
        "tinytrain-compile", small_model, "--board", "stm32f746", "--policy", "tinytrain", "--pool", "300",
        "-o", tmp_path / "net",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    training = json.loads((tmp_path / "net" / "report.json").read_text())["training"]
    assert training["weights"] == 0
    assert f"up to {training['selectable_weights']} weights that the device chooses and" in text
    assert "0 weights and" not in text.replace(f"{training['selectable_weights']} weights", "")
    size = training["selection"]["pool_bytes"]
    assert f"a pool of {size:,} of the {size:,} bytes that all of these could use" in text
