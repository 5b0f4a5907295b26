"""What a reader makes of a model file: all that the rest of the compiler knows of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph import Graph
from ..oracle import Oracle
from ..quantize.calibration import Calibration


@dataclass(frozen=True)
class ImportedModel:
    graph: Graph  # as the file has it; the compiler's own passes come later
    sha256: str  # of the file, and of its external data where it has some
    samples: Calibration  # in the layout and units of the model's input
    oracle: Oracle | None  # computes the same quantised model; None where no other program can
    top1_agreement: float | None  # int8 with float over the samples, 0 to 1; None where nothing was compared
    notes: tuple[str, ...] = ()  # what was changed silently and a user may want to know
