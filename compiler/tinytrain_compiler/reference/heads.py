"""The heads in NumPy, by the names of training/heads.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..graph.gradient import Gradient
from ..ops import Int8
from ..training.heads import LINEAR, PROTOTYPE, HeadKind
from .linear import LinearHead
from .loss import CosineHead


class Head(Protocol):
    """One session's classes, and what the head keeps of them."""

    shots: list[int]

    def enroll(self, features: Int8, label: int) -> None:
        """Add an embedding (features,) to a class."""

    def classify(self, features: Int8) -> tuple[int, int]:
        """(label, score); (-1, 0) while no class is enrolled."""

    def loss(self, features: Int8, label: int) -> tuple[Gradient, int]:
        """(dLoss/d(embedding) up to a constant factor, error): error = 1 - p[label], 15 fraction bits."""

    def learn(self, features: Int8, label: int, rate: float, samples: int) -> tuple[Gradient, int]:
        """The same, and a step of the head's own weights, if it has any."""


_HEADS: dict[str, Callable[[int, int, int], Head]] = {PROTOTYPE.name: CosineHead, LINEAR.name: LinearHead}


def new_head(kind: HeadKind, classes: int, features: int, zero_point: int) -> Head:
    """A head of this kind without examples. zero_point: of the embedding, (features,)."""
    return _HEADS[kind.name](classes, features, zero_point)
