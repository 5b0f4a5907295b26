"""Where the arena's bytes go: by purpose, when most are live, and at each purpose's own worst moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..memory import Buffer
from ..schedule import PURPOSES, Purpose


@dataclass(frozen=True)
class PurposeUse:
    """Bytes by purpose. Buffers share bytes over time, so only one moment's can be added up."""

    moment: int  # with the most live bytes
    at_peak: dict[Purpose, int]  # live then; they add up to the plan's lower bound
    largest: dict[Purpose, int]  # most bytes of a purpose at once, whenever that is
    live: dict[str, int]  # buffers live then, largest first


def purpose_use(buffers: Sequence[Buffer]) -> PurposeUse:
    moments = range(max(buffer.last for buffer in buffers) + 1)
    live_at = [dict.fromkeys(PURPOSES, 0) for _ in moments]
    for buffer in buffers:
        for moment in range(buffer.first, buffer.last + 1):
            live_at[moment][buffer.purpose] += buffer.bytes_at(moment)
    peak = max(moments, key=lambda moment: sum(live_at[moment].values()))
    live = sorted(((b.name, b.bytes_at(peak)) for b in buffers), key=lambda item: -item[1])
    return PurposeUse(
        peak,
        live_at[peak],
        {purpose: max(at[purpose] for at in live_at) for purpose in PURPOSES},
        {name: size for name, size in live if size},
    )
