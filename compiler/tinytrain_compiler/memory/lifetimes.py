"""When each byte is live.

A *buffer* is memory at one offset that serves one tensor or, where an operator works in place or
only renames its input, a chain of tensors one after the other. Its size may shrink along the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph import Graph, Node
from ..ops import operator_of

ALIGNMENT = 16  # bytes: a cache line's half, and what every SIMD load wants


@dataclass(frozen=True)
class Span:
    """`bytes` live during steps first..last (node indices, both included)."""

    first: int
    last: int
    bytes: int

    def meets(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass
class Buffer:
    name: str
    spans: list[Span] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)  # in order of time

    @property
    def bytes(self) -> int:
        return max(span.bytes for span in self.spans)

    @property
    def first(self) -> int:
        return min(span.first for span in self.spans)

    @property
    def last(self) -> int:
        return max(span.last for span in self.spans)

    def meets(self, other: Buffer) -> bool:
        """Whether both are live at some step. (Spans of a chain touch, so sizes at a step are a maximum.)"""
        return any(a.meets(b) for a in self.spans for b in other.spans)

    def bytes_at(self, step: int) -> int:
        return max((s.bytes for s in self.spans if s.first <= step <= s.last), default=0)


def align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def buffers_of(graph: Graph) -> list[Buffer]:
    """All buffers of one inference, activations first, then each node's scratch memory."""
    last_use = {name: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    end = len(graph.nodes) - 1
    last_use[graph.output] = last_use[graph.features] = end
    owner: dict[str, Buffer] = {}
    buffers: list[Buffer] = []

    def live_span(tensor: str, first: int) -> Span:
        return Span(first, last_use.get(tensor, first), align(graph.tensors[tensor].bytes))

    def start(tensor: str, step: int) -> None:
        buffer = Buffer(tensor, [live_span(tensor, step)], [tensor])
        owner[tensor] = buffer
        buffers.append(buffer)

    start(graph.input, 0)
    for step, node in enumerate(graph.nodes):
        source = _taken_over(graph, node, step, last_use)
        if source is None:
            start(node.output, step)
        else:
            buffer = owner[source]
            if operator_of(node).kernel(node, graph.tensors) is None:
                # A new name for the same bytes: they live as long as either does.
                last = max(last_use[source], last_use.get(node.output, step))
                last_use[source] = last_use[node.output] = last
                buffer.spans[-1] = Span(buffer.spans[-1].first, last, buffer.spans[-1].bytes)
            else:
                buffer.spans.append(live_span(node.output, step))
            buffer.tensors.append(node.output)
            owner[node.output] = buffer
        scratch = operator_of(node).scratch_bytes(node, graph.tensors)
        if scratch:
            buffers.append(Buffer(f"{node.name} (scratch)", [Span(step, step, align(scratch))]))
    return buffers


def _taken_over(graph: Graph, node: Node, step: int, last_use: dict[str, int]) -> str | None:
    """The input whose memory the output takes over, or None."""
    operator = operator_of(node)
    is_rename = operator.kernel(node, graph.tensors) is None
    for index in operator.in_place(node, graph.tensors):
        name = node.inputs[index]
        if is_rename or (last_use[name] == step and node.inputs.count(name) == 1):
            return name
    return None


def lower_bound(buffers: list[Buffer]) -> int:
    """The largest sum of live bytes over all steps: no placement can need less."""
    end = max(buffer.last for buffer in buffers)
    return max(sum(buffer.bytes_at(step) for buffer in buffers) for step in range(end + 1))
