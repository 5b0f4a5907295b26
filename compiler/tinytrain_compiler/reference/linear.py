"""The linear head: softmax over weights that start as the classes' mean directions and learn.

numerics.md, "Linear head". With p a class's mean, f an embedding and L the mean length of all class means:

    logit = 10 ((p / |p| + delta) . f + 128 bias) / L

so that before any training it is the cosine classifier up to the embedding's length. One step moves all deltas by
the rule of trained layers, with the square root of the number of classes as the length of the pretrained tensor.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ..graph.gradient import MANTISSA_BITS, MANTISSA_MAX, Gradient, shift_round
from ..ops import Int8
from .head import PrototypeHead, divide
from .loss import ONE, SCALE, softmax
from .steps import STEP_BITS, Running, scaled, step_size

CONSTANT = 128  # what the bias is multiplied by, in steps of the embedding
HEAD_RATE_MULTIPLIER = 8  # learning rate of the head over that of layers: docs/studies/2026-11-21-linear-head.md
LOGIT_MAX = 2**30 - 1
DELTA_MAX = 2**15 - 1


class LinearHead(PrototypeHead):
    """Class means as in the prototype head, and deltas (classes, features + 1), the bias last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.deltas: NDArray[np.int64] = np.zeros((self.classes, self.features + 1), np.int64)
        self.delta_bits = 12 + (self.features.bit_length() + 1) // 2
        self.running = Running()
        self.saturated = 0

    @property
    def enrolled(self) -> list[int]:
        return [c for c, shots in enumerate(self.shots) if shots]

    @property
    def trained(self) -> list[int]:
        """Enrolled classes whose weights a training has moved."""
        return [c for c in self.enrolled if self.deltas[c].any()]

    def classify(self, features: Int8) -> tuple[int, int]:
        """(label, probability): the class with the largest logit, the lower label on a tie; Q15.

        Where classes were added after a training, class means decide whether it is one of these, as before any
        training; if it is not, the trained weights decide among the others.
        """
        trained = self.trained
        if not trained or trained == self.enrolled:
            return self._answer(self.enrolled, self.logits(features))
        label, probability = self._answer(self.enrolled, self.logits(features, deltas=False))
        if label not in trained:
            return label, probability
        logits = dict(zip(self.enrolled, self.logits(features), strict=True))
        return self._answer(trained, [logits[c] for c in trained])

    @staticmethod
    def _answer(classes: list[int], logits: list[int]) -> tuple[int, int]:
        if not classes:
            return -1, 0
        best = int(np.argmax(logits))
        return classes[best], softmax(logits)[best]

    def logits(self, features: Int8, deltas: bool = True) -> list[int]:
        """Of the enrolled classes, 15 fraction bits. deltas: False for those before any training."""
        x = self._inputs(features)
        lengths = [isqrt(int((p * p).sum()) << 14) for p in map(self._sum, self.enrolled)]
        if not lengths:
            return []
        unit = sum((n << 9) // self.shots[c] for c, n in zip(self.enrolled, lengths, strict=True)) // len(lengths)
        found = []
        for c, length in zip(self.enrolled, lengths, strict=True):
            along = divide(int((x[:-1] * self._sum(c)).sum()) << 23, length) if length else 0
            along += (int((x * self.deltas[c]).sum()) << 16) >> self.delta_bits if deltas else 0
            logit = divide(along * SCALE * ONE, unit) if unit else 0
            found.append(max(-LOGIT_MAX, min(LOGIT_MAX, logit)))
        return found

    def learn(self, features: Int8, label: int, rate: float, samples: int) -> tuple[Gradient, int]:
        """A step of the deltas, after the gradient with respect to the embedding was taken with the old ones."""
        x, enrolled, a = self._inputs(features), self.enrolled, self._errors(features, label)
        found = self.loss(features, label)
        squares = sum(v * v for v in a.values()) * (int((x * x).sum()) >> 8)
        norm = np.float32(isqrt(len(enrolled) << 32)) * np.float32(HEAD_RATE_MULTIPLIER * 2.0 ** (self.delta_bits - 16))
        fraction, exponent = step_size(rate, samples, norm, self.running.mean)
        shift = STEP_BITS - exponent
        if 0 < shift < 63:
            for c in enrolled:
                moved = self.deltas[c] - ((a[c] * x * fraction + (1 << (shift - 1))) >> shift)
                self.saturated += int((np.abs(moved) > DELTA_MAX).sum())
                self.deltas[c] = np.clip(moved, -DELTA_MAX, DELTA_MAX)
        self.running.update(scaled(np.float32(squares), 8))
        return found

    def loss(self, features: Int8, label: int) -> tuple[Gradient, int]:
        a = self._errors(features, label)
        return self._gradient(a), -a[label] if label in a else ONE

    def _errors(self, features: Int8, label: int) -> dict[int, int]:
        """Of each enrolled class, p - [it is the label]: 15 fraction bits."""
        probabilities = softmax(self.logits(features))
        return {c: p - (ONE if c == label else 0) for c, p in zip(self.enrolled, probabilities, strict=True)}

    def _gradient(self, a: dict[int, int]) -> Gradient:
        """sum_c a[c] W[c] of the weights without biases; a has 15 fraction bits."""
        values = np.zeros(self.features, np.int64)  # 39 fraction bits
        for c, error in a.items():
            p = self._sum(c)
            length = isqrt(int((p * p).sum()) << 14)
            values += (divide(error << 31, length) if length else 0) * p
            values += error * self.deltas[c, :-1] * (1 << (24 - self.delta_bits))
        shift = max(0, int(np.abs(values).max(initial=0)).bit_length() - MANTISSA_BITS)
        mantissa = np.clip(shift_round(values, shift), -MANTISSA_MAX, MANTISSA_MAX)
        return Gradient(mantissa.astype(np.int16), shift - 39)

    def _inputs(self, features: Int8) -> NDArray[np.int64]:
        """(features + 1,): what the weights and the bias of each class are multiplied by."""
        return np.append(features.astype(np.int64) - self.zero_point, CONSTANT)

    def _sum(self, label: int) -> NDArray[np.int64]:
        """The class's mean times its number of examples."""
        centred: NDArray[np.int64] = self.sums[label].astype(np.int64) - self.shots[label] * self.zero_point
        return centred
