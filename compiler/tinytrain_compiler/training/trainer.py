"""Training as the device does it, in NumPy: the oracle of the generated C.

Per sample: forward, loss, backward, update, in that order; nothing is accumulated over samples, so the
only memory that learning keeps is the deltas and two floats a layer. Steps are normalised per tensor:

    delta w = -(rate / N) |w| g / sqrt(v)

with g the sample's gradient, v the mean of |g|^2 over all samples before it, |w| the pretrained tensor's
norm and N the number of support samples. As errors shrink, gradients fall below their own history and
steps shrink with them. docs/numerics.md, "Updates".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import FACTOR_BITS, quantize_factors, shift_round
from ..ops import Int8
from ..ops.base import ParameterGradient
from ..reference.executor import run_all
from ..reference.head import PrototypeHead
from .backward import backward
from .float32 import FLOAT32 as FLOAT32_RULES
from .float32 import Floats, from_mantissas, rounded_moves, squared_norm
from .float_backward import float_backward
from .formats import DEFAULT, INT16, NEAREST, STOCHASTIC, Formats
from .loss import loss_gradient
from .scheme import Scheme
from .stochastic import SampleRandom, round_stochastically

CLEAN = -1  # the epoch in which a sample is asked for as it is, without augmentation
DEFAULT_RATE = 0.06  # chosen on omniglot alone, docs/training.md
DELTA_BITS = NEAREST.fraction_bits  # of a weight's step
BIAS_MAX = 2**31 - 1
NORM_BITS = 23  # accumulators are shifted to this many bits before they are squared
STEP_BITS = 30


@dataclass
class Running:
    """Mean of |g|^2 of one tensor, float32 as on the device; `seen` samples so far."""

    mean: np.float32 = field(default_factory=lambda: np.float32(0))
    seen: int = 0

    def update(self, square: np.float32) -> None:
        self.seen += 1
        self.mean = np.float32(self.mean + np.float32((square - self.mean) / np.float32(self.seen)))


@dataclass
class TrainedTensor:
    """What one tensor, weights of the selected channels or biases, needs to learn."""

    deltas: NDArray[np.int64]
    low: int
    high: int
    norm: np.float32  # |w| over the unit of a delta at scale 1
    inverse: NDArray[np.float64]  # 1 / s_w[o] (times 1 / s_x for biases)
    running: Running = field(default_factory=Running)
    saturated: int = 0

    def move(self, moves: NDArray[np.int64]) -> None:
        """deltas -= moves, saturating; what does not fit is counted."""
        moved = self.deltas - moves
        self.saturated += int(((moved < self.low) | (moved > self.high)).sum())
        self.deltas = np.clip(moved, self.low, self.high)


@dataclass(frozen=True)
class TrainOptions:
    epochs: int = 40
    rate: float = DEFAULT_RATE
    seed: int = 1


def bias_units(graph: Graph, node: Node) -> NDArray[np.float64]:
    """Real value of one step of each bias: s_w[o] s_x."""
    units: NDArray[np.float64] = node.constants["weight_scales"] * graph.tensors[node.inputs[0]].quantization.scale
    return units


def bias_norm(graph: Graph, node: Node) -> np.float32:
    """|b| of the pretrained biases, real."""
    return np.float32(np.sqrt(((node.constants["bias"] * bias_units(graph, node)) ** 2).sum()))


def weight_norm(node: Node, channels: Sequence[int]) -> np.float32:
    """|w| of the selected channels' pretrained weights, real, times the fraction bits of a delta."""
    w = node.constants["weights"][..., list(channels)]
    real = w * node.constants["weight_scales"].reshape(-1, *[1] * (w.ndim - 1))
    return np.float32(np.sqrt((real**2).sum()) * 2**DELTA_BITS)


class ReferenceTrainer:
    """One session: a graph, a scheme, deltas, prototypes."""

    def __init__(self, graph: Graph, scheme: Scheme, classes: int, formats: Formats = DEFAULT) -> None:
        self.graph, self.scheme, self._formats = graph, scheme, formats
        self._classes = classes
        self.head = self._new_head()
        self.weights: dict[str, TrainedTensor] = {}
        self.biases: dict[str, TrainedTensor] = {}
        self._pretrained = {node.name: node for node in graph.nodes if node.name in scheme.layers}
        for node in self._pretrained.values():
            self._add(node)

    def _new_head(self) -> PrototypeHead:
        features = self.graph.tensors[self.graph.features]
        return PrototypeHead(self._classes, features.bytes, features.quantization.zero_point)

    def _add(self, node: Node) -> None:
        scales, units = node.constants["weight_scales"], bias_units(self.graph, node)
        zero = np.zeros(len(scales), np.int64)
        norm = bias_norm(self.graph, node)
        self.biases[node.name] = TrainedTensor(zero, -BIAS_MAX, BIAS_MAX, norm, 1 / units)
        channels = list(self.scheme.layers[node.name].channels)
        if channels:
            zero = np.zeros(node.constants["weights"][..., channels].shape, np.int64)
            norm, limit = weight_norm(node, channels), self._formats.rounding.limit
            self.weights[node.name] = TrainedTensor(zero, -limit, limit, norm, 1 / scales)

    def effective(self) -> Graph:
        """The graph with all deltas applied: weight = saturate(flash + round(delta))."""
        nodes = [self._effective(node) if node.name in self.scheme.layers else node for node in self.graph.nodes]
        return replace(self.graph, nodes=nodes)

    def _effective(self, node: Node) -> Node:
        constants = dict(node.constants)
        constants["bias"] = (node.constants["bias"] + self.biases[node.name].deltas).astype(np.int32)
        if node.name in self.weights:
            channels = list(self.scheme.layers[node.name].channels)
            w = node.constants["weights"].astype(np.int64)
            moved = shift_round(self.weights[node.name].deltas, self._formats.rounding.fraction_bits)
            w[..., channels] = np.clip(w[..., channels] + moved, -128, 127)
            constants |= {"weights": w.astype(np.int8), "pretrained": node.constants["weights"]}
        return replace(node, constants=constants)

    def features(self, x: Int8) -> Int8:
        graph = self.effective()
        return run_all(graph, x)[graph.features].reshape(-1)

    def enroll(self, x: Int8, label: int) -> None:
        self.head.enroll(self.features(x), label)

    def infer(self, x: Int8) -> tuple[int, int]:
        return self.head.classify(self.features(x))

    def step(self, x: Int8, label: int, options: TrainOptions, samples: int, random: SampleRandom) -> int:
        """One sample; returns its error, 1 - p[label] with 15 fraction bits."""
        graph = self.effective()
        values = run_all(graph, x)
        gradient, error = loss_gradient(self.head, values[graph.features].reshape(-1), label)
        shape = graph.tensors[graph.features].shape
        gradient = replace(gradient, mantissa=gradient.mantissa.reshape(shape))

        def learn(node: Node, weights: Any, bias: Any) -> Node:
            moves = MOVES[self._formats.gradients.name]
            biases = self.biases[node.name]
            biases.move(moves(biases, bias, options.rate, samples))
            if weights is not None:
                tensor = self.weights[node.name]
                whole = moves(tensor, weights, options.rate, samples)
                if self._formats.rounding is STOCHASTIC:
                    whole = round_stochastically(whole, random.layer(whole.shape))
                tensor.move(whole)
            return self._effective(self._pretrained[node.name])

        if self._formats.gradients is INT16:
            backward(graph, self.scheme, values, gradient, lambda node, found: learn(node, found.weights, found.bias))
        else:
            features = from_mantissas(gradient)
            float_backward(graph, self.scheme, values, features, lambda node, found: learn(node, *found), FLOAT32_RULES)
        return error

    def train(self, sample: Callable[[int, int], Int8], labels: Sequence[int], options: TrainOptions) -> list[float]:
        """sample(index, epoch) -> input; epoch CLEAN asks for the clean picture. Returns the mean error per epoch.

        Prototypes are recomputed from the clean pictures before each epoch and after the last.
        """
        errors = []
        for epoch in range(options.epochs):
            self.recompute_prototypes(sample, labels)
            total = 0
            left = np.float32(options.epochs - epoch)
            decayed = np.float32(np.float32(np.float32(options.rate) * left) / np.float32(options.epochs))
            now = replace(options, rate=float(decayed))
            for i in visiting_order(len(labels), epoch, options.seed):
                random = SampleRandom(options.seed, epoch, i)
                total += self.step(sample(i, epoch), labels[i], now, len(labels), random)
            errors.append(total / len(labels) / 2**15)
        self.recompute_prototypes(sample, labels)
        return errors

    def recompute_prototypes(self, sample: Callable[[int, int], Int8], labels: Sequence[int]) -> None:
        self.head = self._new_head()
        for i, label in enumerate(labels):
            self.enroll(sample(i, CLEAN), label)


def visiting_order(count: int, epoch: int, seed: int) -> list[int]:
    """All samples once, in an order of the epoch's own: i -> (start + i * stride) mod count, stride coprime."""
    state = (seed * 0x9E3779B1 + epoch * 0x85EBCA6B + 1) & 0xFFFFFFFF
    state ^= state >> 15
    start = state % count
    stride = 1 + (state >> 8) % count
    while math.gcd(stride, count) != 1:
        stride += 1
    return [(start + i * stride) % count for i in range(count)]


def scaled(value: np.float32, exponent: int) -> np.float32:
    """value * 2**exponent for value >= 0: 0 below the smallest normal float32, 2**127 above."""
    fraction, power = math.frexp(value)
    if fraction == 0 or power + exponent <= -126:
        return np.float32(0)
    return np.float32(2.0**127 if power + exponent > 127 else math.ldexp(value, exponent))


def root_of(mean: np.float32) -> np.float32:
    """Square root of a normal float32, to 23 bits and rounded down."""
    fraction, power = math.frexp(mean)
    e = power - 24
    odd = e & 1
    root = math.isqrt(int(fraction * 2**24) << (24 - odd))
    return scaled(np.float32(root), (e - 24 + odd) // 2)


def step_length(rate: float, samples: int, norm: np.float32, mean: np.float32) -> np.float32:
    """rate / samples * norm / sqrt(mean), float32 like the device; 0 below the smallest normal number."""
    if mean < 2.0**-126:
        return np.float32(0)
    per_sample = np.float32(np.float32(rate) / np.float32(samples))
    length = np.float32(np.float32(per_sample * norm) / root_of(mean))
    return length if length >= 2.0**-126 else np.float32(0)


def step_size(rate: float, samples: int, norm: np.float32, mean: np.float32) -> tuple[int, int]:
    """The same as fraction * 2**(exponent - STEP_BITS)."""
    length = step_length(rate, samples, norm, mean)
    if length == 0:
        return 0, 0
    fraction, exponent = math.frexp(length)
    return int(fraction * 2**STEP_BITS), exponent


def moves_of(tensor: TrainedTensor, gradient: ParameterGradient, rate: float, samples: int) -> NDArray[np.int64]:
    """What to subtract from a tensor's deltas for one sample's gradient, whose norm joins the running mean.

    Of weights in steps of 2**-DELTA_BITS, of biases in whole ones.
    """
    values = gradient.values
    norm_shift = max(0, gradient.bound.bit_length() - NORM_BITS)
    squares = int(((np.abs(values) >> norm_shift) ** 2).sum())
    fraction, exponent = step_size(rate, samples, tensor.norm, tensor.running.mean)
    factors = quantize_factors(tensor.inverse)
    multipliers = (fraction * factors.values.astype(np.int64)) >> FACTOR_BITS
    shift = STEP_BITS - exponent - gradient.exponent - factors.exponent
    tensor.running.update(scaled(np.float32(squares), 2 * (gradient.exponent + norm_shift)))
    if not 0 < shift < 63:
        return np.zeros(values.shape, np.int64)
    return shift_round(values * multipliers.reshape(-1, *[1] * (values.ndim - 1)), shift)


def float_moves_of(tensor: TrainedTensor, gradient: Floats, rate: float, samples: int) -> NDArray[np.int64]:
    """The same from a float32 gradient."""
    length = step_length(rate, samples, tensor.norm, tensor.running.mean)
    tensor.running.update(scaled(squared_norm(gradient), 0))
    return rounded_moves(gradient, length, tensor.inverse.astype(np.float32))


MOVES: dict[str, Callable[[TrainedTensor, Any, float, int], NDArray[np.int64]]] = {
    "int16": moves_of,
    "float32": float_moves_of,
}
