"""Boards as data: one TOML file each, read into frozen records.

Adding a board is adding a file. What differs between cores is asked by attribute (``dsp``, ``fpu``, ``mve``); the
compiler flags follow from core and attributes in one place, cores.py.
"""

from .cores import CORES, Core
from .model import Bank, Board, BootStage, Flashing, MemoryRegion, RegisterStep, Sectors, Uart
from .reader import list_boards, load_board

__all__ = [
    "CORES",
    "Bank",
    "Board",
    "BootStage",
    "Core",
    "Flashing",
    "MemoryRegion",
    "RegisterStep",
    "Sectors",
    "Uart",
    "list_boards",
    "load_board",
]
