"""What a policy is: a frozen dataclass whose fields are its options, and whose docstring says what it trains.

The docstring is the help line of the command and the row of the documentation: it must be one sentence without a
full stop. This module and training/policies.py import no NumPy: `--help` reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .scheme import Layer, Scheme
from .selectors import Choice

if TYPE_CHECKING:
    from ..graph import Graph


@dataclass(frozen=True)
class Policy(ABC):
    """What trains on the device."""

    name: ClassVar[str]
    rate: ClassVar[float]  # learning rate where the caller leaves it open: docs/guide/training.md, "Rates"
    trains_layers: ClassVar[bool] = True  # otherwise at most the head is trained

    def prepare(self, graph: Graph) -> Graph:
        """The graph that this policy trains: the same, unless it adds layers of its own. It adds them only once: a
        compiled folder holds the prepared graph."""
        return graph

    @abstractmethod
    def scheme(self, layers: Sequence[Layer]) -> Scheme:
        """Which of these layers train, in execution order and all in front of the embedding; at least one of them.

        Errors: UsageError for options that do not go with them.
        """

    def choice(self) -> Choice:
        """How the device chooses among the candidates of the scheme, if it has any."""
        return Choice()

    @classmethod
    def summary(cls) -> str:
        """The docstring as one line."""
        return " ".join((cls.__doc__ or "").split())
