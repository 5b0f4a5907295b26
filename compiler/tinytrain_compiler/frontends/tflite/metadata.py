"""TFLite Model Metadata: how pixels are normalised and what the outputs are called.

It describes the network and computes nothing, so what is damaged or does not fit the network is left out with a note.
Nobody checks it before it is published: everything read from it is bounded.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib

import numpy as np

from ...errors import UsageError, shown
from ..description import Description
from .file import Model, parse
from .flatbuffer import Table

_IDENTIFIER = b"M001"
_MOST = 64  # tables of one kind that are looked at
_LABEL_BYTES = 1 << 20  # of a label file
_NAME_CHARACTERS = 64
_NORMALIZATION, _AXIS_LABELS = 1, 2  # numbers of a process unit's kind and of an associated file's
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, EOFError, ValueError, KeyError)


class _Fields:
    """Numbers of the tables' fields."""

    SUBGRAPHS = 3  # of the model
    INPUTS, OUTPUTS = 2, 3  # of a subgraph
    PROCESS_UNITS, FILES = 4, 6  # of a tensor
    KIND, OPTIONS = 0, 1  # of a process unit
    MEAN, STD = 0, 1  # of a normalisation
    FILE_NAME, FILE_TYPE = 0, 2  # of an associated file


def describe(data: bytes) -> Description:
    """What the metadata of a .tflite file says; nothing where it has none, or the file cannot be read."""
    try:
        model = parse(data)
    except UsageError:
        return Description()  # the reader says why
    if model.metadata is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        return Description()
    try:
        tensors = _ends(model.metadata)
        units, files = tensors[0].tables(_Fields.PROCESS_UNITS, _MOST, "units"), _label_files(tensors[1])
        found, notes = _normalization(units, model)
    except UsageError:
        return Description(notes=("the file's metadata is damaged and was not used",))
    labels, note = _labels(data, files, model) if files else (None, None)
    return Description(found, labels, (*notes, *([] if note is None else [note])))


def _ends(metadata: bytes) -> tuple[Table, Table]:
    """The tables of the input and the output."""
    if metadata[4:8] != _IDENTIFIER:
        raise UsageError("it is no metadata")
    graphs = Table.root(metadata).tables(_Fields.SUBGRAPHS, _MOST, "subgraphs")
    empty = Table(struct.pack("<HHi", 4, 4, 4), 4)
    ends = [
        next(iter(graphs[0].tables(field, _MOST, "tensors")), empty) if graphs else empty
        for field in (_Fields.INPUTS, _Fields.OUTPUTS)
    ]
    return ends[0], ends[1]


def _normalization(
    units: list[Table], model: Model
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]] | None, list[str]]:
    options = next((u.table(_Fields.OPTIONS) for u in units if u.number(_Fields.KIND, "uint8") == _NORMALIZATION), None)
    if options is None:
        return None, []
    mean, std = (options.array(field, "float32") for field in (_Fields.MEAN, _Fields.STD))
    shape = model.tensors[model.inputs[0]].shape
    counts = (1, shape[-1]) if shape else (1,)
    tiny = np.finfo(np.float32).tiny
    if not (len(mean) in counts and len(std) in counts and np.isfinite([*mean, *std]).all() and (std >= tiny).all()):
        return None, ["the file's metadata has a normalisation that does not fit its input; it was not used"]
    return (_decimals(mean.tolist()), _decimals(std.tolist())), []


def _decimals(values: list[float]) -> tuple[float, ...]:
    """float32 as they were written: 0.485, not 0.48500001430511475."""
    return tuple(float(str(np.float32(v))) for v in values)


def _label_files(output: Table) -> list[str]:
    files = output.tables(_Fields.FILES, _MOST, "files")
    return [f.text(_Fields.FILE_NAME) for f in files if f.number(_Fields.FILE_TYPE, "int8") == _AXIS_LABELS]


def _labels(data: bytes, files: list[str], model: Model) -> tuple[tuple[str, ...] | None, str | None]:
    """The lines of the first label file, which lies in a ZIP archive behind the model; or None and why not."""
    name = shown(files[0])
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(files[0]) as file:
            content = file.read(_LABEL_BYTES + 1)
    except _ZIP_ERRORS:
        return None, f"the file's metadata names '{name}', which cannot be read in it; outputs have no names"
    lines = content.decode(errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    count = math.prod(model.tensors[model.outputs[0]].shape)
    if len(content) > _LABEL_BYTES or len(lines) != count:
        return None, f"'{name}' in the file has {len(lines):,} names for {count:,} outputs; they were not used"
    return tuple(shown(line.strip(), _NAME_CHARACTERS) for line in lines), None
