"""The model's own functions, put where they are called, within bounds."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator

import onnx
import onnx.inliner

from ...errors import UsageError, first_line, shown
from .limits import MAX_NODES

MAX_BYTES = 1 << 28  # what the bodies may come to, their constants included

_Key = tuple[str, str, str]


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions. Raises UsageError where they call themselves, or become too much."""
    if not proto.functions:
        return proto
    _check_size(proto)
    try:
        return onnx.inliner.inline_local_functions(proto, True)
    except Exception as e:  # the inliner's exceptions share no base class
        raise UsageError(f"its functions cannot be inlined: {first_line(e)}; export without functions") from e


def _check_size(proto: onnx.ModelProto) -> None:
    """Functions that call functions twice each double at every step: count before inlining."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    calls = {key: [k for k in _calls(f.node) if k in functions] for key, f in functions.items()}
    try:
        order = list(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as e:
        names = ", ".join(shown(key[1]) for key in e.args[1])
        raise UsageError(f"its functions call each other in a circle ({names}); export without functions") from e
    size: dict[_Key, tuple[int, int]] = {}
    for key in order:
        size[key] = _total(len(functions[key].node), functions[key].ByteSize(), [size[k] for k in calls[key]])
    called = [size[k] for k in _calls(proto.graph.node) if k in functions]
    nodes, volume = _total(len(proto.graph.node), proto.ByteSize(), called)
    if nodes > MAX_NODES or volume > MAX_BYTES:
        raise UsageError(
            f"with its functions inlined it has {nodes:,} nodes in {volume:,} bytes, at most {MAX_NODES:,} nodes in "
            f"{MAX_BYTES:,} bytes can be compiled; export without functions"
        )


def _total(nodes: int, volume: int, called: list[tuple[int, int]]) -> tuple[int, int]:
    return nodes + sum(n for n, _ in called), volume + sum(v for _, v in called)


def _calls(nodes: object) -> Iterator[_Key]:
    """Who is called by nodes, also in the graphs they hold."""
    for node in nodes:  # type: ignore[attr-defined]
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                yield from _calls(graph.node)
