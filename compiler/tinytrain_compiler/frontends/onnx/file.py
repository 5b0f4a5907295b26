"""Read an ONNX file and make sure that it is a model this compiler can start on.

Every way a file can be wrong ends in one message: what is wrong, where, and what to do. Which operators
are supported is the next step's question (support.py).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from ...errors import TinyTrainError, UsageError, first_line, listed
from .external import load_external_data
from .float_passes.edit import GraphEditor, static_shape
from .float_passes.fold_constants import fold_constants
from .float_passes.identities import remove_identities
from .float_passes.transposes import transposes_first
from .functions import inline_functions
from .interface import check_interface, check_opset, check_type, modernize
from .names import check_texts, make_legible
from .qdq_passes import holds_integers, to_qdq
from .sizes import check_sizes
from .structure import check_structure
from .weights import check_constants, check_numbers, type_name

MAX_IR_VERSION = 10  # belongs to opset 21; onnxruntime 1.20 reads nothing newer
MAX_FILE = (1 << 31) - 1  # what protobuf can read
_SHOWN = 5  # models beside a missing one

# First bytes of files people take for ONNX, at an offset.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model; give the file the ending .tflite"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
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
    data = read_bytes(path, "ONNX")
    proto = _parse(path, data)
    digest = hashlib.sha256(data)

    def complete() -> onnx.ModelProto:
        check_texts(proto)
        load_external_data(path, proto, digest)
        return proto

    return prepared(path, complete, digest)


def prepared(path: Path, make: Callable[[], onnx.ModelProto], digest: hashlib._Hash) -> LoadedModel:
    """The model that `make` returns, checked and with constants folded. digest: of all that make() reads.

    Raises UsageError, naming the file, for whatever is wrong in it.
    """
    try:
        proto, notes = _prepare(make(), path.name)
    except UsageError as e:
        raise UsageError(f"{path}: {e}") from e
    except TinyTrainError:
        raise
    except Exception as e:  # damage inside a message shows as whatever onnx, protobuf and onnxruntime make of it
        raise UsageError(f"{path}: the graph is not valid: {first_line(e)}; export the model again") from e
    return LoadedModel(proto, digest.hexdigest(), path, tuple(notes))


def _prepare(proto: onnx.ModelProto, file: str) -> tuple[onnx.ModelProto, list[str]]:
    """Everything checked that needs no knowledge of operators, and constants folded; with notes for the user."""
    proto = inline_functions(proto)
    _normalize_domains(proto)
    make_legible(proto)
    notes = check_interface(proto, file)
    check_opset(proto)
    check_constants(proto.graph)
    check_structure(proto)
    proto = modernize(proto, holds_integers(proto))
    proto.ir_version = min(proto.ir_version, MAX_IR_VERSION)
    proto = fold_constants(proto)
    editor = GraphEditor(proto)
    remove_identities(editor)
    transposes_first(editor)
    editor.remove_unused()
    editor.refresh()
    notes += to_qdq(proto)
    _check_result(proto)
    return proto, notes


def _normalize_domains(proto: onnx.ModelProto) -> None:
    """The standard operators have two spellings, quantising to 8 bits a third; and onnxruntime refuses sets that it
    does not know, used or not."""
    for node in proto.graph.node:
        contributed = node.domain == "com.microsoft" and node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if node.domain == "ai.onnx" or contributed:
            node.domain = ""
    used = {node.domain for node in proto.graph.node} | {""}
    versions: dict[str, int] = {}
    for each in proto.opset_import:
        domain = "" if each.domain == "ai.onnx" else each.domain
        if domain in used:
            versions[domain] = max(each.version, versions.get(domain, 0))
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())


def read_bytes(path: Path, kind: str) -> bytes:
    """A whole file. kind: ONNX or tflite. Raises UsageError for what is none, or too large."""
    suffix = f".{kind.lower()}"
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the {suffix} file in it")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a file that can be read as a whole; name the {suffix} file")
        if status.st_size > MAX_FILE:
            raise UsageError(f"{path} has {status.st_size:,} bytes, no {kind} file has more than {MAX_FILE:,}")
        data = path.read_bytes()
    except FileNotFoundError as e:
        near = sorted(p.name for p in path.parent.glob(f"*{suffix}"))[:_SHOWN] if path.parent.is_dir() else []
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
    if not proto.graph.node:
        raise UsageError(f"{path} holds a graph without nodes, so there is nothing to compile; export it again")
    return proto


def _is_text(data: bytes) -> bool:
    # A serialised model starts with the field ir_version, byte 0x08, which is no printable character.
    head = data[:256]
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)


def _check_result(proto: onnx.ModelProto) -> None:
    """What can only be seen once constants are folded: types, sizes, values, and that the output needs the input."""
    graph = proto.graph
    if not graph.node:
        raise UsageError(
            f"output '{graph.output[0].name}' does not depend on input '{graph.input[0].name}'; export it again"
        )
    types = {t.name: t.data_type for t in graph.initializer}
    types |= {i.name: i.type.tensor_type.elem_type for i in [*graph.value_info, *graph.output]}
    wrong = (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    found = [f"{name} ({type_name(types[name])})" for name in types if types[name] in wrong]
    if found:
        raise UsageError(
            f"it computes in other types than float32: {listed(found)}; export the model in float32 "
            "(model.float() in PyTorch, keep_io_types of float16 converters off)"
        )
    check_type(graph.input[0], "input")
    check_type(graph.output[0], "output")
    check_sizes(proto)
    check_numbers(graph)


def input_shape(proto: onnx.ModelProto) -> tuple[int, ...]:
    """Shape of a loaded model's input: (1, C, H, W) or (1, F)."""
    shape = static_shape(proto.graph.input[0])
    assert shape is not None, "load_model fixes the input's shape"
    return shape
