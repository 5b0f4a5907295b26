"""Cross-entropy over cosine similarities to prototypes, and its gradient, in integers.

P>M>F (Hu et al., CVPR 2022) and ProtoNet: logit = 10 cos(f, prototype), softmax, cross-entropy.
docs/reference/numerics.md, "Loss". A common positive factor of the gradient is left out: updates are normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np

from ..graph.gradient import MANTISSA_BITS, Gradient, shift_round
from ..ops import Int8
from .head import PrototypeHead, cosine, divide

SCALE = 10
ONE = 1 << 15  # probabilities and cosines
LOG2_E = 47274  # log2(e), 15 fraction bits
EXP2 = (32768, 22713, 7872, 1819, 315)  # 2**-x on [0, 1), 15 fraction bits: alternating polynomial


def exp_negative(d: int) -> int:
    """exp(-d / 2**15) with 15 fraction bits, d >= 0; within 2**-13."""
    t = (d * LOG2_E) >> 15
    whole, x = t >> 15, t & (ONE - 1)
    if whole > 15:
        return 0
    e = EXP2[4]
    for coefficient in reversed(EXP2[:4]):
        e = coefficient - ((x * e) >> 15)
    return e >> whole


def softmax(logits: Sequence[int]) -> list[int]:
    """Probabilities of logits, both with 15 fraction bits; truncated."""
    top = max(logits)
    e = [exp_negative(top - v) for v in logits]
    total = sum(e)
    return [(v << 15) // total for v in e]


class CosineHead(PrototypeHead):
    """A prototype head with its loss. It has no weights of its own: layers learn."""

    def loss(self, features: Int8, label: int) -> tuple[Gradient, int]:
        return loss_gradient(self, features, label)

    def learn(self, features: Int8, label: int, rate: float, samples: int) -> tuple[Gradient, int]:
        return self.loss(features, label)


def loss_gradient(head: PrototypeHead, features: Int8, label: int) -> tuple[Gradient, int]:
    """(dLoss/d(embedding) up to a constant factor, error): error = 1 - p[label], 15 fraction bits.

    With u_c = p_c / |p_c| and a_c = softmax_c - [c = label]:
    dLoss/df = (sum_c a_c u_c - (sum_c a_c cos_c) f / |f|) / |f|.
    """
    classes = [c for c, shots in enumerate(head.shots) if shots]
    f = features.astype(np.int64) - head.zero_point
    f_norm = isqrt(int((f * f).sum()) << 32)
    zero = Gradient(np.zeros(len(f), np.int16), 0)
    if f_norm == 0:
        return zero, ONE
    prototypes = [head.sums[c].astype(np.int64) - head.shots[c] * head.zero_point for c in classes]
    norms = [isqrt(int((p * p).sum()) << 14) for p in prototypes]
    cosines = [cosine(int((f * p).sum()), f_norm, n) for p, n in zip(prototypes, norms, strict=True)]
    probabilities = softmax([SCALE * c for c in cosines])
    total = np.zeros(len(f), np.int64)
    along = 0
    for c, p, norm, probability, similarity in zip(classes, prototypes, norms, probabilities, cosines, strict=True):
        a = probability - (ONE if c == label else 0)
        along += a * similarity
        if norm:
            total += divide(a << 31, norm) * p  # 15 + 24 fraction bits
    total -= divide((along >> 15) << 40, f_norm) * f
    values = (total >> 16) * ((1 << 46) // f_norm)
    magnitude = int(np.abs(values).max())
    shift = max(0, magnitude.bit_length() - MANTISSA_BITS)
    mantissa = np.clip(shift_round(values, shift), -ONE + 1, ONE - 1)
    error = ONE - (probabilities[classes.index(label)] if label in classes else 0)
    return Gradient(mantissa.astype(np.int16), shift - 53), error
