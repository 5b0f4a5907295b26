"""A .tflite file becomes an ImportedModel: translated to ONNX, and from there on the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from ...errors import UsageError, listed
from ...graph.outline import LayerOutline
from ...quantize.calibration import CalibrationData
from ..imported import ImportedModel
from ..onnx.file import LoadedModel, prepared, read_bytes
from ..onnx.reader import Progress, import_loaded
from . import operators  # noqa: F401  (registers them)
from .file import Model, parse
from .translator import Translator


def read_tflite(
    path: Path, calibration: CalibrationData, progress: Progress, check: Callable[[Sequence[LayerOutline]], None]
) -> ImportedModel:
    """See frontends.read."""
    progress("reading the model")
    return import_loaded(load_tflite(path), calibration, progress, check)


def load_tflite(path: Path) -> LoadedModel:
    """The ONNX model that a .tflite file is translated to, and what is to be said of it.

    Raises UsageError for a file that is damaged or whose inputs and outputs the compiler cannot work with,
    UnsupportedModelError naming every operator that has no translation.
    """
    path = Path(path)
    data = read_bytes(path, "tflite")
    notes: set[str] = set()

    def translate() -> onnx.ModelProto:
        model = parse(data)
        _check_ends(model)
        translator = Translator(model)
        proto = translator.run()
        notes.update(translator.notes)
        return proto

    loaded = prepared(path, translate, hashlib.sha256(data))
    return replace(loaded, notes=(*loaded.notes, *sorted(notes)))


def _check_ends(model: Model) -> None:
    for role, ends in (("input", model.inputs), ("output", model.outputs)):
        if len(ends) != 1:
            names = listed(model.tensors[i].name for i in ends) if ends else "none"
            raise UsageError(
                f"it has {len(ends)} {role}s ({names}), exactly one is supported; convert a Keras model with one"
            )
    if not model.operators:
        raise UsageError("it holds no operators, so there is nothing to compile; export it again")
