"""Tiny .tflite files for tests, written with the FlatBuffers package that onnxruntime brings along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray
from tinytrain_compiler.frontends.tflite.schema import OPERATORS, OPTIONS, TYPES

# The union's type that TensorFlow Lite wants beside the options of these operators.
UNION = {
    "ADD": 11, "AVERAGE_POOL_2D": 5, "BATCH_MATMUL": 101, "CONCATENATION": 10, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2,
    "DEPTH_TO_SPACE": 94, "DIV": 29, "FULLY_CONNECTED": 8, "GATHER": 23, "GELU": 116, "LEAKY_RELU": 75,
    "MAX_POOL_2D": 5, "MEAN": 27, "MIRROR_PAD": 77, "MUL": 21, "PACK": 59, "REDUCE_MAX": 27, "REDUCE_MIN": 27,
    "RESIZE_BILINEAR": 15, "RESIZE_NEAREST_NEIGHBOR": 74, "SOFTMAX": 9, "SPACE_TO_DEPTH": 19, "STRIDED_SLICE": 32,
    "SUB": 28, "SUM": 27, "TRANSPOSE_CONV": 49, "UNPACK": 64,
}  # fmt: skip
_COUNT_UNION = {"SPLIT": 35, "SPLIT_V": 79}  # their one option is the number of parts
_SHAPE_UNION = 55  # its one option is the type of the result
_SQUEEZE_UNION = 30  # its one option is a list of axes
NUMPY = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8, "int32": np.int32, "float16": np.float16,
         "int16": np.int16, "int64": np.int64}  # fmt: skip
Array = NDArray[Any]


@dataclass
class Tensor:
    shape: tuple[int, ...]
    type: str
    name: str
    scale: Sequence[float] = ()
    zero: Sequence[int] = ()
    axis: int = 0
    data: bytes | None = None
    signature: tuple[int, ...] | None = None


@dataclass
class Operator:
    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: dict[str, Any] = field(default_factory=dict)


class TfliteBuilder:
    """Collects tensors and operators; the methods return tensor numbers."""

    def __init__(self, seed: int = 0) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []
        self.metadata: bytes | None = None
        self.rng = np.random.default_rng(seed)

    def tensor(self, shape: Sequence[int], type_: str = "float32", name: str | None = None, **given: Any) -> int:
        self.tensors.append(Tensor(tuple(shape), type_, name or f"t{len(self.tensors)}", **given))
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], type_: str = "float32", scale: float = 0.02, zero: int = 3) -> int:
        scales = {} if type_ == "float32" else {"scale": [scale], "zero": [zero]}
        self.inputs.append(self.tensor(shape, type_, "input", **scales))
        return self.inputs[-1]

    def const(self, value: Array, **given: Any) -> int:
        value = np.asarray(value)
        return self.tensor(value.shape, str(value.dtype), f"const{len(self.tensors)}", data=value.tobytes(), **given)

    def ints(self, *values: int) -> int:
        return self.const(np.array(values, np.int32))

    def op(self, name: str, inputs: Sequence[int], *outputs: Tensor, **options: Any) -> int:
        """Outputs: tensors, of which the number of the first is returned."""
        first = len(self.tensors)
        self.tensors.extend(outputs)
        self.operators.append(Operator(name, list(inputs), [first + k for k in range(len(outputs))], options))
        return first

    def build(self, *outputs: int) -> bytes:
        return _file(self, outputs)


def _file(model: TfliteBuilder, outputs: Sequence[int]) -> bytes:
    b = flatbuffers.Builder(1024)
    contents = [b"", *(t.data or b"" for t in model.tensors), *([model.metadata] if model.metadata else [])]
    buffers = _vector(b, [_table(b, {0: _bytes(b, data)} if data else {}) for data in contents])
    tensors = _vector(b, [_tensor(b, t, i + 1 if t.data is not None else 0) for i, t in enumerate(model.tensors)])
    kinds = sorted({op.name for op in model.operators})
    codes = _vector(b, [_code(b, kind) for kind in kinds])
    operators = _vector(b, [_operator(b, op, kinds.index(op.name)) for op in model.operators])
    ends = [_numbers(b, values, "int32") for values in (model.inputs, outputs)]
    graph = _vector(b, [_table(b, {0: tensors, 1: ends[0], 2: ends[1], 3: operators, 4: b.CreateString("main")})])
    fields = {0: ("uint32", 3), 1: codes, 2: graph, 3: b.CreateString("test"), 4: buffers}
    if model.metadata:
        name = b.CreateString("TFLITE_METADATA")
        fields[6] = _vector(b, [_table(b, {0: name, 1: ("uint32", len(contents) - 1)})])
    b.Finish(_table(b, fields), file_identifier=b"TFL3")
    return bytes(b.Output())


def _code(b: Any, kind: str) -> int:
    if kind not in OPERATORS:
        return _table(b, {0: ("int8", 32), 1: b.CreateString(kind), 3: ("int32", 32)})
    number = OPERATORS.index(kind)
    return _table(b, {0: ("int8", min(number, 127)), 2: ("int32", 1), 3: ("int32", number)})


def _tensor(b: Any, t: Tensor, buffer: int) -> int:
    fields: dict[int, Any] = {
        0: _numbers(b, t.shape, "int32"), 1: ("int8", TYPES.index(t.type)), 2: ("uint32", buffer),
        3: b.CreateString(t.name),
    }  # fmt: skip
    if len(t.scale):
        scales = {2: _numbers(b, t.scale, "float32"), 3: _numbers(b, t.zero, "int64"), 6: ("int32", t.axis)}
        fields[4] = _table(b, scales)
    if t.signature is not None:
        fields[7] = _numbers(b, t.signature, "int32")
    return _table(b, fields)


def _operator(b: Any, op: Operator, code: int) -> int:
    fields: dict[int, Any] = {
        0: ("uint32", code), 1: _numbers(b, op.inputs, "int32"), 2: _numbers(b, op.outputs, "int32"),
    }  # fmt: skip
    if op.name in _COUNT_UNION:
        fields |= {3: ("uint8", _COUNT_UNION[op.name]), 4: _table(b, {0: ("int32", len(op.outputs))})}
    elif op.name == "SQUEEZE":
        fields |= {3: ("uint8", _SQUEEZE_UNION), 4: _table(b, {0: _numbers(b, op.options["axes"], "int32")})}
    elif op.name == "SHAPE":
        fields |= {3: ("uint8", _SHAPE_UNION), 4: _table(b, {0: ("int8", TYPES.index("int32"))})}
    elif op.name in UNION:
        options = {OPTIONS[op.name][name]: value for name, value in op.options.items()}
        table = _table(b, {option.number: (option.kind, value) for option, value in options.items()})
        fields |= {3: ("uint8", UNION[op.name]), 4: table}
    return _table(b, fields)


_PREPEND = {
    "bool": "Bool",
    "int8": "Int8",
    "uint8": "Uint8",
    "int32": "Int32",
    "uint32": "Uint32",
    "float32": "Float32",
}


def _table(b: Any, fields: dict[int, Any]) -> int:
    """fields: by number, an offset, or (kind, value)."""
    b.StartObject(1 + max(fields, default=0))
    for number, value in fields.items():
        if isinstance(value, tuple):
            getattr(b, f"Prepend{_PREPEND[value[0]]}")(value[1])
        else:
            b.PrependUOffsetTRelative(value)
        b.Slot(number)
    return int(b.EndObject())


def _vector(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _numbers(b: Any, values: Sequence[float], kind: str) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, kind)))


def _bytes(b: Any, data: bytes) -> int:
    """Aligned to 16 bytes, as TensorFlow Lite wants its buffers."""
    b.StartVector(1, len(data), 16)
    b.head = b.head - len(data)
    b.Bytes[b.head : b.head + len(data)] = data
    return int(b.EndVector())


def metadata(mean: Sequence[float], std: Sequence[float], labels: str | None = None) -> bytes:
    """TFLite Model Metadata with a normalisation, and the name of a label file."""
    b = flatbuffers.Builder(256)
    options = _table(b, {0: _numbers(b, mean, "float32"), 1: _numbers(b, std, "float32")})
    units = _vector(b, [_table(b, {0: ("uint8", 1), 1: options})])
    inputs = _vector(b, [_table(b, {4: units})])
    fields: dict[int, Any] = {2: inputs}
    if labels is not None:
        file = _table(b, {0: b.CreateString(labels), 2: ("int8", 2)})
        fields[3] = _vector(b, [_table(b, {6: _vector(b, [file])})])
    b.Finish(_table(b, {3: _vector(b, [_table(b, fields)])}), file_identifier=b"M001")
    return bytes(b.Output())
