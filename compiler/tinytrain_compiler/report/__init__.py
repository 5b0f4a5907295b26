"""What a compile found out: JSON for machines, tables for people."""

from .build import build_report
from .terminal import print_report

__all__ = ["build_report", "print_report"]
