"""Random numbers of stochastic rounding: xorshift32, seeded by what is rounded (numerics.md, "Rounding")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..training.formats import NEAREST

U32 = NDArray[np.uint32]
MASK = 0xFFFFFFFF


def xorshift(state: U32) -> U32:
    """The next state, which is also the number drawn."""
    state = state ^ (state << np.uint32(13))
    state = state ^ (state >> np.uint32(17))
    return state ^ (state << np.uint32(5))


def random_state(number: U32) -> U32:
    """A state made of any number; never 0."""
    number = (number ^ (number >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    number = (number ^ (number >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    number = number ^ (number >> np.uint32(16))
    return np.where(number == 0, np.uint32(1), number)


class SampleRandom:
    """The numbers of one sample in one epoch."""

    def __init__(self, seed: int, epoch: int, sample: int) -> None:
        number = (seed * 0x9E3779B1 + epoch * 0x85EBCA6B + sample * 0xC2B2AE35) & MASK
        self._state = random_state(np.array([number], np.uint32))

    def layer(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """0 .. 255 for each weight (O, ...) of the next layer; every row of one output and tap has its own sequence."""
        self._state = xorshift(self._state)
        rows, count = int(np.prod(shape[:-1])), shape[-1]
        state = random_state(self._state + np.arange(rows, dtype=np.uint32) * np.uint32(0x9E3779B1))
        drawn = np.empty((count, rows), np.uint32)
        for i in range(count):
            drawn[i] = state = xorshift(state)
        return (drawn.T >> np.uint32(24)).astype(np.int64).reshape(shape)


def round_stochastically(moves: NDArray[np.int64], random: NDArray[np.int64]) -> NDArray[np.int64]:
    """Moves in steps of a Q8.8 delta to whole ones: floor(move / 256 + u), u = random / 256; right on average."""
    return (moves + random) >> NEAREST.fraction_bits
