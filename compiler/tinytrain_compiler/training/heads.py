"""The heads by name: what classifies embeddings, and what of it learns. docs/numerics.md, "Heads".

A head in C is runtime_c/tt_<name>.[ch]: tt_<name>_classify and tt_<name>_learning. In NumPy: reference/heads.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UsageError
from ..runtime_abi import RUNNING_BYTES


@dataclass(frozen=True)
class HeadKind:
    name: str
    state_bytes: Callable[[int, int], int]  # classes, features -> bytes of what it learns
    recomputes: bool  # class means are computed again before each epoch and after the last

    @property
    def learns(self) -> bool:
        """Whether there is something to train where no layer learns."""
        return self.state_bytes(1, 1) > 0


def linear_bytes(classes: int, features: int) -> int:
    """A running mean, and an int16 delta for each weight and bias."""
    return RUNNING_BYTES + 2 * classes * (features + 1)


PROTOTYPE = HeadKind("prototype", lambda classes, features: 0, recomputes=True)
LINEAR = HeadKind("linear", linear_bytes, recomputes=False)
HEADS = {kind.name: kind for kind in (PROTOTYPE, LINEAR)}


def head_kind(name: str) -> HeadKind:
    """The head of this name. Raises UsageError where there is none."""
    if name not in HEADS:
        raise UsageError(f"--head {name}: choose one of {', '.join(HEADS)}")
    return HEADS[name]
