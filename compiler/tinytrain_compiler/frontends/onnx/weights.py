"""Constants of a model: of a known type, as many values as their shape says, not too many, and numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import UsageError, listed, shown
from .limits import MAX_ELEMENTS, MAX_WEIGHTS, elements, spelled
from .structure import node_label

_TYPES = frozenset(
    {
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL,
        TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16,
        TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64, TensorProto.UINT64,
    }
)  # fmt: skip


def type_name(elem: int) -> str:
    """A tensor's type as messages spell it."""
    if elem == TensorProto.STRING:
        return "string"
    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem)))
    except KeyError:
        return "unknown"


def item_bytes(tensor: TensorProto, label: str) -> int:
    """Bytes of one value. Raises UsageError for types that no operator here reads and for impossible shapes."""
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        raise UsageError(f"{label} has 4 bits, weights need 8: quantise with weights of 8 bits (QInt8)")
    if tensor.data_type not in _TYPES:
        raise UsageError(f"{label} has type {type_name(tensor.data_type)}, which is not supported; export in float32")
    if any(d < 0 for d in tensor.dims) or elements(tensor.dims) > MAX_ELEMENTS:
        raise UsageError(
            f"{label} has shape {spelled(tensor.dims)}; a constant can have {MAX_ELEMENTS:,} values at most: "
            "use a smaller network"
        )
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def check_constants(graph: onnx.GraphProto) -> None:
    """Raise UsageError, naming the tensor, where one cannot be read or there are too many values."""
    total = 0
    for label, tensor in _constants(graph):
        item_bytes(tensor, label)
        total += elements(tensor.dims)
        if total > MAX_WEIGHTS:
            raise UsageError(f"it has more than {MAX_WEIGHTS:,} constant values; use a smaller network")
        try:
            numpy_helper.to_array(tensor)
        except Exception as e:  # whatever numpy makes of the wrong number of bytes
            raise UsageError(
                f"{label} is damaged: its shape {spelled(tensor.dims)} and its data don't fit together; "
                "export or download it again"
            ) from e


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """With what messages call them."""
    for tensor in graph.initializer:
        yield f"constant '{shown(tensor.name)}'", tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in [attribute.t] * attribute.HasField("t") + list(attribute.tensors):
                yield f"constant '{shown(tensor.name)}' of {node_label(node)}", tensor


def check_numbers(graph: onnx.GraphProto) -> None:
    """Raise UsageError, naming the weights, where one is empty, infinite or no number. Clip may be open: infinite."""
    open_ended = {name for node in graph.node if node.op_type == "Clip" for name in node.input[1:]}
    wrong: dict[str, list[str]] = {"empty": [], "not numbers (NaN)": [], "infinite": []}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if not values.size:
            wrong["empty"].append(tensor.name)
        elif np.isnan(values).any():
            wrong["not numbers (NaN)"].append(tensor.name)
        elif tensor.name not in open_ended and np.isinf(values).any():
            wrong["infinite"].append(tensor.name)
    for what, names in wrong.items():
        if names:
            raise UsageError(f"it has weights or scales that are {what}: {listed(names)}; train or export it again")
