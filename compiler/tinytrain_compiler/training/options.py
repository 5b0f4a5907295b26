"""How a model learns, whatever its scheme: what classifies, in which numbers, how much the device may choose."""

from __future__ import annotations

from dataclasses import dataclass

from .formats import DEFAULT as DEFAULT_FORMATS
from .formats import Formats
from .heads import PROTOTYPE, HeadKind
from .pool import DEFAULT_POOL


@dataclass(frozen=True)
class LearningOptions:
    head: HeadKind = PROTOTYPE
    formats: Formats = DEFAULT_FORMATS
    pool: int = DEFAULT_POOL  # bytes for everything that is learnt, where the device chooses it


DEFAULT = LearningOptions()
