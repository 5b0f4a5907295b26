"""Lifetimes, offsets and regions: where every activation and scratch buffer lies in the arena."""

from .lifetimes import PURPOSES, Buffer, Extra, Purpose, Span, align, buffers_of, renamed
from .planner import MemoryPlan, Placement, plan_memory
from .slots import NoSlots, Slots, plan_slots

__all__ = [
    "PURPOSES", "Buffer", "Extra", "MemoryPlan", "NoSlots", "Placement", "Purpose", "Slots", "Span", "align",
    "buffers_of", "plan_memory", "plan_slots", "renamed",
]  # fmt: skip
