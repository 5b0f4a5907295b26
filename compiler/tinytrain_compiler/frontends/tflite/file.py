"""Read a .tflite file: its tensors, operators and constants, checked so far that nothing behind can be led astray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError, shown
from ..onnx.limits import MAX_ELEMENTS, MAX_NODES, elements, spelled
from . import schema
from .flatbuffer import Table
from .schema import IDENTIFIER, OPERATORS, OPTIONS, TYPES, Options

MAX_TENSORS = 10 * MAX_NODES
MAX_RANK = 8
MAX_EDGES = 4096  # inputs or outputs of one operator
_AGAIN = "export or download it again"


@dataclass(frozen=True)
class Scales:
    """real = scale * (integer - zero)."""

    scale: NDArray[np.float32]  # (1,), or one for each index of `axis`
    zero: NDArray[np.int64]  # likewise
    axis: int


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # a dynamic batch as 1
    type: str  # as schema.TYPES spells it
    scales: Scales | None  # None: not quantised
    data: memoryview | None  # of a constant
    dynamic: tuple[int, ...]  # dimensions without a fixed size, the batch aside
    sparse: bool


@dataclass(frozen=True)
class Operator:
    index: int  # in the file
    name: str  # as schema.OPERATORS spells it, or a custom operator's own
    custom: bool
    inputs: tuple[int, ...]  # tensors; -1 where one is left out
    outputs: tuple[int, ...]
    options: Options


@dataclass(frozen=True)
class Model:
    tensors: Sequence[Tensor]
    operators: Sequence[Operator]  # each behind those that write what it reads
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: bytes | None  # of TFLite Model Metadata, a FlatBuffers file of its own

    def is_constant(self, tensor: int) -> bool:
        return self.tensors[tensor].data is not None


def parse(data: bytes) -> Model:
    """The first subgraph of a file, which is the network. Raises UsageError for what is damaged or too large."""
    if data[4:8] != IDENTIFIER:
        raise UsageError("it is not a TensorFlow Lite model: its identifier is missing; export it again")
    root = Table.root(data)
    graphs = root.tables(schema.Model.SUBGRAPHS, MAX_NODES, "subgraphs")
    if not graphs:
        raise UsageError(f"it holds no graph; {_AGAIN}")
    buffers = root.tables(schema.Model.BUFFERS, MAX_TENSORS, "buffers")
    contents = [_content(buffer, data) for buffer in buffers]
    records = graphs[0].tables(schema.SubGraph.TENSORS, MAX_TENSORS, "tensors")
    tensors = [_tensor(i, record, contents) for i, record in enumerate(records)]
    names = [_operator_name(c) for c in root.tables(schema.Model.OPERATOR_CODES, MAX_NODES, "operator codes")]
    operators = [
        _operator(i, record, names)
        for i, record in enumerate(graphs[0].tables(schema.SubGraph.OPERATORS, MAX_NODES, "operators"))
    ]
    inputs, outputs = (_indices(graphs[0], field) for field in (schema.SubGraph.INPUTS, schema.SubGraph.OUTPUTS))
    model = Model(tensors, operators, inputs, outputs, _metadata(root, contents))
    _check_wiring(model)
    return model


def _content(buffer: Table, data: bytes) -> memoryview | None:
    """A buffer's bytes, in it or, in files above 2 GB, behind the tables; None where it has none."""
    start = int(buffer.number(schema.Buffer.OFFSET, "uint64"))
    if start <= 1:
        found = buffer.content(schema.Buffer.DATA)
        return found if found is not None and len(found) else None
    size = int(buffer.number(schema.Buffer.SIZE, "uint64"))
    if start + size > len(data):
        raise UsageError(f"it is truncated: a buffer ends at byte {start + size:,} of {len(data):,}; {_AGAIN}")
    return memoryview(data)[start : start + size]


def _tensor(index: int, record: Table, contents: Sequence[memoryview | None]) -> Tensor:
    fields = schema.Tensor
    name = record.text(fields.NAME) or f"tensor {index}"
    number = record.number(fields.TYPE, "int8")
    kind = TYPES[number] if 0 <= number < len(TYPES) else f"type {number}"
    sizes, signature = (record.array(field, "int32") for field in (fields.SHAPE, fields.SIGNATURE))
    if len(sizes) > MAX_RANK:
        raise UsageError(
            f"tensor '{shown(name)}' has {len(sizes)} dimensions, at most {MAX_RANK} can be read; {_AGAIN}"
        )
    given = signature if len(signature) == len(sizes) else sizes
    dynamic = tuple(i for i, size in enumerate(given.tolist()) if size < 0)
    shape = tuple(1 if i in dynamic and size < 0 else size for i, size in enumerate(sizes.tolist()))
    if min(shape, default=1) < 0 or elements(shape) > MAX_ELEMENTS:
        raise UsageError(
            f"tensor '{shown(name)}' has shape {spelled(shape)}; from 0 to {MAX_ELEMENTS:,} values can be compiled: "
            "use a smaller network or input"
        )
    buffer = record.number(fields.BUFFER, "uint32")
    if buffer >= max(len(contents), 1):
        raise UsageError(f"tensor '{shown(name)}' lies in buffer {buffer} of {len(contents)}; {_AGAIN}")
    return Tensor(
        name,
        shape,
        kind,
        _scales(record.table(fields.QUANTIZATION), name, shape, kind),
        contents[buffer] if contents else None,
        tuple(i for i in dynamic if i > 0),
        record.has(fields.SPARSITY),
    )


def _scales(record: Table | None, name: str, shape: tuple[int, ...], kind: str) -> Scales | None:
    if record is None:
        return None
    fields = schema.QuantizationParameters
    scale, zero = record.array(fields.SCALE, "float32"), record.array(fields.ZERO_POINT, "int64")
    if not len(scale):
        return None
    axis = int(record.number(fields.DIMENSION, "int32"))
    if len(zero) not in (0, 1, len(scale)):
        raise UsageError(f"tensor '{shown(name)}' has {len(scale)} scales and {len(zero)} zero points; {_AGAIN}")
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise UsageError(
            f"tensor '{shown(name)}' of shape {spelled(shape)} has {len(scale)} scales along dimension {axis}; {_AGAIN}"
        )
    if not np.all(np.isfinite(scale) & (scale > 0)):
        raise UsageError(f"tensor '{shown(name)}' has a scale that is no positive number; {_AGAIN}")
    zeros = np.broadcast_to(zero if len(zero) else np.zeros(1, np.int64), len(scale))
    if kind in ("int8", "uint8") and np.any((zeros < np.iinfo(kind).min) | (zeros > np.iinfo(kind).max)):
        raise UsageError(f"tensor '{shown(name)}' has a zero point that is no {kind}; {_AGAIN}")
    return Scales(scale.astype(np.float32), zeros.astype(np.int64), axis if len(scale) > 1 else 0)


def _operator_name(code: Table) -> tuple[str, bool]:
    """(name, whether it is a custom operator). Numbers from 127 on stand in a field of their own."""
    fields = schema.OperatorCode
    number = max(code.number(fields.OLD_NUMBER, "int8"), code.number(fields.NUMBER, "int32"))
    if not 0 <= number < len(OPERATORS):
        return f"operator {number}", False
    if OPERATORS[number] == "CUSTOM":
        return code.text(fields.CUSTOM_NAME) or "CUSTOM", True
    return OPERATORS[number], False


def _operator(index: int, record: Table, names: Sequence[tuple[str, bool]]) -> Operator:
    code = record.number(schema.Operator.CODE, "uint32")
    if code >= len(names):
        raise UsageError(f"operator {index} is of kind {code} of {len(names)}; {_AGAIN}")
    name, custom = names[code]
    table = record.table(schema.Operator.OPTIONS) if name in OPTIONS and not custom else None
    inputs, outputs = (_indices(record, field) for field in (schema.Operator.INPUTS, schema.Operator.OUTPUTS))
    return Operator(index, name, custom, inputs, outputs, Options(name, table))


def _indices(record: Table, field: int) -> tuple[int, ...]:
    found = record.array(field, "int32")
    if len(found) > MAX_EDGES:
        raise UsageError(f"something in it has {len(found):,} inputs or outputs, at most {MAX_EDGES:,} can be compiled")
    return tuple(found.tolist())


def _metadata(root: Table, contents: Sequence[memoryview | None]) -> bytes | None:
    for record in root.tables(schema.Model.METADATA, MAX_NODES, "metadata entries"):
        if record.text(schema.Metadata.NAME) == "TFLITE_METADATA":
            buffer = record.number(schema.Metadata.BUFFER, "uint32")
            content = contents[buffer] if buffer < len(contents) else None
            return None if content is None else bytes(content)
    return None


def _check_wiring(model: Model) -> None:
    """Raise UsageError where an operator reads what nothing before it wrote, or writes what is there already."""
    count = len(model.tensors)
    written = {i for i in range(count) if model.is_constant(i)} | set(model.inputs) | {-1}
    for op in model.operators:
        label = f"operator {op.index} ({shown(op.name)})"
        for tensor in (*op.inputs, *op.outputs):
            if not -1 <= tensor < count:
                raise UsageError(f"{label} names tensor {tensor} of {count}; {_AGAIN}")
        for tensor in op.outputs:
            if tensor in written:
                raise UsageError(f"{label} writes '{_name(model, tensor)}', which is written already; {_AGAIN}")
        written.update(op.outputs)
    if wrong := [i for i in (*model.inputs, *model.outputs) if not 0 <= i < count]:
        raise UsageError(f"its inputs or outputs name tensor {wrong[0]} of {count}; {_AGAIN}")


def _name(model: Model, tensor: int) -> str:
    return "nothing" if tensor < 0 else shown(model.tensors[tensor].name)


_NUMPY = {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"}


def constant(tensor: Tensor) -> NDArray[Any]:
    """A constant's numbers as they stand in the file. Raises UsageError where shape and bytes don't go together."""
    assert tensor.data is not None, "asked for of constants alone"
    if tensor.sparse or tensor.type not in _NUMPY:
        what = "sparse" if tensor.sparse else tensor.type
        raise UsageError(
            f"constant '{shown(tensor.name)}' is {what}, which is not supported; convert the model with dense weights "
            "of int8 or float32"
        )
    kind = np.dtype(tensor.type).newbyteorder("<")
    if len(tensor.data) != math.prod(tensor.shape) * kind.itemsize:
        raise UsageError(
            f"constant '{shown(tensor.name)}' of shape {spelled(tensor.shape)} and type {tensor.type} has "
            f"{len(tensor.data)} bytes; {_AGAIN}"
        )
    return np.frombuffer(tensor.data, kind).reshape(tensor.shape).astype(kind.newbyteorder("="))
