"""What each policy lets learn, and schemes from files."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import GraphBuilder
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.training.policies import scheme_for


def network() -> Graph:
    b = GraphBuilder((6, 6, 3))
    x = b.conv2d(b.input, 8, name="dense")
    x = b.depthwise(x, name="deep")
    x = b.conv2d(x, 6, groups=2, name="grouped")
    features = b.fully_connected(b.reshape(b.avg_pool(x)), 5, name="vector")
    return b.build(b.fully_connected(features, 2, name="classifier"), features)


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
    scheme = scheme_for(network(), "sparse-update", tmp_path / "scheme.toml")
    assert scheme is not None
    chosen = {name: layer.channels for name, layer in scheme.layers.items() if layer.channels}
    assert chosen == {"deep" if layer == "1" else layer: tuple(range(channels))}
    assert {"grouped", "vector"} <= set(scheme.layers)
