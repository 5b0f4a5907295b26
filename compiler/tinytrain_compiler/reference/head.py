"""The prototype head: class means and cosine similarity in integers (docs/reference/numerics.md, "Prototype head").

Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, with cosine in place of
Euclidean distance. A class's mean is never divided out: the cosine does not depend on length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ..ops import Int8
from ..runtime_abi import MAX_SHOTS, SCORE_BITS


@dataclass
class PrototypeHead:
    """Sums of the embeddings (features,) of each class, as the C session keeps them."""

    classes: int
    features: int
    zero_point: int
    sums: NDArray[np.int16] = field(init=False)
    shots: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.classes, self.features), np.int16)
        self.shots = [0] * self.classes

    def enroll(self, features: Int8, label: int) -> None:
        if self.shots[label] >= MAX_SHOTS:
            raise OverflowError(f"class {label} already has {MAX_SHOTS} examples")
        self.sums[label] += features.astype(np.int16)
        self.shots[label] += 1

    def classify(self, features: Int8) -> tuple[int, int]:
        """(label, score): the most similar class and its cosine, with SCORE_BITS fraction bits.

        Ties go to the lower label; (-1, 0) while no class is enrolled.
        """
        f = [int(v) - self.zero_point for v in features]
        f_norm = isqrt(sum(v * v for v in f) << 32)
        best = (-1, 0)
        for label, shots in enumerate(self.shots):
            if not shots:
                continue
            p = [int(v) - shots * self.zero_point for v in self.sums[label]]
            p_norm = isqrt(sum(v * v for v in p) << 14)
            score = cosine(sum(a * b for a, b in zip(f, p, strict=True)), f_norm, p_norm)
            if best[0] < 0 or score > best[1]:
                best = (label, score)
        return best


def cosine(dot: int, f_norm: int, p_norm: int) -> int:
    """dot / (|f| |p|); f_norm has 16 fraction bits, p_norm 7. Divisions truncate toward zero, as in C."""
    if f_norm == 0 or p_norm == 0:
        return 0
    along = divide(dot << 23, p_norm)  # projection on p, 16 fraction bits
    return divide(along << SCORE_BITS, f_norm)


def divide(a: int, b: int) -> int:
    """a / b truncated toward zero, as C divides; b > 0."""
    return a // b if a >= 0 else -(-a // b)
