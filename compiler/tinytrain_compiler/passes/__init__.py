"""Rewrites of the quantised graph: one file each, valid graph in, valid graph out."""

from __future__ import annotations

from collections.abc import Callable

from ..graph import Graph, verify
from .fuse_clip import FuseClip

PIPELINE = (FuseClip(),)


def run_passes(graph: Graph, after: Callable[[str, Graph], None] = lambda name, graph: None) -> Graph:
    """Apply all passes in order; the graph is verified, and `after` is told, after each."""
    for step in PIPELINE:
        graph = step.apply(graph)
        verify(graph, after=step.name)
        after(step.name, graph)
    return graph
