"""Training policies: each names the layers, input channels and biases that learn.

| policy | what learns |
|---|---|
| none | nothing; prototypes only |
| full | weights and biases of all layers in front of the embedding |
| last-layer | weights and biases of the last layer in front of the embedding |
| bias | the biases of the last `depth` layers (TinyTL, Cai et al. 2020, without its side branches) |
| sparse-update | a static scheme: biases of the last `depth` layers, and the first channels of some of them |
| tinytrain | biases of the last `depth` layers, and channels of candidate layers, chosen on the device for each task |
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from ..errors import UsageError
from ..graph import Graph, Node
from ..ops import weights_of
from .heads import PROTOTYPE, HeadKind
from .scheme import Scheme, TrainedLayer, embedding_layers
from .selection import MULTIPLE

POLICIES = {  # and their learning rates: docs/training.md, "Rates"
    "none": 0.015, "last-layer": 0.02, "bias": 0.015, "sparse-update": 0.015, "tinytrain": 0.015, "full": 0.0015,
}  # fmt: skip
DEFAULT_RATE = POLICIES["tinytrain"]
DEFAULT_DEPTH = 20  # layers, counted from the embedding


def scheme_for(graph: Graph, policy: str, scheme_file: Path | None = None, head: HeadKind = PROTOTYPE) -> Scheme | None:
    """The scheme of a policy; None where nothing learns: for `none`, unless the head does.

    Errors: UsageError for an unknown policy, a missing or wrong scheme file, a network without layers that can learn.
    """
    rate_of(policy)
    if scheme_file is not None and policy not in ("sparse-update", "tinytrain"):
        raise UsageError(f"--scheme belongs to --policy sparse-update or tinytrain, not to {policy}")
    layers = embedding_layers(graph)
    if policy == "none":
        return Scheme({}) if head.learns else None
    if not layers:
        raise UsageError(f"--policy {policy}: no layer with weights stands in front of the embedding")
    if policy == "bias":
        return Scheme({node.name: TrainedLayer() for node in layers[-DEFAULT_DEPTH:]})
    if policy in ("last-layer", "full"):
        return Scheme({node.name: _whole(node) for node in (layers if policy == "full" else layers[-1:])})
    if policy == "tinytrain":
        fixed = read_scheme(graph, layers, scheme_file) if scheme_file else default_candidates(graph, layers)
        return offered(graph, fixed)
    if scheme_file is None:
        raise UsageError(
            "--policy sparse-update needs --scheme FILE, a TOML file such as: depth = 20 and [fractions] "
            '"blocks.8.pointwise1" = 0.25 (layer names: see the report)'
        )
    return read_scheme(graph, layers, scheme_file)


def rate_of(policy: str) -> float:
    """The learning rate that suits a policy. Errors: UsageError for an unknown policy."""
    if policy not in POLICIES:
        raise UsageError(f"--policy {policy}: choose one of {', '.join(POLICIES)}")
    return POLICIES[policy]


def offered(graph: Graph, scheme: Scheme) -> Scheme:
    """The layers of a static scheme as candidates: the device chooses which channels, and how many at most is kept,
    rounded up to a multiple of four where the layer has as many."""
    channels = {node.name: weights_of(node).layout(node).channels for node in graph.nodes if node.name in scheme.layers}

    def candidate(name: str, layer: TrainedLayer) -> TrainedLayer:
        count = min(len(layer.channels) + MULTIPLE - 1, channels[name])
        return TrainedLayer(limit=count // MULTIPLE * MULTIPLE)

    return Scheme({name: candidate(name, layer) for name, layer in scheme.layers.items()})


def default_candidates(graph: Graph, layers: list[Node]) -> Scheme:
    """Half of the channels of layers that widen: the first pointwise convolution of a block matters most
    (SparseUpdate, section 3.2), and costs least."""
    chosen = {node.name: TrainedLayer() for node in layers[-DEFAULT_DEPTH:]}
    for node in layers[-DEFAULT_DEPTH:]:
        layout = weights_of(node).layout(node)
        if layout.groups == 1 and layout.outputs > layout.inputs:
            chosen[node.name] = TrainedLayer(tuple(range(layout.inputs // 2)))
    return Scheme(chosen)


def _whole(node: Node) -> TrainedLayer:
    """All input channels of a layer."""
    return TrainedLayer(tuple(range(weights_of(node).layout(node).channels)))


def read_scheme(graph: Graph, layers: list[Node], path: Path) -> Scheme:
    """A scheme file: `depth`, and `[fractions]` of input channels by layer name or index among all layers."""
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such scheme file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    unknown = set(table) - {"depth", "fractions"}
    if unknown:
        raise UsageError(f"{path}: unknown key {sorted(unknown)[0]!r}; a scheme has depth and [fractions]")
    depth, fractions = table.get("depth", 0), table.get("fractions", {})
    if type(depth) is not int or not 0 <= depth <= len(layers) or not isinstance(fractions, dict):
        raise UsageError(f"{path}: depth must be a whole number up to {len(layers)}, [fractions] a table")
    chosen = {node.name: TrainedLayer() for node in layers[len(layers) - depth :]}
    for key, fraction in fractions.items():
        node = _layer(layers, key, path)
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise UsageError(f"{path}: the fraction of {key!r} must lie between 0 and 1, not {fraction!r}")
        count = round(fraction * weights_of(node).layout(node).channels)
        chosen[node.name] = TrainedLayer(tuple(range(count)))
    if not chosen:
        raise UsageError(f"{path}: chooses no layer; set depth or [fractions]")
    return Scheme(chosen)


def _layer(layers: list[Node], key: str, path: Path) -> Node:
    if key.isdigit() and int(key) < len(layers):
        return layers[int(key)]
    for node in layers:
        if node.name == key:
            return node
    raise UsageError(
        f"{path}: no layer {key!r}; layers are {', '.join(n.name for n in layers[-6:])}, ... or 0 to {len(layers) - 1}"
    )
