"""When each byte is live.

A *buffer* is memory at one offset that serves one tensor or, where an operator works in place or
only renames its input, a chain of tensors one after the other. Its size may shrink along the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..graph import Graph, Node
from ..ops import operator_of
from ..runtime_abi import ALIGNMENT

Purpose = Literal["inference", "masks", "saved_inputs", "gradients", "scratch", "parameters", "learnt", "loss"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


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
    purpose: Purpose = "inference"

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


@dataclass(frozen=True)
class Extra:
    """What training adds to the buffers of inference. Its steps come after those of the nodes."""

    buffers: Sequence[Buffer]
    last_uses: Mapping[str, int]  # tensors of the forward pass that are read again, and when

    def __post_init__(self) -> None:
        """A buffer of training must say what it is for: the report accounts for every byte by purpose."""
        unknown = [buffer.name for buffer in self.buffers if buffer.purpose == "inference"]
        if unknown:
            raise ValueError(f"buffers of training without a purpose: {', '.join(unknown)}")

    def add_to(self, buffers: list[Buffer]) -> None:
        for tensor, step in self.last_uses.items():
            owner = next(buffer for buffer in buffers if tensor in buffer.tensors)
            span = owner.spans[-1]
            owner.spans[-1] = Span(span.first, max(span.last, step), span.bytes)
        buffers += self.buffers


def align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def buffers_of(graph: Graph) -> list[Buffer]:
    """All buffers of one inference, activations first, then each node's scratch memory."""
    root = renamed(graph)  # tensors that share bytes live and die together: all below goes by their root
    last_use = {root[name]: step for step, node in enumerate(graph.nodes) for name in node.inputs}
    end = len(graph.nodes) - 1
    for kept in (graph.output, graph.features):  # read after the last step, so no step may overwrite them
        last_use[root[kept]] = end + 1
    owner: dict[str, Buffer] = {}  # by root
    buffers: list[Buffer] = []

    def live_span(tensor: str, first: int) -> Span:
        last = min(last_use.get(tensor, first), end)
        return Span(first, last, align(graph.tensors[tensor].bytes))

    def start(tensor: str, step: int) -> None:
        owner[tensor] = Buffer(tensor, [live_span(tensor, step)], [tensor])
        buffers.append(owner[tensor])

    start(graph.input, 0)
    for step, node in enumerate(graph.nodes):
        if root[node.output] != node.output:
            owner[root[node.output]].tensors.append(node.output)
            continue
        source = _taken_over(graph, node, [root[name] for name in node.inputs], step, last_use)
        if source is None:
            start(node.output, step)
        else:
            buffer = owner[node.output] = owner[source]
            buffer.spans.append(live_span(node.output, step))
            buffer.tensors.append(node.output)
        scratch = operator_of(node).scratch_bytes(node, graph.tensors)
        if scratch:
            buffers.append(Buffer(f"{node.name} (scratch)", [Span(step, step, align(scratch))]))
    return buffers


def renamed(graph: Graph) -> dict[str, str]:
    """For each tensor the one whose bytes it shows: itself, unless a node without code made it."""
    root = {name: name for name in graph.tensors}
    for node in graph.nodes:
        if operator_of(node).keeps_bytes:
            root[node.output] = root[node.inputs[0]]
    return root


def _taken_over(graph: Graph, node: Node, inputs: list[str], step: int, last_use: dict[str, int]) -> str | None:
    """The input whose memory the output takes over, or None."""
    for index in operator_of(node).in_place(node, graph.tensors):
        name = inputs[index]
        if last_use[name] == step and inputs.count(name) == 1:
            return name
    return None


def lower_bound(buffers: list[Buffer]) -> int:
    """The largest sum of live bytes over all steps: no placement can need less."""
    end = max(buffer.last for buffer in buffers)
    return max(sum(buffer.bytes_at(step) for buffer in buffers) for step in range(end + 1))
