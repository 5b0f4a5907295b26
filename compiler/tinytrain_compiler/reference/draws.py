"""Seeded random numbers in 32-bit integers: the same on every machine, NumPy version and microcontroller.

xorshift32: Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003, the (13, 17, 5) triple.
Seeds are mixed with the 32-bit finaliser of MurmurHash3, so that neighbouring seeds share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: keeps mix(0, 0, ...) away from 0


def mix(*values: int) -> int:
    """One 32-bit seed of any number of integers; their order matters. Negative ones count modulo 2^32."""
    state = 0
    for value in values:
        state = (state ^ (value & _MASK)) + _GOLDEN & _MASK
        state = (state ^ state >> 16) * 0x85EBCA6B & _MASK
        state = (state ^ state >> 13) * 0xC2B2AE35 & _MASK
        state ^= state >> 16
    return state


class Draws:
    """A stream of draws. Seed 0, which xorshift never leaves, stands for 2^32 / golden ratio."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK or _GOLDEN

    def next(self) -> int:
        """1 .. 2^32 - 1"""
        x = self._state
        x ^= x << 13 & _MASK
        x ^= x >> 17
        x ^= x << 5 & _MASK
        self._state = x
        return x

    def below(self, limit: int) -> int:
        """0 .. limit - 1 for a limit of at most 2^32: the high word of a 32 x 32 bit product."""
        return self.next() * limit >> 32

    def between(self, low: int, high: int) -> int:
        """low .. high, both included."""
        return low + self.below(high - low + 1)

    def choose(self, items: Sequence[T], count: int) -> list[T]:
        """`count` of the items, each at most once, in the order they were drawn (Fisher-Yates, stopped early)."""
        pool = list(items)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]
