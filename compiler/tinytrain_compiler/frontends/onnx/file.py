"""Read an ONNX file and make sure that it is a model this compiler can start on.

Every way a file can be wrong ends in one message: what is wrong, where, and what to do. Which operators
are supported is the next step's question (support.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from ...errors import TinyTrainError, UsageError
from .float_passes.edit import default_opset, static_shape
from .float_passes.fold_constants import fold_constants

MIN_OPSET, MAX_OPSET = 11, 21
MAX_IR_VERSION = 10  # belongs to opset 21; onnxruntime 1.20 reads nothing newer
_SHOWN = 5  # names in a message before "and N more"

# First bytes of files people take for ONNX, at an offset.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89HDF", "an HDF5 file (Keras)"),
    (0, b"PK\x03\x04", "a ZIP archive (PyTorch .pt, Keras .keras or NumPy .npz)"),
    (0, b"\x80\x02", "a Python pickle (PyTorch)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"%PDF", "a PDF"),
    (0, b"ORTM", "an onnxruntime .ort model"),
    (4, b"ORTM", "an onnxruntime .ort model"),
)


@dataclass(frozen=True)
class LoadedModel:
    """A model read from disk: one float32 input with batch 1, one output, constants folded, shapes inferred."""

    proto: onnx.ModelProto
    sha256: str  # of the file, and of its external data where it has some
    path: Path
    notes: tuple[str, ...] = ()  # what was changed silently and a user may want to know


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether the model comes with its scales (QDQ), so that it is imported as it is."""
    return any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in proto.graph.node)


def load_model(path: Path) -> LoadedModel:
    """Read and prepare a model.

    Raises UsageError for a file that is not ONNX, is damaged, or whose inputs, outputs, types or operator
    set the compiler cannot work with.
    """
    path = Path(path)
    data = _read(path)
    proto = _parse(path, data)
    digest = hashlib.sha256(data)
    try:
        _load_external_data(path, proto, digest)
        _check_opset(path, proto)
        proto = _inline(path, proto)
        notes = _check_interface(path, proto)
        _check_structure(path, proto)
        proto.ir_version = min(proto.ir_version, MAX_IR_VERSION)
        proto = fold_constants(proto)
        _check_result(path, proto)
    except TinyTrainError:
        raise
    except Exception as e:  # damage inside a message shows as whatever onnx, protobuf and onnxruntime make of it
        raise UsageError(f"{path}: the graph is not valid: {_first_line(e)}; export the model again") from e
    return LoadedModel(proto, digest.hexdigest(), path, tuple(notes))


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the .onnx file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError as e:
        near = sorted(p.name for p in path.parent.glob("*.onnx"))[:_SHOWN] if path.parent.is_dir() else []
        hint = f"; models there: {', '.join(near)}" if near else ""
        raise UsageError(f"{path} does not exist{hint}") from e
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}") from e
    if not data:
        raise UsageError(f"{path} is empty (0 bytes); export or download it again")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    convert = "export the network to ONNX (torch.onnx.export, tf2onnx, skl2onnx) and pass that file"
    for offset, magic, what in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            raise UsageError(f"{path} is not an ONNX model but {what}; {convert}")
    if data.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a Git LFS pointer, not the model; run 'git lfs pull' to fetch it")
    if _is_text(data):
        raise UsageError(f"{path} is not an ONNX model but a text file; {convert}")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as e:  # DecodeError's module depends on the protobuf version
        raise UsageError(
            f"{path} is not an ONNX model, or it is truncated or damaged ({len(data)} bytes, not decodable); "
            "export or download it again"
        ) from e
    if not proto.HasField("graph") or not proto.opset_import:
        raise UsageError(
            f"{path} is not a complete ONNX model: it holds no graph or no operator set; "
            "it may be truncated: export or download it again"
        )
    texts = (text for n in proto.graph.node for text in (n.name, n.op_type, n.domain, *n.input, *n.output))
    if any(isinstance(text, bytes) for text in texts):  # protobuf's way of handing over what is not UTF-8
        raise UsageError(f"{path} is damaged: it has names that are not text; export or download it again")
    if not proto.graph.node:
        raise UsageError(f"{path} holds a graph without nodes, so there is nothing to compile; export it again")
    return proto


def _is_text(data: bytes) -> bool:
    # A serialised model starts with the field ir_version, byte 0x08, which is no printable character.
    head = data[:256]
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)


def _load_external_data(path: Path, proto: onnx.ModelProto, digest: hashlib._Hash) -> None:
    tensors = [t for t in proto.graph.initializer if external_data_helper.uses_external_data(t)]
    if not tensors and not any(t.data_location == TensorProto.EXTERNAL for t in _constant_tensors(proto)):
        return
    files = sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})
    for name in files:
        if not (path.parent / name).is_file():
            raise UsageError(
                f"{path} keeps its weights in '{name}', which is not beside it; copy it to {path.parent}, "
                "or export with the weights inside (onnx.save without save_as_external_data)"
            )
    try:
        external_data_helper.load_external_data_for_model(proto, str(path.parent))
        for name in files:
            digest.update((path.parent / name).read_bytes())
        for tensor in tensors:
            numpy_helper.to_array(tensor)  # a file that is too short shows here
    except Exception as e:
        raise UsageError(
            f"{path}: its weights in {', '.join(files)} cannot be read: {_first_line(e)}; copy both files again"
        ) from e


def _constant_tensors(proto: onnx.ModelProto) -> Iterable[TensorProto]:
    return (a.t for n in proto.graph.node for a in n.attribute if a.HasField("t"))


def _check_opset(path: Path, proto: onnx.ModelProto) -> None:
    opset = default_opset(proto)
    if MIN_OPSET <= opset <= MAX_OPSET:
        return
    convert = (
        'python -c "import onnx; from onnx.version_converter import convert_version as c; '
        f"onnx.save(c(onnx.load('{path.name}'), 17), 'opset17.onnx')\""
    )
    raise UsageError(
        f"{path} uses ONNX opset {opset}, supported are {MIN_OPSET} to {MAX_OPSET}; "
        f"export with opset_version=17, or convert: {convert}"
    )


def _inline(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put the bodies of the model's own functions where they are called."""
    if not proto.functions:
        return proto
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(proto, True)
    except Exception as e:
        raise UsageError(f"{path}: its functions cannot be inlined: {_first_line(e)}; export without functions") from e


def _check_interface(path: Path, proto: onnx.ModelProto) -> list[str]:
    """One float32 input of a fixed shape and batch 1, one output. Fixes a symbolic batch, in place; returns notes."""
    graph = proto.graph
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = _some([i.name for i in inputs]) if inputs else "none"
        raise UsageError(
            f"{path} has {len(inputs)} inputs ({names}), exactly one is supported; make the others constants, or "
            "cut the part with one input out with onnx.utils.extract_model"
        )
    if len(graph.output) != 1:
        names = _some([o.name for o in graph.output]) if graph.output else "none"
        raise UsageError(
            f"{path} has {len(graph.output)} outputs ({names}), exactly one is supported; keep the one you need "
            f"with onnx.utils.extract_model('{path.name}', 'one.onnx', ['{inputs[0].name}'], [OUTPUT])"
        )
    _check_type(path, inputs[0], "input")
    return _fix_batch(path, inputs[0])


def _check_type(path: Path, info: onnx.ValueInfoProto, role: str) -> None:
    if not info.type.HasField("tensor_type"):
        raise UsageError(f"{path}: {role} '{info.name}' is not a tensor; export the model with tensors only")
    elem = info.type.tensor_type.elem_type
    if elem == TensorProto.FLOAT:
        return
    raise UsageError(
        f"{path}: {role} '{info.name}' has type {_type_name(elem)}, supported is float32; "
        "export the model in float32 (model.float() in PyTorch), without casts at its ends"
    )


def _fix_batch(path: Path, info: onnx.ValueInfoProto) -> list[str]:
    shape = info.type.tensor_type.shape
    dims = list(shape.dim)
    name = info.name
    if len(dims) not in (2, 4):
        raise UsageError(
            f"{path}: input '{name}' has {len(dims)} dimensions, supported are 4 (1, channels, height, width) "
            "and 2 (1, features); export the model with such an input"
        )
    dynamic = [i for i, d in enumerate(dims) if not d.HasField("dim_value") or d.dim_value <= 0]
    if any(i > 0 for i in dynamic):
        spelled = ", ".join(
            f"dimension {i} ({'unnamed' if not dims[i].dim_param else repr(dims[i].dim_param)})" for i in dynamic
        )
        example = ",".join("1" if i == 0 else "N" if i in dynamic else str(d.dim_value) for i, d in enumerate(dims))
        raise UsageError(
            f"{path}: input '{name}' has a dynamic shape: {spelled}; fix it (N: your numbers): "
            f"python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {name} --input_shape {example} "
            f"{path.name} fixed.onnx"
        )
    if dynamic:
        label = dims[0].dim_param
        shape.dim[0].dim_value = 1
        return [f"the batch dimension of input '{name}'{f' ({label!r})' if label else ''} was dynamic: fixed to 1"]
    if dims[0].dim_value != 1:
        raise UsageError(
            f"{path}: input '{name}' has shape {tuple(d.dim_value for d in dims)}, so batch {dims[0].dim_value}; "
            "the firmware runs one sample at a time: export with batch 1 (or a dynamic batch)"
        )
    return []


def _check_structure(path: Path, proto: onnx.ModelProto) -> None:
    """The ONNX checker's view. Operators it doesn't know are left to the support check, which lists them all."""
    graph = proto.graph
    if graph.sparse_initializer:
        names = _some([t.values.name for t in graph.sparse_initializer])
        raise UsageError(f"{path} has sparse weights ({names}); export them dense")
    imported = {o.domain for o in proto.opset_import} | {"", "ai.onnx"}
    if any(n.domain not in imported or not _known(n) for n in graph.node):
        return
    shapeless = [o.type.tensor_type for o in graph.output if not o.type.tensor_type.HasField("shape")]
    try:
        for each in shapeless:  # the checker insists on a shape, which inference finds anyway
            each.shape.SetInParent()
        onnx.checker.check_model(proto)
    except Exception as e:
        raise UsageError(f"{path} is not a valid ONNX model: {_first_line(e)}; export it again") from e
    finally:
        for each in shapeless:
            each.ClearField("shape")


def _known(node: onnx.NodeProto) -> bool:
    return node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type)


def _check_result(path: Path, proto: onnx.ModelProto) -> None:
    """What can only be seen once constants are folded: types, values, and that the output depends on the input."""
    graph = proto.graph
    if not graph.node:
        raise UsageError(
            f"{path}: output '{graph.output[0].name}' does not depend on input '{graph.input[0].name}'; export it again"
        )
    types = {t.name: t.data_type for t in graph.initializer}
    types |= {i.name: i.type.tensor_type.elem_type for i in [*graph.value_info, *graph.output]}
    wrong = (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    found = [f"{name} ({_type_name(types[name])})" for name in types if types[name] in wrong]
    if found:
        raise UsageError(
            f"{path} computes in other types than float32: {_some(found)}; export the model in float32 "
            "(model.float() in PyTorch, keep_io_types of float16 converters off)"
        )
    _check_type(path, graph.output[0], "output")
    weights = [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]
    bad = [t.name for t in weights if np.isnan(numpy_helper.to_array(t)).any()]
    if bad:
        raise UsageError(f"{path} has weights that are not numbers (NaN): {_some(bad)}; train or export it again")


def input_shape(proto: onnx.ModelProto) -> tuple[int, ...]:
    """Shape of a loaded model's input: (1, C, H, W) or (1, F)."""
    shape = static_shape(proto.graph.input[0])
    assert shape is not None, "load_model fixes the input's shape"
    return shape


def _type_name(elem: int) -> str:
    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem)))
    except KeyError:
        return "unknown"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
