"""Lifetimes, offsets and regions: where every activation and scratch buffer lies in the arena."""

from .lifetimes import Buffer, Span, buffers_of
from .planner import MemoryPlan, Placement, plan_memory

__all__ = ["Buffer", "MemoryPlan", "Placement", "Span", "buffers_of", "plan_memory"]
