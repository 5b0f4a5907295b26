"""What a model file says about its use, besides what it computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # (mean, std) of pixels, as --mean, --std
    labels: tuple[str, ...] | None = None  # names of the outputs
    notes: tuple[str, ...] = ()  # what of it is taken or left, for the user to know
