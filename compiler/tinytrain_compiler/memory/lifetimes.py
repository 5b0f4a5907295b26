"""When each byte is live: read off the steps of a schedule.

A *buffer* is memory at one offset that serves one tensor or, where an operator works in place or
only renames its input, a chain of tensors one after the other. Its size may shrink along the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ops import operator_of
from ..schedule import Activation, BufferSpec, Forward, Purpose, Schedule, align, renamed


@dataclass(frozen=True)
class Span:
    """`bytes` live during moments first..last (numbers in the schedule, both included)."""

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
        """Whether both are live at some moment. (Spans of a chain touch, so sizes at a moment are a maximum.)"""
        return any(a.meets(b) for a in self.spans for b in other.spans)

    def bytes_at(self, moment: int) -> int:
        return max((s.bytes for s in self.spans if s.first <= moment <= s.last), default=0)


def buffers_of(schedule: Schedule) -> list[Buffer]:
    """All buffers: activations, each node's scratch memory behind its output, then those of training."""
    forward = _ForwardBuffers(schedule)
    for number, moment in enumerate(schedule.moments):
        for step in moment.steps:
            if isinstance(step, Forward):
                forward.add(number, step)
    last = len(schedule.moments) - 1
    uses = _uses(schedule)
    trained = [
        Buffer(spec.name, [Span(*((0, last) if spec.persistent else uses[spec]), align(spec.bytes))], [], spec.purpose)
        for spec in schedule.buffers
    ]
    return forward.buffers + trained


def _uses(schedule: Schedule) -> dict[BufferSpec, tuple[int, int]]:
    """The first and the last moment that uses a buffer."""
    found: dict[BufferSpec, tuple[int, int]] = {}
    for number, moment in enumerate(schedule.moments):
        for step in moment.steps:
            for place in (*step.reads, *step.writes, *step.scratch):
                if isinstance(place, BufferSpec):
                    found[place] = (found.get(place, (number, 0))[0], number)
    return found


class _ForwardBuffers:
    """Buffers of activations and of the forward pass's scratch memory, node by node."""

    def __init__(self, schedule: Schedule) -> None:
        self._graph = schedule.graph
        self._root = renamed(schedule.graph)  # tensors that share bytes live and die together: all goes by their root
        self._last_read = self._last_reads(schedule)
        self._kept = {self._root[name] for name in schedule.results}
        self._owner: dict[str, Buffer] = {}  # by root
        self.buffers: list[Buffer] = []
        self._start(schedule.graph.input, 0)

    def add(self, number: int, step: Forward) -> None:
        """The output and the scratch memory of a node that runs at this moment."""
        output = step.node.output
        if self._root[output] != output:
            self._owner[self._root[output]].tensors.append(output)
        elif (source := self._taken_over(number, step)) is not None:
            buffer = self._owner[output] = self._owner[source]
            buffer.spans.append(self._span(output, number))
            buffer.tensors.append(output)
        else:
            self._start(output, number)
        for spec in step.scratch:
            self.buffers.append(Buffer(spec.name, [Span(number, number, align(spec.bytes))]))

    def _start(self, tensor: str, number: int) -> None:
        self._owner[tensor] = Buffer(tensor, [self._span(tensor, number)], [tensor])
        self.buffers.append(self._owner[tensor])

    def _span(self, tensor: str, first: int) -> Span:
        return Span(first, self._last_read.get(tensor, first), align(self._graph.tensors[tensor].bytes))

    def _last_reads(self, schedule: Schedule) -> dict[str, int]:
        """The last moment at which a root's bytes are read; results stay until the forward pass is over."""
        found: dict[str, int] = {}
        end = 0
        for number, moment in enumerate(schedule.moments):
            for step in moment.steps:
                found |= {self._root[place.name]: number for place in step.reads if isinstance(place, Activation)}
                end = number if isinstance(step, Forward) else end
        return found | {self._root[name]: max(end, found.get(self._root[name], 0)) for name in schedule.results}

    def _taken_over(self, number: int, step: Forward) -> str | None:
        """The input whose memory the output takes over, or None."""
        inputs = [self._root[name] for name in step.node.inputs]
        for index in operator_of(step.node).in_place(step.node, self._graph.tensors):
            name = inputs[index]
            if name not in self._kept and self._last_read[name] == number and inputs.count(name) == 1:
                return name
        return None


def lower_bound(buffers: list[Buffer]) -> int:
    """The largest sum of live bytes over all moments: no placement can need less."""
    end = max(buffer.last for buffer in buffers)
    return max(sum(buffer.bytes_at(moment) for buffer in buffers) for moment in range(end + 1))
