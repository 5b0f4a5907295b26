"""How a model learns, whatever its scheme: what classifies, and how much the device may choose."""

from __future__ import annotations

from dataclasses import dataclass

from .heads import PROTOTYPE, HeadKind
from .pool import DEFAULT_POOL


@dataclass(frozen=True)
class LearningOptions:
    head: HeadKind = PROTOTYPE
    pool: int = DEFAULT_POOL  # bytes for everything that is learnt, where the device chooses it


DEFAULT = LearningOptions()
