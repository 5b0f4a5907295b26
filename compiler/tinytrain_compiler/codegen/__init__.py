"""Quantised graph and memory plan -> C sources. Same input, same bytes."""

from .emit import emit_sources
from .kernels import KernelTable, kernel_table

__all__ = ["KernelTable", "emit_sources", "kernel_table"]
