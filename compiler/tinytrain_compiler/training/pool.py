"""The training pool: one buffer for the whole training state of a model that chooses on the device.

First what does not depend on the choice: biases, running means, one tt_selected a candidate, and the head's weights.
The rest is handed out once a task, lists of channels first, then deltas. While the choice is being made nothing is
trained yet, and the pool lends itself to the candidates' inputs and to the table of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TooLittleError
from ..graph import Graph
from ..schedule import align
from .options import LearningOptions
from .scheme import MULTIPLE, Scheme
from .selection import LIST_BYTES, Budget, Candidate, candidates_of
from .selectors import UNLIMITED, Selector

DEFAULT_LIMIT = 64 * 1024  # of a pool whose size is left open, where the model can do with that
TRAINING_STATE = "training state"  # of all layers, the head and the selection: live always
SAVED = "saved inputs of selected channels"  # of candidates, handed out with the selection


@dataclass(frozen=True)
class FisherInput:
    """Where a candidate's whole input waits for the Fisher pass of its group."""

    group: int
    buffer: str  # SAVED, or TRAINING_STATE, whose pool holds no deltas yet
    offset: int


@dataclass(frozen=True)
class SelectionPlan:
    """The training pool, and how the Fisher pass borrows it. Offsets are inside the training state."""

    candidates: list[Candidate]
    pool_bytes: int  # of all
    usable_bytes: int  # of a pool that all candidates together could use
    pool_offset: int  # lists and deltas from here on, handed out once a task
    table_offset: int  # scores; where the pool ends while channels are being chosen
    saved_bytes: int
    inputs: dict[str, FisherInput]  # by node
    groups: int  # passes over the samples

    def budget(self, selector: Selector, macs: int = UNLIMITED) -> Budget:
        """Lists may not reach the scores they are made from; deltas come after, and may, unless the scores are kept."""
        end = self.table_offset if selector.redraws else self.pool_bytes
        return Budget(end - self.pool_offset, self.saved_bytes, macs)


@dataclass(frozen=True)
class PoolSizes:
    """Bytes of a training pool's parts, and of pools that hold so much or so little."""

    candidates: Sequence[Candidate]
    start: int  # biases, running means, tt_selected and the head
    selector: Selector

    @property
    def table(self) -> int:
        """Scores of all channels."""
        return 4 * sum(c.channels for c in self.candidates)

    @property
    def lists(self) -> int:
        return sum(align(LIST_BYTES * c.limit) for c in self.candidates)

    @property
    def saved(self) -> int:
        """Of the buffer beside the pool for inputs of chosen channels."""
        return sum(align(c.saved_bytes * c.limit) for c in self.candidates)

    @property
    def choosing(self) -> int:
        """A pool with nothing but lists and scores."""
        return self.start + self.lists + self.table

    @property
    def smallest(self) -> int:
        """In which the Fisher pass of each candidate and the four cheapest channels of one have their place."""
        largest = max((size for size in map(input_bytes, self.candidates) if size > self.saved), default=0)
        return align(max(self.choosing + largest, self._holding(min(map(four_channels, self.candidates)))))

    @property
    def usable(self) -> int:
        """In which all candidates have as many channels as they may, and all their inputs wait for one Fisher pass."""
        chosen = sum(c.limit * (LIST_BYTES + c.delta_bytes) for c in self.candidates)
        return align(max(self.smallest, self._holding(chosen), self._one_pass()))

    def _one_pass(self) -> int:
        beside = pooled = 0
        for size in map(input_bytes, self.candidates):
            if beside + size <= self.saved:
                beside += size
            else:
                pooled += size
        return self.choosing + pooled

    def _holding(self, chosen: int) -> int:
        """A pool with so many bytes of lists and deltas."""
        return max(self.choosing, self.start + chosen + (self.table if self.selector.redraws else 0))


def input_bytes(candidate: Candidate) -> int:
    """Of a candidate's whole input."""
    return align(candidate.pixels * candidate.channels)


def four_channels(candidate: Candidate) -> int:
    """Bytes of the least that can be chosen of a candidate."""
    return MULTIPLE * (LIST_BYTES + candidate.delta_bytes)


def plan_pool(graph: Graph, scheme: Scheme, start: int, options: LearningOptions) -> SelectionPlan:
    """Lay the pool out, and place the inputs that the Fisher pass needs in it and beside it.

    start: bytes of biases, running means, tt_selected and the head, which come first. The pool is as large as
    options.pool says, but not larger than anything can use; where that is left open, at most DEFAULT_LIMIT.
    Errors: DoesNotFitError for a pool that is too small, or MACs too few.
    """
    candidates = candidates_of(graph, scheme, options.formats.rounding.delta_bytes)
    sizes = PoolSizes(candidates, start, options.selector)
    if options.pool is None:
        pool = max(sizes.smallest, min(DEFAULT_LIMIT, sizes.usable))
    else:
        pool = min(options.pool, sizes.usable)
    check_pool(sizes, pool)
    check_macs(sizes, pool, options.macs)
    inputs, groups = _fisher_inputs(sizes, pool)
    return SelectionPlan(candidates, pool, sizes.usable, start, pool - sizes.table, sizes.saved, inputs, groups)


def _fisher_inputs(sizes: PoolSizes, pool: int) -> tuple[dict[str, FisherInput], int]:
    """(place of each candidate's input by node, passes), filled one pass after the other."""
    free = {SAVED: sizes.saved, TRAINING_STATE: pool - sizes.choosing}
    begin = {SAVED: 0, TRAINING_STATE: sizes.start + sizes.lists}
    used = dict.fromkeys(free, 0)
    inputs: dict[str, FisherInput] = {}
    group = 0
    for c in sizes.candidates:
        size = input_bytes(c)
        buffer = next((name for name in free if used[name] + size <= free[name]), None)
        if buffer is None:
            group, used = group + 1, dict.fromkeys(free, 0)
            buffer = next(name for name in free if size <= free[name])
        inputs[c.node.name] = FisherInput(group, buffer, begin[buffer] + used[buffer])
        used[buffer] += size
    return inputs, group + 1


def check_pool(sizes: PoolSizes, pool: int) -> None:
    """DoesNotFitError for a pool in which a candidate's Fisher pass, or four channels of any, have no place."""
    if pool < sizes.smallest:
        least = -(-sizes.smallest // 1024)
        raise TooLittleError(
            f"the training pool of {pool:,} bytes is too small: biases and running means take {sizes.start:,}, scores "
            f"and lists of channels {sizes.table + sizes.lists:,}, and either {MULTIPLE} channels' weights or the "
            f"largest input of a candidate the rest of {sizes.smallest:,}",
            "pool", least,
        )  # fmt: skip


def check_macs(sizes: PoolSizes, pool: int, macs: int) -> None:
    """DoesNotFitError where not even the cheapest channels that the pool holds can be chosen."""
    kept = sizes.table if sizes.selector.redraws else 0
    fitting = [c for c in sizes.candidates if four_channels(c) <= pool - sizes.start - kept]
    least = min(MULTIPLE * c.macs for c in fitting)
    if macs < least:
        raise TooLittleError(
            f"--macs {macs} is too small: no {MULTIPLE} channels' weight gradients take less than {least:,} "
            "multiply-accumulates a step",
            "macs", least,
        )  # fmt: skip


def selected_channels(report: Mapping[str, Any], state: bytes) -> dict[str, list[int]]:
    """Candidate -> the input channels that a device chose. report: report.json's; state: the training state."""
    found = {}
    for candidate in report["training"]["selection"]["candidates"]:
        channels, _, _, chosen, _ = np.frombuffer(state, "<u4", 5, candidate["selected_offset"])
        found[candidate["name"]] = np.frombuffer(state, "<u2", int(chosen), int(channels)).tolist()
    return found
