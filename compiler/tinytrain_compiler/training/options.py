"""How a model trains, whatever its scheme: what classifies, in which numbers, what the device chooses and how much."""

from __future__ import annotations

from dataclasses import dataclass

from .formats import DEFAULT as DEFAULT_FORMATS
from .formats import Formats
from .heads import PROTOTYPE, HeadKind
from .policies import DEFAULT_RATE
from .policy import Policy
from .selectors import FISHER, UNLIMITED, Selector


@dataclass(frozen=True)
class LearningOptions:
    """pool, selector and macs are of models whose device chooses what it trains."""

    head: HeadKind = PROTOTYPE
    formats: Formats = DEFAULT_FORMATS
    pool: int | None = None  # bytes for all of the training state; None: training/pool.py, default_pool
    selector: Selector = FISHER
    macs: int = UNLIMITED  # of weight gradients in one step
    rate: float = DEFAULT_RATE  # where the caller leaves it open


DEFAULT = LearningOptions()


def learning_options(policy: Policy, head: HeadKind, formats: Formats) -> LearningOptions:
    """The options of a policy with this head in these formats."""
    choice = policy.choice()
    return LearningOptions(head, formats, choice.pool, choice.selector, choice.macs, policy.rate)
