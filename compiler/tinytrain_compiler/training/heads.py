"""The heads by name: what classifies embeddings, and what of it trains. docs/reference/numerics.md, "Heads".

A new head is a class here and a place in HEADS, where command line, evaluation, reports and documentation read it; its
arithmetic is runtime_c/tt_<name>.[ch], tt_<name>_classify and tt_<name>_learning, and in NumPy reference/heads.py.
This module imports no NumPy: `--help` reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..errors import UsageError
from ..runtime_abi import RUNNING_BYTES


@dataclass(frozen=True)
class HeadKind(ABC):
    """What classifies. The docstring is the help line of the command and the row of the documentation."""

    name: ClassVar[str]
    score: ClassVar[str]  # what tt_result.score is
    recomputes: ClassVar[bool]  # prototypes are computed again before each epoch and after the last

    @abstractmethod
    def state_bytes(self, classes: int, features: int) -> int:
        """Of what it trains; 0 where it trains nothing. features: of the embedding."""

    @property
    def learns(self) -> bool:
        """Whether there is something to train where no layer trains."""
        return self.state_bytes(1, 1) > 0

    @classmethod
    def summary(cls) -> str:
        """The docstring as one line."""
        return " ".join((cls.__doc__ or "").split())


@dataclass(frozen=True)
class Prototype(HeadKind):
    """the class mean with the largest cosine"""

    name: ClassVar[str] = "prototype"
    score: ClassVar[str] = "the cosine"
    recomputes: ClassVar[bool] = True

    def state_bytes(self, classes: int, features: int) -> int:
        return 0


@dataclass(frozen=True)
class Linear(HeadKind):
    """a softmax layer: weights start as the class means' directions, and train"""

    name: ClassVar[str] = "linear"
    score: ClassVar[str] = "the probability"
    recomputes: ClassVar[bool] = False

    def state_bytes(self, classes: int, features: int) -> int:
        """A running mean, and an int16 delta for each weight and bias."""
        return RUNNING_BYTES + 2 * classes * (features + 1)


PROTOTYPE, LINEAR = Prototype(), Linear()
HEADS: dict[str, HeadKind] = {head.name: head for head in (PROTOTYPE, LINEAR)}


def head_kind(name: str) -> HeadKind:
    """The head of this name. Raises UsageError where there is none."""
    if name not in HEADS:
        raise UsageError(f"--head {name}: choose one of {', '.join(HEADS)}")
    return HEADS[name]
