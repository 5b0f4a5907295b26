"""What a compile found out: JSON for machines, tables for people, and whether it fits the board."""

from .budget import FlashUse, SramUse, check_fit
from .build import build_report
from .terminal import print_report

__all__ = ["FlashUse", "SramUse", "build_report", "check_fit", "print_report"]
