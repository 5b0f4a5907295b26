"""Texts of a model file: all of them are text, and every name can be shown, in a message or a report.

A name may hold newlines, escape sequences of terminals, or 100,000 characters. Names that cannot be shown as they
are get others here, once, so that nothing behind has to think of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from ...errors import UsageError, shown

MAX_NAME = 200


def check_texts(proto: onnx.ModelProto) -> None:
    """Raise UsageError where a text is not UTF-8; protobuf hands such a one over as bytes."""
    for where, text in _texts(proto, "the model"):
        if isinstance(text, bytes):
            raise UsageError(f"damaged: {where} holds a text that is not UTF-8; export or download it again")


def _texts(message: Any, where: str) -> Iterator[tuple[str, str | bytes]]:
    """Every text of a message and what it is part of. Strings of attributes, which ONNX stores as bytes, included."""
    if isinstance(message, onnx.NodeProto):
        where = f"node {shown(message.name or '(unnamed)')!r}"
    elif isinstance(message, onnx.AttributeProto):
        where = f"attribute {shown(message.name)!r} of {where}"
        strings = [message.s, *message.strings]
        yield from ((where, text) for text in strings if not _is_utf8(text))
    elif isinstance(message, onnx.TensorProto):
        yield f"tensor {shown(message.name)!r}", message.name
        return
    for field, value in message.ListFields():
        values = value if not isinstance(value, str | bytes) and hasattr(value, "__len__") else [value]
        if field.message_type is not None:
            for each in values:
                yield from _texts(each, where)
        elif not (isinstance(message, onnx.AttributeProto) and field.name in ("s", "strings")):
            yield from ((where, text) for text in values if isinstance(text, str | bytes))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def make_legible(proto: onnx.ModelProto) -> None:
    """Give every node and tensor, in place, a name that can be shown; no two nodes share one. Good names stay."""
    graph = proto.graph
    taken = {info.name for info in [*graph.input, *graph.output, *graph.initializer]}
    taken |= {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    fresh = _fresh(taken)
    renamed: dict[str, str] = {}

    def legible(name: str) -> str:
        if len(name) <= MAX_NAME and name.isprintable():
            return name
        if name not in renamed:
            renamed[name] = fresh(shown(name, MAX_NAME // 2))
        return renamed[name]

    _rename_tensors(graph, legible)
    seen: set[str] = set()
    for node in graph.node:
        if node.name:
            name = legible(node.name)
            node.name = fresh(name) if name in seen else name
            seen.add(node.name)


def _fresh(taken: set[str]) -> Callable[[str], str]:
    counts: dict[str, int] = {}

    def fresh(base: str) -> str:
        name = base
        while name in taken:
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        return name

    return fresh


def _rename_tensors(graph: onnx.GraphProto, legible: Callable[[str], str]) -> None:
    """Also in the graphs that nodes hold, which may read tensors from outside."""
    del graph.quantization_annotation[:]
    for info in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        if (name := legible(info.name)) != info.name:
            info.name = name
    for node in graph.node:
        for names in (node.input, node.output):
            for i, old in enumerate(names):
                if (name := legible(old)) != old:
                    names[i] = name
        for attribute in node.attribute:
            for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                _rename_tensors(inner, legible)
