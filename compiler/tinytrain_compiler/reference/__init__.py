"""The arithmetic of the generated C in NumPy, inference and training: the oracle of every test."""

from .executor import run, run_all
from .head import PrototypeHead

__all__ = ["PrototypeHead", "run", "run_all"]
