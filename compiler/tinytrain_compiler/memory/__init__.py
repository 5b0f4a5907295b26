"""Lifetimes, offsets and regions: where every activation and scratch buffer lies in the arena."""

from .lifetimes import PURPOSES, Buffer, Extra, Purpose, Span, align, buffers_of, renamed
from .planner import MemoryPlan, Placement, plan_memory

__all__ = [
    "PURPOSES", "Buffer", "Extra", "MemoryPlan", "Placement", "Purpose", "Span", "align", "buffers_of", "plan_memory",
    "renamed",
]  # fmt: skip
