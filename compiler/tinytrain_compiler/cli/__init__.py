"""The command line, one file a command."""

from .program import compile_main, main

__all__ = ["compile_main", "main"]
