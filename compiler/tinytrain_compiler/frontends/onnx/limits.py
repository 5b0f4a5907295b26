"""How large a model may be: far beyond every board, and small enough to be read and refused in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_NODES = 20_000
MAX_ELEMENTS = 1 << 25  # of one tensor: 32 MiB as int8
MAX_WEIGHTS = 1 << 26  # of all constants together
MAX_MACS = 1 << 35  # of one inference: more than a minute at 480 MHz


def elements(shape: Sequence[int]) -> int:
    """How many numbers a tensor of this shape holds; in Python's integers, which do not overflow."""
    return math.prod(shape)


def spelled(shape: Sequence[int]) -> str:
    """A shape as messages show it, however many dimensions it has."""
    return str(tuple(shape[:6])) if len(shape) <= 6 else f"{str(tuple(shape[:6]))[:-1]}, ...)"
