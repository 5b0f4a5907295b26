"""Offsets: best-fit placement under many orders, until the lower bound is met or the search ends.

Placing is greedy: buffers in some order, each at the lowest offset that clashes with none placed
before. The order decides. Several good orders are tried, then the best one is improved by seeded
random moves; networks of a hundred buffers reach the lower bound in well under a second.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..boards import Bank
from ..errors import DoesNotFitError
from ..runtime_abi import ALIGNMENT, MAX_REGIONS
from ..schedule import Schedule
from .lifetimes import Buffer, buffers_of, lower_bound

SEARCH_MOVES = 2000


@dataclass(frozen=True)
class Placement:
    """Where one buffer lies: offset in bytes from the start of a region."""

    buffer: Buffer
    region: int
    offset: int


@dataclass(frozen=True)
class MemoryPlan:
    """Every buffer's place. A region is memory the caller hands over, in one of the board's banks."""

    schedule: Schedule
    placements: tuple[Placement, ...]
    region_bytes: tuple[int, ...]
    region_banks: tuple[str, ...]
    lower_bound_bytes: int
    scratch: dict[str, Placement]  # by buffer name: all memory that holds no tensor
    tensors: dict[str, Placement]  # by tensor name

    @property
    def arena_bytes(self) -> int:
        return sum(self.region_bytes)


def plan_memory(schedule: Schedule, banks: Sequence[Bank], reserved_bytes: int, seed: int = 0) -> MemoryPlan:
    """Place all buffers, in one bank if they fit, else spread over several.

    reserved_bytes: what stack, session and static data take from
    the first bank. Where even all banks together are too small the plan still comes back, in one region
    of the largest bank's name, and the caller reports the misfit.
    """
    buffers = buffers_of(schedule)
    bound = lower_bound(buffers)
    free = [bank.bytes - (reserved_bytes if i == 0 else 0) for i, bank in enumerate(banks)]
    offsets = place(buffers, bound, seed)
    size = extent(buffers, offsets)
    fitting = [i for i in range(len(banks)) if size <= free[i]]
    largest = max(range(len(banks)), key=lambda i: free[i])
    if fitting or len(banks) == 1 or sum(free) < bound:
        bank = banks[fitting[0] if fitting else largest]
        return _plan(schedule, buffers, [0] * len(buffers), offsets, [bank.name], bound)
    return _spread(schedule, buffers, banks, free, bound, seed)


def _spread(
    schedule: Schedule, buffers: list[Buffer], banks: Sequence[Bank], free: list[int], bound: int, seed: int
) -> MemoryPlan:
    """Fill the banks in order of preference, small and short-lived buffers first: they are the busiest."""
    left = sorted(range(len(buffers)), key=lambda i: (buffers[i].bytes, i))
    region_of, offset_of = [0] * len(buffers), [0] * len(buffers)
    names: list[str] = []
    for bank, room in zip(banks, free, strict=True):
        taken: list[int] = []
        offsets: list[int] = []
        for i in left:
            trial = [buffers[j] for j in [*taken, i]]
            trial_offsets = place(trial, lower_bound(trial), seed, moves=0)
            if extent(trial, trial_offsets) <= room:
                taken, offsets = [*taken, i], trial_offsets
        if taken:
            for i, offset in zip(taken, offsets, strict=True):
                region_of[i], offset_of[i] = len(names), offset
            names.append(bank.name)
            left = [i for i in left if i not in set(taken)]
        if not left:
            return _plan(schedule, buffers, region_of, offset_of, names, bound)
        if len(names) == MAX_REGIONS:
            break
    biggest = buffers[left[-1]]
    raise DoesNotFitError(
        f"activations do not fit: {biggest.name} needs {biggest.bytes:,} bytes in one piece, and no memory bank "
        f"({', '.join(f'{b.name} {b.bytes:,}' for b in banks)}) has that left; use a smaller input or another board"
    )


def _plan(
    schedule: Schedule, buffers: list[Buffer], region_of: Sequence[int], offsets: Sequence[int], names: Sequence[str],
    bound: int,
) -> MemoryPlan:  # fmt: skip
    placements = tuple(Placement(b, r, o) for b, r, o in zip(buffers, region_of, offsets, strict=True))
    sizes = tuple(max(p.offset + p.buffer.bytes for p in placements if p.region == r) for r in range(len(names)))
    return MemoryPlan(
        schedule,
        placements,
        sizes,
        tuple(names),
        bound,
        scratch={p.buffer.name: p for p in placements if not p.buffer.tensors},
        tensors={name: p for p in placements for name in p.buffer.tensors},
    )


def extent(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max((offset + buffer.bytes for buffer, offset in zip(buffers, offsets, strict=True)), default=0)


def place(buffers: Sequence[Buffer], bound: int, seed: int, moves: int = SEARCH_MOVES) -> list[int]:
    """An offset for each buffer. Deterministic for a seed; stops early at the bound."""
    neighbours = [
        [j for j, other in enumerate(buffers) if j != i and other.meets(buffer)] for i, buffer in enumerate(buffers)
    ]
    indices = range(len(buffers))
    orders = [
        sorted(indices, key=lambda i: (-buffers[i].bytes, i)),
        sorted(indices, key=lambda i: (-buffers[i].bytes * (buffers[i].last - buffers[i].first + 1), i)),
        sorted(indices, key=lambda i: (buffers[i].first - buffers[i].last, -buffers[i].bytes, i)),
        sorted(indices, key=lambda i: (buffers[i].first, -buffers[i].bytes, i)),
    ]
    results = [
        (extent(buffers, offsets), order, offsets)
        for order in orders
        for offsets in [_greedy(buffers, neighbours, order)]
    ]
    best, order, offsets = min(results, key=lambda result: result[0])
    rng = random.Random(seed)
    for _ in range(moves):
        if best <= bound:
            break
        # Buffers that end at the top are in the way: let one of them, or a neighbour, be placed earlier.
        top = [i for i in indices if offsets[i] + buffers[i].bytes == best]
        chosen = rng.choice(top + neighbours[rng.choice(top)])
        trial = [i for i in order if i != chosen]
        trial.insert(rng.randrange(len(trial) + 1), chosen)
        trial_offsets = _greedy(buffers, neighbours, trial)
        size = extent(buffers, trial_offsets)
        if size <= best:
            best, order, offsets = size, trial, trial_offsets
    return offsets


def _greedy(buffers: Sequence[Buffer], neighbours: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Each buffer, in order, into the lowest gap that is large enough."""
    offsets = [-1] * len(buffers)
    for i in order:
        taken = sorted((offsets[j], offsets[j] + buffers[j].bytes) for j in neighbours[i] if offsets[j] >= 0)
        offset = 0
        for begin, end in taken:
            if offset + buffers[i].bytes <= begin:
                break
            offset = max(offset, end)
        offsets[i] = -(-offset // ALIGNMENT) * ALIGNMENT
    return offsets
