"""From a model file to the compiler's graph: the boundary that every file format stays behind.

A format is a folder with a reader: `onnx/`, and `tflite/`, which translates a file to ONNX. What leaves a reader is an
ImportedModel; nothing after it knows what the file was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..graph.outline import LayerOutline
from ..oracle import Oracle
from ..quantize.calibration import CalibrationData
from .description import Description
from .imported import ImportedModel

__all__ = ["Description", "ImportedModel", "describe", "float_outputs", "open_oracle", "read"]

TFLITE = ".tflite"


def read(
    path: Path,
    calibration: CalibrationData,
    progress: Callable[[str], None] = lambda stage: None,
    check: Callable[[Sequence[LayerOutline]], None] = lambda layers: None,
) -> ImportedModel:
    """Read a model file. calibration: where the samples come from that a float model is quantised on.

    progress is told each stage as it begins; check sees the layers' shapes before calibration, which takes long, and
    raises where they need not be read any further. Errors: UsageError for a file or data that the compiler cannot work
    with, UnsupportedModelError naming every node that it cannot compile.
    """
    if path.suffix.lower() == TFLITE:
        from .tflite.reader import read_tflite

        return read_tflite(path, calibration, progress, check)
    from .onnx.reader import read_onnx  # onnx and onnxruntime take a second to import

    return read_onnx(path, calibration, progress, check)


def describe(path: Path) -> Description:
    """What a model file says about its use; nothing where the format has no place for it. Errors: as read."""
    if path.suffix.lower() != TFLITE:
        return Description()
    from .onnx.file import read_bytes
    from .tflite import metadata

    return metadata.describe(read_bytes(path, "tflite"))


def open_oracle(directory: Path, name: str) -> Oracle | None:
    """The oracle that a compiled folder carries for the model `name`; None where its format has none."""
    from .onnx.oracle import SUFFIX, OnnxOracle

    path = directory / f"{name}{SUFFIX}"
    return OnnxOracle.from_file(path) if path.exists() else None


def float_outputs(path: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A float model's outputs (n, elements) for samples (n, C, H, W) or (n, F). Errors: as read."""
    from .onnx.file import load_model
    from .onnx.reader import float_outputs_of
    from .tflite.reader import load_tflite

    return float_outputs_of((load_tflite if path.suffix.lower() == TFLITE else load_model)(path), samples)
