"""The training pool: one buffer for all that the device learns where it chooses what to learn.

First what does not depend on the choice: biases, running means, one tt_selected a candidate, and what the head learns.
The rest is handed out once a task, lists of channels first, then deltas. While the choice is being made nothing is
learnt yet, and the pool lends itself to the candidates' inputs and to the table of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DoesNotFitError
from ..graph import Graph
from ..memory.lifetimes import align
from .scheme import Scheme
from .selection import LIST_BYTES, MULTIPLE, RESAMPLE, UNLIMITED, Budget, Candidate, candidates_of

DEFAULT_POOL = 64 * 1024
LEARNT = "learnt"  # deltas and running means of all layers, the head's, and what was selected: live always
SAVED = "saved inputs of selected channels"  # of candidates, handed out with the selection


@dataclass(frozen=True)
class FisherInput:
    """Where a candidate's whole input waits for the Fisher pass of its group."""

    group: int
    buffer: str  # SAVED, or LEARNT, whose pool holds no deltas yet
    offset: int


@dataclass(frozen=True)
class SelectionPlan:
    """The training pool, and how the Fisher pass borrows it. Offsets are inside the `learnt` buffer."""

    candidates: list[Candidate]
    pool_offset: int  # lists and deltas from here on, handed out once a task
    table_offset: int  # scores; where the pool ends while channels are being chosen
    saved_bytes: int
    inputs: dict[str, FisherInput]  # by node
    groups: int  # passes over the samples

    def budget(self, learnt_bytes: int, selector: str, macs: int = UNLIMITED) -> Budget:
        """Lists may not reach the scores they are made from; deltas come after, and may, unless the scores are kept."""
        end = self.table_offset if selector == RESAMPLE else learnt_bytes
        return Budget(end - self.pool_offset, self.saved_bytes, macs)


def plan_pool(graph: Graph, scheme: Scheme, start: int, pool: int, delta_bytes: int) -> SelectionPlan:
    """Lay the pool out, and place the inputs that the Fisher pass needs in it and beside it.

    start: bytes of biases, running means, tt_selected and the head, which come first. pool: bytes of all.
    delta_bytes: of a weight.
    Errors: DoesNotFitError for a pool that is too small.
    """
    candidates = candidates_of(graph, scheme, delta_bytes)
    table = 4 * sum(c.channels for c in candidates)
    lists = sum(align(LIST_BYTES * c.limit) for c in candidates)
    saved = sum(align(c.saved_bytes * c.limit) for c in candidates)
    largest = max(c.pixels * c.channels for c in candidates)
    least = start + lists + table + max(0, largest - saved)
    if pool < least:
        raise DoesNotFitError(
            f"the training pool of {pool:,} bytes is too small: biases and running means take {start:,}, scores and "
            f"lists of channels {table + lists:,}; give --pool {-(-least // 1024)} or more, or a smaller --scheme"
        )
    room = {SAVED: saved, LEARNT: pool - table - start - lists}
    used = dict.fromkeys(room, 0)
    inputs: dict[str, FisherInput] = {}
    group = 0
    for c in candidates:
        size = align(c.pixels * c.channels)
        buffer = next((name for name in room if used[name] + size <= room[name]), None)
        if buffer is None:
            group, used = group + 1, dict.fromkeys(room, 0)
            buffer = next(name for name in room if size <= room[name])
        inputs[c.node.name] = FisherInput(group, buffer, used[buffer] + (start + lists if buffer == LEARNT else 0))
        used[buffer] += size
    return SelectionPlan(candidates, start, pool - table, saved, inputs, group + 1)


def check_budget(candidates: Sequence[Candidate], budget: Budget, pool: int) -> None:
    """DoesNotFitError where not even the cheapest channels can be chosen. pool: bytes of all that is learnt."""
    fitting = [c for c in candidates if MULTIPLE * (LIST_BYTES + c.delta_bytes) <= budget.pool]
    if not fitting:
        missing = MULTIPLE * (LIST_BYTES + min(c.delta_bytes for c in candidates)) - budget.pool
        raise DoesNotFitError(
            f"the training pool of {pool:,} bytes is too small: it leaves {budget.pool:,} for chosen channels, "
            f"and {MULTIPLE} of them take {missing:,} more; give --pool {-(-(pool + missing) // 1024)} or more"
        )
    least = min(MULTIPLE * c.macs for c in fitting)
    if budget.macs < least:
        raise DoesNotFitError(
            f"--macs {budget.macs} is too small: no {MULTIPLE} channels' weight gradients take less than {least:,} "
            f"multiply-accumulates a step; give --macs {least} or more"
        )


def selected_channels(report: Mapping[str, Any], learnt: bytes) -> dict[str, list[int]]:
    """Candidate -> the input channels that a device chose. report: report.json's; learnt: what is learnt, as bytes."""
    found = {}
    for candidate in report["training"]["selection"]["candidates"]:
        channels, _, _, chosen, _ = np.frombuffer(learnt, "<u4", 5, candidate["selected_offset"])
        found[candidate["name"]] = np.frombuffer(learnt, "<u2", int(chosen), int(channels)).tolist()
    return found
