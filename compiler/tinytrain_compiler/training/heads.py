"""The heads by name: what classifies embeddings, and what of it learns. docs/numerics.md, "Heads".

A head in C is runtime_c/tt_<name>.[ch]: tt_<name>_classify and tt_<name>_learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import UsageError
from ..graph.gradient import Gradient
from ..ops import Int8
from .linear import LinearHead, linear_bytes
from .loss import CosineHead


class Head(Protocol):
    """One session's classes, and what the head has learnt about them."""

    shots: list[int]

    def enroll(self, features: Int8, label: int) -> None:
        """Add an embedding (features,) to a class."""

    def classify(self, features: Int8) -> tuple[int, int]:
        """(label, score); (-1, 0) while no class is enrolled."""

    def loss(self, features: Int8, label: int) -> tuple[Gradient, int]:
        """(dLoss/d(embedding) up to a constant factor, error): error = 1 - p[label], 15 fraction bits."""

    def learn(self, features: Int8, label: int, rate: float, samples: int) -> tuple[Gradient, int]:
        """The same, and a step of the head's own weights, if it has any."""


@dataclass(frozen=True)
class HeadKind:
    name: str
    make: Callable[[int, int, int], Head]  # classes, features, zero point of the embedding
    state_bytes: Callable[[int, int], int]  # classes, features -> bytes of what it learns
    recomputes: bool  # class means are computed again before each epoch and after the last

    @property
    def learns(self) -> bool:
        """Whether there is something to train where no layer learns."""
        return self.state_bytes(1, 1) > 0


PROTOTYPE = HeadKind("prototype", CosineHead, lambda classes, features: 0, recomputes=True)
LINEAR = HeadKind("linear", LinearHead, linear_bytes, recomputes=False)
HEADS = {kind.name: kind for kind in (PROTOTYPE, LINEAR)}


def head_kind(name: str) -> HeadKind:
    """The head of this name. Raises UsageError where there is none."""
    if name not in HEADS:
        raise UsageError(f"--head {name}: choose one of {', '.join(HEADS)}")
    return HEADS[name]
