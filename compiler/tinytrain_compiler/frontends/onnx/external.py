"""Weights that lie in files beside the model (ONNX "external data")."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath

import onnx
from onnx import TensorProto

from ...errors import UsageError, shown
from .limits import elements
from .weights import item_bytes

_CHUNK = 1 << 20


def load_external_data(path: Path, proto: onnx.ModelProto, digest: hashlib._Hash) -> None:
    """Put such weights into the model, in place, and their files into the digest.

    Only as many bytes are read as the tensors have. Raises UsageError, naming the tensor and the file.
    """
    tensors = [t for t in _tensors(proto.graph) if t.data_location == TensorProto.EXTERNAL]
    for function in proto.functions:
        tensors += [t for node in function.node for t in _of_node(node) if t.data_location == TensorProto.EXTERNAL]
    names = set()
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        names.add(_load(path, tensor, entries))
    for name in sorted(names):
        with (path.parent / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)


def _load(path: Path, tensor: TensorProto, entries: dict[str, str]) -> str:
    """One tensor; returns its file's name."""
    label, name = f"tensor '{shown(tensor.name)}'", entries.get("location", "")
    pure, windows = PurePath(name), PureWindowsPath(name)
    outside = pure.is_absolute() or windows.drive or windows.root or ".." in (*pure.parts, *windows.parts)
    if not name or "\0" in name or outside:
        raise UsageError(
            f"{label} lies in {shown(name)!r}, outside the model's folder; export with the data beside the model"
        )
    file = path.parent / name
    if not _beside(file, path):
        raise UsageError(
            f"{label} lies in {shown(name)!r}, a link to a file outside the model's folder; copy the file there"
        )
    if not file.is_file():
        raise UsageError(
            f"it keeps its weights in '{shown(name)}', which is not beside it; copy it to {path.parent}, "
            "or export with the weights inside (onnx.save without save_as_external_data)"
        )
    size = elements(tensor.dims) * item_bytes(tensor, label)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        offset, length = -1, 0
    available = file.stat().st_size
    if length != size or offset < 0 or offset + size > available:
        raise UsageError(
            f"{label} takes {size} bytes of '{shown(name)}' ({available} bytes), which cannot be read: offset "
            f"{shown(entries.get('offset', '0'))}, length {shown(entries.get('length', 'not given'))}; "
            "copy both files again"
        )
    with file.open("rb") as opened:
        opened.seek(offset)
        tensor.raw_data = opened.read(size)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return name


def _beside(file: Path, model: Path) -> bool:
    """Whether a file that may be a link lies in the model's folder, or in that of what the model is a link to.

    The second is how download caches keep a model: links to two files of one folder.
    """
    real = file.resolve()
    return any(real.is_relative_to(folder) for folder in (model.parent.resolve(), model.resolve().parent))


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
            yield from _tensors(graph)
