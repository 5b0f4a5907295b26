"""Lifetimes, offsets and regions: where every activation and buffer of a schedule lies in the arena."""

from .lifetimes import Buffer, Span, buffers_of, lower_bound
from .planner import MemoryPlan, Placement, plan_memory
from .slots import NoSlots, Slots, plan_slots

__all__ = [
    "Buffer", "MemoryPlan", "NoSlots", "Placement", "Slots", "Span", "buffers_of", "lower_bound", "plan_memory",
    "plan_slots",
]  # fmt: skip
