"""Training as the device does it, in NumPy: the oracle of the generated C.

Per sample: forward, loss, backward, update, in that order; nothing is accumulated over samples, so the
only memory that learning keeps is the deltas and two floats a layer. Steps are normalised per tensor:

    delta w = -(rate E / sqrt(N)) |w| g / sqrt(v)

with g the sample's gradient, v the mean of |g|^2 over all samples before it, |w| the pretrained tensor's
norm, E the first epoch's mean error and N the number of support samples: where all is wrong, an epoch of gradients
that are uncorrelated moves a tensor by rate |w|. As errors shrink, gradients fall below their own history and
steps shrink with them.
docs/reference/numerics.md, "Updates".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import FACTOR_BITS, Gradient, quantize_factors, shift_round
from ..ops import Int8, weights_of
from ..ops.weight_rule import ParameterGradient
from ..ops.weighted import bias_limit
from ..runtime_abi import CLEAN
from ..training.formats import INT16, STOCHASTIC
from ..training.norms import bias_norm, bias_units, weight_norm
from ..training.options import DEFAULT, LearningOptions
from ..training.scheme import Scheme
from ..training.selection import Budget, candidates_of
from ..training.selectors import L2, RANDOM
from ..training.visits import SelectOptions, TrainOptions, measured_samples, visiting_order
from .backward import backward
from .draws import Draws, mix
from .executor import run_all
from .float32 import FLOAT32 as FLOAT32_RULES
from .float32 import from_mantissas, rounded_moves, squared_norm
from .float_backward import float_backward
from .heads import Head, new_head
from .selection import (
    Observe,
    choose,
    clamp_scores,
    fisher_observer,
    l2_scores,
    layer_scores,
    random_scores,
    redrawn,
    selected_norm,
)
from .steps import STEP_BITS, Floats, Running, scaled, step_length, step_size
from .stochastic import SampleRandom, round_stochastically

NORM_BITS = 23  # accumulators are shifted to this many bits before they are squared


@dataclass
class TrainedTensor:
    """What one tensor, weights of the selected channels or biases, needs to learn."""

    deltas: NDArray[np.int64]  # weights (outputs of a group, KH, KW, selected), biases (O,)
    low: int
    high: int
    norm: np.float32  # |w| over the unit of a delta at scale 1
    inverse: NDArray[np.float64]  # 1 / s_w[o] (times 1 / s_x for biases), (O,) of all the layer's outputs
    outputs: NDArray[np.intp]  # which of them each delta belongs to, broadcast against deltas
    running: Running = field(default_factory=Running)
    saturated: int = 0

    def move(self, moves: NDArray[np.int64]) -> None:
        """deltas -= moves, saturating; what does not fit is counted."""
        moved = self.deltas - moves
        self.saturated += int(((moved < self.low) | (moved > self.high)).sum())
        self.deltas = np.clip(moved, self.low, self.high)


class ReferenceTrainer:
    """One session: a graph, a scheme, deltas, a head."""

    def __init__(self, graph: Graph, scheme: Scheme, classes: int, options: LearningOptions = DEFAULT) -> None:
        self.graph, self._classes, self._kind, self._formats = graph, classes, options.head, options.formats
        self._candidates = candidates_of(graph, scheme, options.formats.rounding.delta_bytes)
        self._candidate_scheme = scheme  # with candidates, before the device has chosen
        self._pretrained = {node.name: node for node in graph.nodes if node.name in scheme.layers}
        self.unlearn()

    def unlearn(self, channels: Mapping[str, Sequence[int]] | None = None) -> None:
        """Back to the pretrained network, without classes; channels: of each candidate, none where not given."""
        self.head = self._new_head()
        self.weights: dict[str, TrainedTensor] = {}
        self.biases: dict[str, TrainedTensor] = {}
        self.scheme = self._candidate_scheme.selected(
            dict.fromkeys(self._candidate_scheme.candidates, ()) | dict(channels or {})
        )
        self._kept: NDArray[np.float32] | None = None  # scores by which channels are drawn anew in each epoch
        for node in self._pretrained.values():
            self._add(node)

    def _new_head(self) -> Head:
        features = self.graph.tensors[self.graph.features]
        return new_head(self._kind, self._classes, features.bytes, features.quantization.zero_point)

    def _add(self, node: Node) -> None:
        units = bias_units(self.graph, node)
        zero = np.zeros(len(units), np.int64)
        norm = bias_norm(self.graph, node)
        limit = bias_limit(node, self.graph.tensors)
        self.biases[node.name] = TrainedTensor(zero, -limit, limit, norm, 1 / units, np.arange(len(units)))
        channels = list(self.scheme.layers[node.name].channels)
        if channels:
            self.weights[node.name] = self._factory_weights(node, channels)

    def _factory_weights(self, node: Node, channels: Sequence[int]) -> TrainedTensor:
        """These input channels' weights, without deltas."""
        layout, limit = weights_of(node).layout(node), self._formats.rounding.limit
        zero = np.zeros((layout.outputs, *layout.kernel, len(channels)), np.int64)
        norm = (selected_norm if node.name in self._candidate_scheme.candidates else weight_norm)(node, channels)
        inverse, outputs = 1 / node.constants["weight_scales"], layout.outputs_of(channels)
        return TrainedTensor(zero, -limit, limit, norm, inverse, outputs)

    def effective(self) -> Graph:
        """The graph with all deltas applied: weight = saturate(flash + round(delta))."""
        nodes = [self._effective(node) if node.name in self.scheme.layers else node for node in self.graph.nodes]
        return replace(self.graph, nodes=nodes)

    def _effective(self, node: Node) -> Node:
        constants = dict(node.constants)
        constants["bias"] = (node.constants["bias"] + self.biases[node.name].deltas).astype(np.int32)
        if self._candidate_scheme.layers[node.name].limit:
            constants["pretrained"] = node.constants["weights"]  # gradients leave room for growth in any case
        if node.name in self.weights:
            channels, layout = self.scheme.layers[node.name].channels, weights_of(node).layout(node)
            pretrained = node.constants["weights"]
            moved = shift_round(self.weights[node.name].deltas, self._formats.rounding.fraction_bits)
            chosen = np.clip(layout.select(pretrained, channels) + moved, -128, 127)
            weights = layout.replaced(pretrained, channels, chosen.astype(np.int8))
            constants |= {"weights": weights, "pretrained": pretrained}
        return replace(node, constants=constants)

    def features(self, x: Int8) -> Int8:
        graph = self.effective()
        return run_all(graph, x)[graph.features].reshape(-1)

    def enroll(self, x: Int8, label: int) -> None:
        self.head.enroll(self.features(x), label)

    def infer(self, x: Int8) -> tuple[int, int]:
        return self.head.classify(self.features(x))

    def select(
        self, sample: Callable[[int, int], Int8], labels: Sequence[int], options: SelectOptions, budget: Budget
    ) -> NDArray[np.float32]:
        """Reset the training state, choose the candidates' channels for these samples; returns the table of scores."""
        self.unlearn()
        scores = np.zeros(sum(c.channels for c in self._candidates), np.float32)
        if options.selector == RANDOM:
            scores = random_scores(len(scores), options.seed)
        elif options.selector == L2:
            scores = np.concatenate([l2_scores(c.node) for c in self._candidates])
        else:
            self.recompute_prototypes(sample, labels)
            for index in measured_samples(options.samples, len(labels)):
                self._add_fisher(scores, sample(index, 0), labels[index])
        ranking = [np.float32(-i) for i in range(len(self._candidates))]  # as the compiler listed them
        if options.selector.ranks_layers:
            ranking = layer_scores(self.graph, self._candidates, scores)
        head = self.head
        self.unlearn(choose(self._candidates, scores, ranking, budget))
        self.head = head
        self._kept = clamp_scores(scores) if options.selector.redraws else None
        return scores

    def _redraw(self, seed: int, epoch: int) -> None:
        """Other channels of the candidates, as many as before; those that stay keep their deltas."""
        if self._kept is None:
            return
        draws = Draws(mix(seed, epoch))
        channels = {}
        for c in self._candidates:
            before = self.scheme.layers[c.node.name].channels
            channels[c.node.name] = redrawn(before, self._kept[c.first : c.first + c.channels], draws)
            if before:
                old, new = self.weights[c.node.name], self._factory_weights(c.node, channels[c.node.name])
                new.deltas = np.where(np.equal(channels[c.node.name], before), old.deltas, 0)
                new.running, new.saturated = old.running, old.saturated
                self.weights[c.node.name] = new
        self.scheme = self._candidate_scheme.selected(channels)

    def _add_fisher(self, scores: NDArray[np.float32], x: Int8, label: int) -> None:
        graph = self.effective()
        values = run_all(graph, x)
        gradient, _ = self.head.loss(values[self.graph.features].reshape(-1), label)
        shape = self.graph.tensors[self.graph.features].shape
        gradient = replace(gradient, mantissa=gradient.mantissa.reshape(shape))
        observe = fisher_observer(self.graph, self._candidates, scores, values, self._formats.gradients.name)
        self._backward(graph, self._candidate_scheme, values, gradient, observe=observe)

    def step(self, x: Int8, label: int, options: TrainOptions, samples: int, random: SampleRandom) -> int:
        """One sample; returns its error, 1 - p[label] with 15 fraction bits."""
        graph = self.effective()
        values = run_all(graph, x)
        gradient, error = self.head.learn(values[graph.features].reshape(-1), label, options.rate, samples)
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

        self._backward(graph, self.scheme, values, gradient, learn)
        return error

    def _backward(
        self, graph: Graph, scheme: Scheme, values: Mapping[str, Int8], features: Gradient,
        learn: Callable[[Node, Any, Any], Node] = lambda node, weights, bias: node, observe: Observe | None = None,
    ) -> None:  # fmt: skip
        """The backward pass in the session's format. learn: told each layer's gradients of weights and biases."""
        if self._formats.gradients is INT16:
            backward(graph, scheme, values, features, lambda node, g: learn(node, g.weights, g.bias), observe)
        else:
            real = from_mantissas(features)
            float_backward(graph, scheme, values, real, lambda node, g: learn(node, *g), observe, FLOAT32_RULES)

    def train(self, sample: Callable[[int, int], Int8], labels: Sequence[int], options: TrainOptions) -> list[float]:
        """sample(index, epoch) -> input; epoch CLEAN asks for the clean image. Returns the mean error per epoch.

        Prototypes are computed from the clean images first, and by heads that recompute them before each
        further epoch and after the last.
        """
        errors = []
        initial = 0  # mean error of the first epoch, while it runs of its samples so far: steps are in proportion
        self.recompute_prototypes(sample, labels)
        for epoch in range(options.epochs):
            if epoch:
                self._redraw(options.seed, epoch)
            if epoch and self._kind.recomputes:
                self.recompute_prototypes(sample, labels)
            total = 0
            left = np.float32(options.epochs - epoch)
            decayed = np.float32(np.float32(np.float32(options.rate) * left) / np.float32(options.epochs))
            for done, i in enumerate(visiting_order(len(labels), epoch, options.seed)):
                now = replace(options, rate=float(decayed * np.float32(initial / 2**15)))
                random = SampleRandom(options.seed, epoch, i)
                total += self.step(sample(i, epoch), labels[i], now, len(labels), random)
                initial = total // (done + 1) if epoch == 0 else initial
            errors.append(total / len(labels) / 2**15)
        if self._kind.recomputes:
            self.recompute_prototypes(sample, labels)
        return errors

    def recompute_prototypes(self, sample: Callable[[int, int], Int8], labels: Sequence[int]) -> None:
        self.head = self._new_head()
        for i, label in enumerate(labels):
            self.enroll(sample(i, CLEAN), label)


def moves_of(tensor: TrainedTensor, gradient: ParameterGradient, rate: float, samples: int) -> NDArray[np.int64]:
    """What to subtract from a tensor's deltas for one sample's gradient, whose norm joins the running mean.

    Of weights in steps of 2**-8, of biases in whole ones.
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
    return shift_round(values * multipliers[tensor.outputs], shift)


def float_moves_of(tensor: TrainedTensor, gradient: Floats, rate: float, samples: int) -> NDArray[np.int64]:
    """The same from a float32 gradient."""
    length = step_length(rate, samples, tensor.norm, tensor.running.mean)
    tensor.running.update(scaled(squared_norm(gradient), 0))
    return rounded_moves(gradient, length, tensor.inverse.astype(np.float32)[tensor.outputs])


MOVES: dict[str, Callable[[TrainedTensor, Any, float, int], NDArray[np.int64]]] = {
    "int16": moves_of,
    "float32": float_moves_of,
}
