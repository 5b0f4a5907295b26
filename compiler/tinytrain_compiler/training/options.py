"""How a model learns, whatever its scheme: what classifies, in which numbers, what the device chooses and how much."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..runtime_abi import SELECTORS
from .formats import DEFAULT as DEFAULT_FORMATS
from .formats import Formats
from .heads import PROTOTYPE, HeadKind
from .policies import DEFAULT_RATE, rate_of
from .pool import DEFAULT_POOL
from .selection import UNLIMITED


@dataclass(frozen=True)
class LearningOptions:
    """pool, selector and macs are of models whose device chooses what learns."""

    head: HeadKind = PROTOTYPE
    formats: Formats = DEFAULT_FORMATS
    pool: int = DEFAULT_POOL  # bytes for everything that is learnt
    selector: str = SELECTORS[0]
    macs: int = UNLIMITED  # of weight gradients in one step
    rate: float = DEFAULT_RATE  # where the caller leaves it open

    @property
    def selection_options(self) -> str:
        """What of pool, selector and macs is not the default, as options of the command."""
        pool = f" --pool {self.pool // 1024}" if self.pool != DEFAULT_POOL else ""
        selection = f" --selection {self.selector}" if self.selector != SELECTORS[0] else ""
        return pool + selection + (f" --macs {self.macs}" if self.macs != UNLIMITED else "")


DEFAULT = LearningOptions()


def learning_options(
    policy: str, head: HeadKind, formats: Formats, pool: int | None, selection: str | None, macs: int | None
) -> LearningOptions:
    """The options of a policy. pool (bytes), selection, macs: None where they were not given.

    Errors: UsageError for an unknown policy or selector, and for options that this policy does not have.
    """
    for option, value in {"pool": pool, "selection": selection, "macs": macs}.items():
        if value is not None and policy != "tinytrain":
            raise UsageError(f"--{option} belongs to --policy tinytrain, not to {policy}")
    if selection is not None and selection not in SELECTORS:
        raise UsageError(f"--selection {selection}: choose one of {', '.join(SELECTORS)}")
    if macs is not None and not 0 < macs <= UNLIMITED:
        raise UsageError(f"--macs {macs}: give a number from 1 to {UNLIMITED}")
    return LearningOptions(
        head,
        formats,
        DEFAULT_POOL if pool is None else pool,
        SELECTORS[0] if selection is None else selection,
        UNLIMITED if macs is None else macs,
        rate_of(policy),
    )
