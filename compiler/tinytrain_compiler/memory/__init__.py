"""Lifetimes, offsets and regions: where every activation and scratch buffer lies in the arena."""

from .lifetimes import Buffer, Extra, Span, align, buffers_of, renamed
from .planner import MemoryPlan, Placement, plan_memory

__all__ = ["Buffer", "Extra", "MemoryPlan", "Placement", "Span", "align", "buffers_of", "plan_memory", "renamed"]
