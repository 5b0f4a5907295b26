"""What a compile found out: JSON for machines, tables for people, and whether it fits the board."""

from .budget import FlashUse, SramUse, check_fit
from .build import build_report
from .policy_fit import plan_that_fits
from .terminal import print_report

__all__ = ["FlashUse", "SramUse", "build_report", "check_fit", "plan_that_fits", "print_report"]
