"""What each policy trains, schemes from files, and that policies, selectors and heads are known from one place each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import Cli
from graphs import GraphBuilder
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.training.heads import HEADS, PROTOTYPE
from tinytrain_compiler.training.option import Option, given_options, options_of
from tinytrain_compiler.training.policies import POLICIES, make_policy, policy_options
from tinytrain_compiler.training.policy import Policy
from tinytrain_compiler.training.scheme import Layer, Scheme, TrainedLayer
from tinytrain_compiler.training.selectors import SELECTORS
from tinytrain_compiler.training.trainable import frozen_layers, scheme_of


def network() -> Graph:
    b = GraphBuilder((6, 6, 3))
    x = b.conv2d(b.input, 8, name="dense")
    x = b.depthwise(x, name="deep")
    x = b.conv2d(x, 6, groups=2, name="grouped")
    features = b.fully_connected(b.reshape(b.avg_pool(x)), 5, name="vector")
    return b.build(b.fully_connected(features, 2, name="classifier"), features)


def scheme_for(graph: Graph, policy: str, **options: object) -> Scheme | None:
    return scheme_of(make_policy(policy, options), graph, PROTOTYPE)


def test_full_is_every_channel_of_every_layer_in_front_of_the_embedding() -> None:
    scheme = scheme_for(network(), "full")
    assert scheme is not None
    counts = {name: len(layer.channels) for name, layer in scheme.layers.items()}
    assert counts == {"dense": 3, "deep": 8, "grouped": 8, "vector": 6}
    assert all(layer.channels == tuple(range(len(layer.channels))) for layer in scheme.layers.values())


def test_last_layer_is_the_last_with_weights_whatever_its_kind() -> None:
    scheme = scheme_for(network(), "last-layer")
    assert scheme is not None
    assert {name: layer.channels for name, layer in scheme.layers.items()} == {"vector": (0, 1, 2, 3, 4, 5)}


@pytest.mark.parametrize(("layer", "channels"), [("deep", 2), ("grouped", 2), ("vector", 2), ("1", 2)])
def test_a_scheme_may_choose_channels_of_any_layer(layer: str, channels: int, tmp_path: Path) -> None:
    (tmp_path / "scheme.toml").write_text(f'depth = 2\n[fractions]\n"{layer}" = 0.25\n')
    scheme = scheme_for(network(), "sparse-update", scheme=tmp_path / "scheme.toml")
    assert scheme is not None
    chosen = {name: layer.channels for name, layer in scheme.layers.items() if layer.channels}
    assert chosen == {"deep" if layer == "1" else layer: tuple(range(channels))}
    assert {"grouped", "vector"} <= set(scheme.layers)


# -- one place a policy --------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
EVERY = Option("every", "N", "which layers of the network.", int, 1, 5)
PREPARED: list[Graph] = []


@dataclass(frozen=True)
class EveryNth(Policy):
    """the biases of every
    n-th layer"""

    name: ClassVar[str] = "every-nth"
    rate: ClassVar[float] = 0.25

    every: int = field(default=2, metadata=EVERY.metadata)

    def prepare(self, graph: Graph) -> Graph:
        PREPARED.append(graph)
        return graph

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        return Scheme({layer.name: TrainedLayer() for layer in layers[:: self.every]})


@pytest.fixture
def every_nth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "every-nth", EveryNth)


@pytest.mark.usefixtures("every_nth")
@pytest.mark.parametrize("command", [("tinytrain-compile",), ("tinytrain", "evaluate")], ids=lambda c: c[-1])
def test_a_new_policy_is_in_the_help(run_cli: Cli, command: tuple[str, ...]) -> None:
    text = " ".join(run_cli(*command, "--help").out.split())
    assert "every-nth the biases of every n-th layer" in text
    assert "--every N Of every-nth: which layers of the network. [1<=x<=5]" in text


@pytest.mark.usefixtures("every_nth")
def test_a_new_policy_compiles_is_reported_and_is_evaluated(run_cli: Cli, small_model: Path, tmp_path: Path) -> None:
    out, pack = tmp_path / "net", tmp_path / "noise.npz"
    options = ("--policy", "every-nth", "--every", "3")
    ran = run_cli("tinytrain-compile", small_model, "--board", "stm32f746", "--classes", "2", "-o", out, *options)
    assert ran.code == 0, ran.err
    report = json.loads((out / "report.json").read_text())
    training = report["training"]
    assert (report["policy"], training["learning_rate"]) == ("every-nth", 0.25)
    weighted = [layer["name"] for layer in report["layers"] if layer["weight_bytes"]]
    assert [layer["name"] for layer in training["layers"]] == weighted[:-1:3], "all but the classifier"
    assert "policy every-nth, prototype head" in " ".join(ran.out.split())
    assert "--policy every-nth --every 3" in (out / "small.h").read_text()
    assert "--policy every-nth --every 3" in json.loads((out / "manifest.json").read_text())["command"]
    rng = np.random.default_rng(0)
    np.savez(pack, images=rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8), labels=np.arange(8) % 2)
    PREPARED.clear()
    ran = run_cli(
        "tinytrain", "evaluate", out, "--pack", pack, "--way", "2", "--shot", "1", "--queries", "1", "--count", "1",
        "--epochs", "1", "--no-emulation", "--json", "--policy", "none,every-nth", "--every", "3",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert list(json.loads(ran.out)["policies"]) == ["none", "every-nth"]
    assert len(PREPARED) == 1


@pytest.mark.usefixtures("every_nth")
def test_options_of_policies_are_checked() -> None:
    assert make_policy("every-nth", {"every": 5, "pool": None}) == EveryNth(5)
    assert (given_options(EveryNth(5)), given_options(EveryNth())) == ({"every": "5"}, {})
    with pytest.raises(UsageError, match="--every 6: give a number from 1 to 5"):
        make_policy("every-nth", {"every": 6})
    with pytest.raises(UsageError, match="--pool belongs to --policy tinytrain, not to every-nth"):
        make_policy("every-nth", {"pool": 6})
    with pytest.raises(UsageError, match="--scheme belongs to --policy sparse-update or tinytrain, not to bias"):
        make_policy("bias", {"scheme": "a.toml"})
    with pytest.raises(UsageError, match=r"--policy bais: choose one of none, bias, .*full, every-nth"):
        make_policy("bais")


def test_every_policy_explains_itself() -> None:
    for policy in POLICIES.values():
        assert re.fullmatch(r"[^.]+(\(.*\))?", policy.summary()), "one sentence, without a full stop"
        assert policy.rate > 0
    owners = {option.name for policy in POLICIES.values() for option in options_of(policy).values()}
    assert owners == {option.name for option in policy_options()}


def test_help_does_not_wait_for_numpy() -> None:
    heavy = "[m for m in ('numpy', 'onnx', 'onnxruntime', 'tinytrain_compiler.ops') if m in sys.modules]"
    code = f"import sys, tinytrain_compiler.cli; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_documentation_lists_policies_selectors_and_heads() -> None:
    rows = (ROOT / "docs" / "reference" / "policies.md").read_text().splitlines()
    for name, policy in POLICIES.items():
        assert any(row.startswith(f"| `{name}` | {policy.summary()} |") for row in rows)
    for name, selector in SELECTORS.items():
        assert f"| `{name}` | {selector.summary} |" in rows
    for name, head in HEADS.items():
        assert f"| `{name}` | {head.summary()} | {head.score} |" in rows


def test_layers_in_front_of_what_gradients_cannot_pass_are_frozen_by_name() -> None:
    """A way around the softmax does not help: what would be missing of the gradient makes it wrong."""
    b = GraphBuilder((4, 4, 8))
    x = b.conv2d(b.input, 8, name="early")
    x = b.add(b.softmax(b.conv2d(x, 8, name="scores"), name="attention"), x)
    graph = b.build(features=b.conv2d(x, 8, name="late"))
    scheme = scheme_of(make_policy("full"), graph, PROTOTYPE)
    assert scheme is not None
    assert list(scheme.layers) == ["late"]
    (group,) = frozen_layers(graph)
    assert group.names == ("early", "scores")
    assert group.reason == "softmax 'attention' behind them has no backward rule"


def test_a_network_without_a_layer_that_gradients_reach_says_why() -> None:
    b = GraphBuilder((4, 4, 8))
    graph = b.build(features=b.softmax(b.conv2d(b.input, 8, name="early"), name="attention"))
    with pytest.raises(UsageError, match=r"gradients reach no layer with weights \(early: frozen, softmax 'attention'"):
        scheme_of(make_policy("bias"), graph, PROTOTYPE)
    assert scheme_of(make_policy("none"), graph, PROTOTYPE) is None
