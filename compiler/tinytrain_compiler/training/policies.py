"""Training policies by name. A new one is a class here and a place in POLICIES; command line, evaluation, reports and
documentation read them from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UsageError
from .option import Option, options_of
from .policy import Policy
from .scheme import MULTIPLE, Layer, Scheme, TrainedLayer, as_candidates
from .scheme_file import read_scheme
from .selectors import FISHER, SELECTORS, UNLIMITED, Choice, Selector

DEFAULT_DEPTH = 20  # layers, counted from the embedding

SCHEME = Option(
    "scheme", "FILE.toml",
    "layers and fractions of their input channels; where the device chooses, the most it may take.", Path,
)  # fmt: skip
POOL = Option(
    "pool", "KIB", "SRAM for the training state: lists and deltas of chosen channels, and all biases (default: "
    "what all candidates can use, at most 64).", int, 1,
)  # fmt: skip
SELECTION = Option("selection", "S", "how the device chooses channels (default: fisher).", choices=SELECTORS)
MACS = Option(
    "macs", "N",
    "multiply-accumulates of weight gradients that chosen channels may take in a step (default: no limit).",
    int, 1, UNLIMITED,
)  # fmt: skip


@dataclass(frozen=True)
class NoPolicy(Policy):
    """nothing: prototypes only, or the head where it trains"""

    name: ClassVar[str] = "none"
    rate: ClassVar[float] = 0.015
    trains_layers: ClassVar[bool] = False

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        return Scheme({})


@dataclass(frozen=True)
class Bias(Policy):
    """the biases of the last 20 layers (TinyTL, Cai et al. 2020, without its side branches)"""

    name: ClassVar[str] = "bias"
    rate: ClassVar[float] = 0.015

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        return Scheme({layer.name: TrainedLayer() for layer in layers[-DEFAULT_DEPTH:]})


@dataclass(frozen=True)
class LastLayer(Policy):
    """weights and biases of the last layer in front of the embedding"""

    name: ClassVar[str] = "last-layer"
    rate: ClassVar[float] = 0.02

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        return Scheme({layers[-1].name: layers[-1].whole()})


@dataclass(frozen=True)
class SparseUpdate(Policy):
    """a static scheme: biases of the last `depth` layers, and a fraction of the input channels of some"""

    name: ClassVar[str] = "sparse-update"
    rate: ClassVar[float] = 0.015

    scheme_file: Path | None = field(default=None, metadata=SCHEME.metadata)

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        if self.scheme_file is None:
            raise UsageError(
                "--policy sparse-update needs --scheme FILE, a TOML file such as: depth = 20 and [fractions] "
                '"blocks.8.pointwise1" = 0.25 (layer names: see the report)'
            )
        return read_scheme(layers, self.scheme_file)


@dataclass(frozen=True)
class TinyTrain(Policy):
    """biases of the last 20 layers, and channels of candidate layers that the device chooses for each task"""

    name: ClassVar[str] = "tinytrain"
    rate: ClassVar[float] = 0.015

    scheme_file: Path | None = field(default=None, metadata=SCHEME.metadata)
    pool: int | None = field(default=None, metadata=POOL.metadata)  # KiB; None: what can be used
    selection: Selector = field(default=FISHER, metadata=SELECTION.metadata)
    macs: int = field(default=UNLIMITED, metadata=MACS.metadata)

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        static = default_candidates(layers) if self.scheme_file is None else read_scheme(layers, self.scheme_file)
        scheme = as_candidates(layers, static)
        if not scheme.candidates:
            where = f"the last {DEFAULT_DEPTH} layers" if self.scheme_file is None else self.scheme_file
            raise UsageError(
                f"--policy tinytrain: {where}: no layer gives the device four input channels to choose from; use "
                "--policy bias, or a --scheme whose [fractions] take four channels of a layer"
            )
        return scheme

    def choice(self) -> Choice:
        return Choice(None if self.pool is None else 1024 * self.pool, self.selection, self.macs)


@dataclass(frozen=True)
class Full(Policy):
    """weights and biases of all layers in front of the embedding: a yardstick, on this machine more than on a board"""

    name: ClassVar[str] = "full"
    rate: ClassVar[float] = 0.0015

    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        return Scheme({layer.name: layer.whole() for layer in layers})


POLICIES: dict[str, type[Policy]] = {p.name: p for p in (NoPolicy, Bias, LastLayer, SparseUpdate, TinyTrain, Full)}
DEFAULT_RATE = TinyTrain.rate


def policy_options() -> list[Option]:
    """The options of all policies, each once, in the policies' order."""
    return list({o.name: o for policy in POLICIES.values() for o in options_of(policy).values()}.values())


def policies_with(option: str) -> list[str]:
    """Names of the policies that have an option of this name."""
    return [name for name, policy in POLICIES.items() if option in {o.name for o in options_of(policy).values()}]


def make_policy(name: str, given: Mapping[str, Any] | None = None) -> Policy:
    """A policy by name. given: values by option name, of any policy; None: not given.

    Errors: UsageError for an unknown policy, an option that it does not have, and a wrong value.
    """
    if name not in POLICIES:
        raise UsageError(f"--policy {name}: choose one of {', '.join(POLICIES)}")
    fields = {option.name: (key, option) for key, option in options_of(POLICIES[name]).items()}
    values = {}
    for option_name, value in (given or {}).items():
        if value is None:
            continue
        if option_name not in fields:
            owners = policies_with(option_name)
            raise UsageError(f"--{option_name} belongs to --policy {' or '.join(owners)}, not to {name}")
        key, option = fields[option_name]
        values[key] = option.parse(value)
    return POLICIES[name](**values)


def default_candidates(layers: Sequence[Layer]) -> Scheme:
    """Half of the input channels of layers that widen: the first pointwise convolution of a block matters most
    (SparseUpdate, section 3.2), and costs least.

    Where no layer widens, as in a network of depthwise-separable blocks of one width, all layers whose kernels see
    every input channel. A layer with less than four channels, often the first of a network, is no candidate.
    """
    last = layers[-DEFAULT_DEPTH:]
    chosen = {layer.name: TrainedLayer() for layer in last}
    dense = [layer for layer in last if layer.groups == 1 and layer.inputs >= MULTIPLE]
    for layer in [layer for layer in dense if layer.outputs > layer.inputs] or dense:
        chosen[layer.name] = TrainedLayer(tuple(range(layer.inputs // 2)))
    return Scheme(chosen)
