"""Another program that computes the same quantised model, and how far the compiler's graph is from it."""

from .agreement import STEPS, OperatorDistances, check_agreement, distances, operator_distances
from .oracle import Oracle

__all__ = [
    "STEPS",
    "OperatorDistances",
    "Oracle",
    "check_agreement",
    "distances",
    "operator_distances",
]
