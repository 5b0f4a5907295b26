"""What a model declares: its operator set, one float32 input of a fixed shape with batch 1, one output."""

from __future__ import annotations

import onnx
from onnx import TensorProto, version_converter

from ...errors import UsageError, first_line, listed, shown
from .float_passes.edit import default_opset
from .float_passes.runtime import runs_opset
from .limits import MAX_ELEMENTS, elements, spelled
from .weights import type_name

BYTES = (TensorProto.INT8, TensorProto.UINT8)
MIN_OPSET = 7  # the first one with today's broadcasting
OLDEST_READ = 11  # what is older is brought to OPSET: attributes have become inputs since
FIRST_WITH_AXES = 13  # of scales: DequantizeLinear had one scale a tensor before
OPSET = 17
MAX_INPUT_RANK = 5


def check_opset(proto: onnx.ModelProto) -> None:
    """Raise UsageError where the model's operator set cannot be read."""
    opset = default_opset(proto)
    if opset < MIN_OPSET:
        raise UsageError(
            f"it uses ONNX opset {opset}, supported are {MIN_OPSET} and newer; export with opset_version=18"
        )
    if not runs_opset(opset):
        raise UsageError(
            f"it uses ONNX opset {opset}, which the installed onnxruntime does not know; "
            "pip install -U onnxruntime, or export with opset_version=18"
        )


def modernize(proto: onnx.ModelProto, quantized: bool) -> onnx.ModelProto:
    """The model in an operator set that rules and passes know. Raises UsageError where it cannot be brought there."""
    opset = default_opset(proto)
    if opset >= (FIRST_WITH_AXES if quantized else OLDEST_READ):
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as e:  # the converter's exceptions share no base class
        raise UsageError(
            f"it uses ONNX opset {opset}, which cannot be brought to {OPSET}: {first_line(e)}; "
            "export with opset_version=18"
        ) from e


def check_interface(proto: onnx.ModelProto, file: str) -> list[str]:
    """Fix a symbolic batch, in place; returns notes. file: the model's name, for commands in messages."""
    graph = proto.graph
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = listed(i.name for i in inputs) if inputs else "none"
        raise UsageError(
            f"it has {len(inputs)} inputs ({names}), exactly one is supported; make the others constants, or "
            "cut the part with one input out with onnx.utils.extract_model"
        )
    if len(graph.output) != 1:
        names = listed(o.name for o in graph.output) if graph.output else "none"
        raise UsageError(
            f"it has {len(graph.output)} outputs ({names}), exactly one is supported; keep the one you need "
            f"with onnx.utils.extract_model('{file}', 'one.onnx', ['{shown(inputs[0].name)}'], [OUTPUT])"
        )
    check_type(inputs[0], "input", *BYTES)
    if not graph.output[0].type.HasField("tensor_type") and graph.output[0].type.WhichOneof("value"):
        check_type(graph.output[0], "output")
    return _fix_batch(inputs[0], file)


def check_type(info: onnx.ValueInfoProto, role: str, *others: int) -> None:
    """Raise UsageError where an end of the model is not a tensor of float32, or of one of `others`."""
    name = shown(info.name)
    if not info.type.HasField("tensor_type"):
        raise UsageError(f"{role} '{name}' is not a tensor; export the model with tensors only")
    elem = info.type.tensor_type.elem_type
    if elem == TensorProto.FLOAT or elem in others:
        return
    raise UsageError(
        f"{role} '{name}' has type {type_name(elem)}, supported is float32; "
        "export the model in float32 (model.float() in PyTorch), without casts at its ends"
    )


def _fix_batch(info: onnx.ValueInfoProto, file: str) -> list[str]:
    shape = info.type.tensor_type.shape
    dims = list(shape.dim)
    name = shown(info.name)
    if not 2 <= len(dims) <= MAX_INPUT_RANK:
        raise UsageError(
            f"input '{name}' has {len(dims)} dimensions, supported are 2 to {MAX_INPUT_RANK}, the first of them the "
            "batch, such as (1, features) and (1, channels, height, width); export the model with such an input"
        )
    dynamic = [i for i, d in enumerate(dims) if not d.HasField("dim_value") or d.dim_value <= 0]
    if any(i > 0 for i in dynamic):
        labels = {i: repr(shown(dims[i].dim_param)) if dims[i].dim_param else "unnamed" for i in dynamic}
        spelled_out = ", ".join(f"dimension {i} ({label})" for i, label in labels.items())
        example = ",".join("1" if i == 0 else "N" if i in dynamic else str(d.dim_value) for i, d in enumerate(dims))
        raise UsageError(
            f"input '{name}' has a dynamic shape: {spelled_out}; fix it (N: your numbers): "
            f"python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {name} --input_shape {example} "
            f"{file} fixed.onnx"
        )
    size = [d.dim_value for d in dims]
    if elements(size[1:]) > MAX_ELEMENTS:
        raise UsageError(
            f"input '{name}' has shape {spelled(size)}; an input can have {MAX_ELEMENTS:,} values at most: "
            "export with a smaller input"
        )
    if dynamic:
        label = shown(dims[0].dim_param)
        shape.dim[0].dim_value = 1
        return [f"the batch dimension of input '{name}'{f' ({label!r})' if label else ''} was dynamic: fixed to 1"]
    if size[0] != 1:
        raise UsageError(
            f"input '{name}' has shape {spelled(size)}, so batch {size[0]}; "
            "the firmware runs one sample at a time: export with batch 1 (or a dynamic batch)"
        )
    return []
