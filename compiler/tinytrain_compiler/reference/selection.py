"""How the device selects input channels of the candidates, in NumPy: the oracle of runtime_c/tt_select.c.

TinyTrain (Kwon et al., ICML 2024, section 3.2). One backward pass over a few samples of the task gives every
candidate's input channel its Fisher information, `Delta_c = 1/(2N) sum_n (sum_pixels a g)^2`, with g the
gradient that this layer passes to the channel's activation a. Layers are visited in the order of a score and take
channels, the largest Delta first and in multiples of four, until a budget is used up. numerics.md, "Selection".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph, Node
from ..graph.gradient import FACTOR_BITS, Factors, Gradient, quantize_factors
from ..ops import Int8, weights_of
from ..ops.arrays import ordered_sum
from ..ops.backward import parameter_shift, prepare
from ..training.scheme import MULTIPLE
from ..training.selection import LIST_BYTES, Budget, Candidate, layer_cost
from .draws import Draws, mix
from .steps import scaled

Float32 = NDArray[np.float32]


def add_fisher(scores: Float32, x: Int8, zero_point: int, gradient: Gradient) -> None:
    """Add one sample's squared sums to the scores of a layer's input channels.

    scores: float32 (C,). x: int8 (H, W, C). gradient: dLoss/dx through this layer, mantissas (H, W, C).
    """
    pixels = x.size // len(scores)
    shift = parameter_shift(gradient, pixels, 255)
    products = prepare(gradient, shift) * (x.astype(np.int64) - zero_point)
    sums = np.abs(products.reshape(pixels, -1).sum(0))
    for c, value in enumerate(sums):
        square = scaled(np.float32(value) * np.float32(value), 2 * (gradient.exponent + shift))
        scores[c] = np.float32(scores[c] + square)


def add_float_fisher(scores: Float32, x: Int8, zero_point: int, gradient: Float32) -> None:
    """The same from a float32 gradient (H, W, C)."""
    products = gradient * (x.astype(np.float32) - np.float32(zero_point))
    for c, total in enumerate(ordered_sum(products.reshape(-1, len(scores)).T)):
        scores[c] = np.float32(scores[c] + scaled(np.float32(total * total), 0))


def squares_of(node: Node) -> NDArray[np.int64]:
    """For each input channel the sum of its squared pretrained weights, each output's scaled by s_w[o]^2.

    int64 (C,), in units of 2^(14 + 2 e), e the exponent of the scales as factors.
    """
    factors: Factors = quantize_factors(node.constants["weight_scales"])
    layout = weights_of(node).layout(node)
    w = layout.by_group(node.constants["weights"].astype(np.int64))
    scale = ((factors.values.astype(np.int64) ** 2) >> 14).reshape(layout.groups, layout.outputs, 1)
    found: NDArray[np.int64] = ((w * w).sum((2, 3)) * scale).sum(1).reshape(-1)
    return found


def selected_norm(node: Node, channels: Sequence[int]) -> np.float32:
    """|w| of the selected channels' pretrained weights in units of a delta at scale 1: as training/norms.py's
    weight_norm, in the device's arithmetic."""
    total = int(squares_of(node)[list(channels)].sum())
    exponent = quantize_factors(node.constants["weight_scales"]).exponent
    return scaled(np.float32(isqrt(total)), 7 + 8 - FACTOR_BITS + exponent)  # 7: half of squares_of's 14, 8: a delta's


def l2_scores(node: Node) -> Float32:
    """Squared norm of each input channel's weights, up to a factor of the layer."""
    return squares_of(node).astype(np.float32)


def random_scores(count: int, seed: int) -> Float32:
    """Seeded draws: float32 (count,) of 24 random bits each."""
    draws = Draws(mix(seed))
    return np.array([draws.next() >> 8 for _ in range(count)], np.float32)


def top_channels(scores: Float32, count: int) -> tuple[int, ...]:
    """The `count` channels with the largest scores, ascending; of equals the lower number."""
    order = np.argsort(-scores, kind="stable")[:count]
    return tuple(sorted(int(c) for c in order))


def clamp_scores(scores: Float32) -> Float32:
    """Scores clamped to what channels can be drawn by: neither 0 nor so large that their sum overflows."""
    return np.clip(scores, np.float32(2.0**-100), np.float32(2.0**100))


def redrawn(channels: Sequence[int], scores: Float32, draws: Draws) -> tuple[int, ...]:
    """As many channels of a layer, drawn one after the other in proportion to their scores among those that are left.

    Channels that stay keep their places; those that enter take, in ascending order, the places of those that leave.
    """
    left = scores.copy()
    for _ in channels:
        passed = np.add.accumulate(left, dtype=np.float32)
        point = passed[-1] * np.float32((draws.next() >> 8) * 2.0**-24)
        left[np.argmax(passed > point)] = 0
    drawn = {int(c) for c in np.flatnonzero(left == 0)}
    entering = iter(sorted(drawn - set(channels)))
    return tuple(c if c in drawn else next(entering) for c in channels)


def choose(
    candidates: Sequence[Candidate], scores: Float32, ranking: Sequence[np.float32], budget: Budget
) -> dict[str, tuple[int, ...]]:
    """Channels of every candidate, empty where nothing was left. ranking: one score a candidate, larger first."""
    left = [budget.pool, budget.saved, budget.macs]
    chosen: dict[str, tuple[int, ...]] = {}
    for i in sorted(range(len(candidates)), key=lambda i: -ranking[i]):
        c = candidates[i]
        costs = (LIST_BYTES + c.delta_bytes, c.saved_bytes, c.macs)
        count = min(c.limit, *(have // cost for have, cost in zip(left, costs, strict=True))) // MULTIPLE * MULTIPLE
        left = [have - count * cost for have, cost in zip(left, costs, strict=True)]
        chosen[c.node.name] = top_channels(scores[c.first : c.first + c.channels], count)
    return chosen


def layer_scores(graph: Graph, candidates: Sequence[Candidate], scores: Float32) -> list[np.float32]:
    """The paper's s_i = P_i / (|W_i| M_i), P_i the sum of the layer's Delta, up to a common factor."""
    found = []
    for c in candidates:
        total = np.float32(0)
        for value in scores[c.first : c.first + c.channels]:
            total = np.float32(total + value)
        found.append(np.float32(total * layer_cost(graph, c)))
    return found


Observe = Callable[[Node, Any], None]  # told what a candidate passes to its input
ADD_FISHER: Mapping[str, Callable[[Float32, Int8, int, Any], None]] = {  # by gradient format
    "int16": add_fisher, "float32": add_float_fisher,
}  # fmt: skip


def fisher_observer(
    graph: Graph, candidates: Sequence[Candidate], scores: Float32, values: Mapping[str, Int8], gradients: str
) -> Observe:
    """For the backward passes: adds what each candidate passes to its input to the table of scores."""
    by_name = {c.node.name: c for c in candidates}

    def observe(node: Node, gradient: Any) -> None:
        c = by_name.get(node.name)
        if c is not None:
            tensor = graph.tensors[node.inputs[0]]
            x = values[node.inputs[0]]
            ADD_FISHER[gradients](scores[c.first : c.first + c.channels], x, tensor.quantization.zero_point, gradient)

    return observe
