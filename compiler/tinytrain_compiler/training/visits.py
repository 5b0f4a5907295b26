"""What a call of training or selection asks for, and which samples it then visits, in which order.

The device does it in C; the NumPy trainer and the harness of the emulated boards do it alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..runtime_abi import FISHER_SAMPLES
from .policies import DEFAULT_RATE
from .selectors import FISHER, Selector


@dataclass(frozen=True)
class SelectOptions:
    selector: Selector = FISHER
    samples: int = FISHER_SAMPLES  # that Fisher information is measured on, at most
    seed: int = 1  # of the random selector


@dataclass(frozen=True)
class TrainOptions:
    epochs: int = 40
    rate: float = DEFAULT_RATE
    seed: int = 1


def measured_samples(most: int, count: int) -> list[int]:
    """Which samples of a support set a Fisher pass looks at: evenly spaced, at most `most`."""
    measured = min(most, count)
    return [i * count // measured for i in range(measured)]


def visiting_order(count: int, epoch: int, seed: int) -> list[int]:
    """All samples once, in an order of the epoch's own: i -> (start + i * stride) mod count, stride coprime."""
    state = (seed * 0x9E3779B1 + epoch * 0x85EBCA6B + 1) & 0xFFFFFFFF
    state ^= state >> 15
    start = state % count
    stride = 1 + (state >> 8) % count
    while math.gcd(stride, count) != 1:
        stride += 1
    return [(start + i * stride) % count for i in range(count)]
