"""A graph as one file: the same graph gives the same bytes, and the same bytes the same graph.

Version 2. A first line, `tinytrain graph 2`; a second line, one JSON object; then the arrays, back to back. The object:

    input, output, features   names of tensors
    tensors   [{name, shape, scale, zero_point}], in order; scale as the shortest decimal that reads back exactly
    nodes     [{name, op, inputs, output, attributes, constants}], in execution order; attributes: the fields of the
              operator's own record, windows as objects of theirs; constants: {role: {dtype, shape, offset}}
    origins   {tensor: {name, layout}}: its name in the oracle's model
    input_layout, output_layout    null where they lie as images and vectors do

A layout is {shape, sizes, order}, the tensor's shape in the model's file and how its values lie on the device, as
graph/layout.py describes it.

An array has the dtype that NumPy spells `dtype` (little-endian), is in C order, and begins `offset` bytes behind the
second line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from .graph import Graph, Node, Origin, Tensor, verify
from .layout import Layout
from .quantization import Quantization

VERSION = 2
_MAGIC = b"tinytrain graph "


class GraphFileError(ValueError):
    """The bytes are no graph of this version."""


def graph_bytes(graph: Graph) -> bytes:
    """The file's content."""
    arrays: list[bytes] = []
    end = 0

    def stored(array: NDArray[Any]) -> dict[str, Any]:
        nonlocal end
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        entry = {"dtype": array.dtype.str, "shape": list(array.shape), "offset": end}
        arrays.append(array.tobytes())
        end += array.nbytes
        return entry

    document = {
        "input": graph.input,
        "output": graph.output,
        "features": graph.features,
        "tensors": [
            {"name": t.name, "shape": t.shape, "scale": t.quantization.scale, "zero_point": t.quantization.zero_point}
            for t in graph.tensors.values()
        ],
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "inputs": node.inputs,
                "output": node.output,
                "attributes": asdict(node.attributes),
                "constants": {role: stored(array) for role, array in node.constants.items()},
            }
            for node in graph.nodes
        ],
        "origins": {
            tensor: {"name": origin.name, "layout": _stored_layout(origin.layout)}
            for tensor, origin in graph.origins.items()
        },
        "input_layout": _stored_layout(graph.input_layout),
        "output_layout": _stored_layout(graph.output_layout),
    }
    return _MAGIC + f"{VERSION}\n{json.dumps(document, allow_nan=False)}\n".encode() + b"".join(arrays)


def graph_from_bytes(data: bytes, attributes: Mapping[str, type]) -> Graph:
    """The graph that graph_bytes wrote. attributes: the record of each operator's attributes, by operator.

    Errors: GraphFileError where the bytes are something else, or of another version.
    """
    first, _, rest = data.partition(b"\n")
    if first != _MAGIC + str(VERSION).encode():
        raise GraphFileError(f"it does not begin with '{_MAGIC.decode()}{VERSION}'")
    text, _, arrays = rest.partition(b"\n")
    try:
        graph = _graph(json.loads(text), arrays, attributes)
        verify(graph, after="reading")
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise GraphFileError(f"its content is not valid ({error!r})") from error
    return graph


def _graph(document: dict[str, Any], arrays: bytes, attributes: Mapping[str, type]) -> Graph:
    def constant(entry: dict[str, Any]) -> NDArray[Any]:
        shape = tuple(entry["shape"])
        found = np.frombuffer(arrays, entry["dtype"], int(np.prod(shape)), entry["offset"]).reshape(shape)
        return found.astype(found.dtype.newbyteorder("="))

    tensors = [
        Tensor(t["name"], tuple(t["shape"]), Quantization(t["scale"], t["zero_point"])) for t in document["tensors"]
    ]
    nodes = [
        Node(
            n["name"], n["op"], tuple(n["inputs"]), n["output"], _record(attributes[n["op"]], n["attributes"]),
            {role: constant(entry) for role, entry in n["constants"].items()},
        )
        for n in document["nodes"]
    ]  # fmt: skip
    by_name = {t.name: t for t in tensors}

    def layout(tensor: str, stored: dict[str, Any] | None) -> Layout | None:
        if stored is None:
            return None
        shape, sizes, order = (tuple(stored[key]) for key in ("shape", "sizes", "order"))
        return Layout(shape, by_name[tensor].shape, sizes, order)

    origins = {
        tensor: Origin(o["name"], found)
        for tensor, o in document["origins"].items()
        if (found := layout(tensor, o["layout"])) is not None
    }
    first, last = document["input"], document["output"]
    return Graph(
        first, last, document["features"], by_name, nodes, origins,
        layout(first, document["input_layout"]), layout(last, document["output_layout"]),
    )  # fmt: skip


def _stored_layout(layout: Layout | None) -> dict[str, Any] | None:
    return None if layout is None else {"shape": layout.shape, "sizes": layout.sizes, "order": layout.order}


def _record(kind: type, fields: dict[str, Any]) -> Any:
    """A frozen dataclass, and the dataclasses in it, from their fields; JSON's lists are tuples."""
    hints = get_type_hints(kind)

    def value(name: str, found: Any) -> Any:
        if is_dataclass(hints[name]):
            return _record(hints[name], found)
        return _tuples(found)

    return kind(**{name: value(name, found) for name, found in fields.items()})


def _tuples(found: Any) -> Any:
    return tuple(map(_tuples, found)) if isinstance(found, list) else found
