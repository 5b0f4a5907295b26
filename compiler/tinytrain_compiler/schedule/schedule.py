"""A schedule: moments in order, each with its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..graph import Graph, Node
from .places import BufferSpec
from .steps import Step

Phase = Literal["forward", "loss", "backward"]


def moment_name(phase: Phase, layer: str | None) -> str:
    """For people: "forward pass of conv1", "loss", "backward pass of conv1"."""
    return phase if layer is None else f"{phase} pass of {layer}"


@dataclass(frozen=True)
class Moment:
    """Steps during which no memory changes hands: a column of the memory map, a block of C."""

    phase: Phase
    node: Node | None  # None: the loss
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return moment_name(self.phase, None if self.node is None else self.node.name)


@dataclass(frozen=True)
class Schedule:
    """What a model does for one sample: the nodes forward and, where it trains, the loss and the nodes backward.

    A moment's number is its index in `moments`.
    """

    graph: Graph
    moments: tuple[Moment, ...]
    buffers: tuple[BufferSpec, ...] = ()  # of training, in the order in which they are placed

    def __post_init__(self) -> None:
        """Reports account for every byte by purpose, so none of training may count as inference."""
        unknown = [buffer.name for buffer in self.buffers if buffer.purpose == "inference"]
        if unknown:
            raise ValueError(f"buffers of training without a purpose: {', '.join(unknown)}")

    def of(self, phase: Phase) -> Iterator[Moment]:
        return (moment for moment in self.moments if moment.phase == phase)

    def steps(self, *phases: Phase) -> Iterator[Step]:
        """In order; of all phases where none is given."""
        return (step for moment in self.moments if not phases or moment.phase in phases for step in moment.steps)

    @property
    def results(self) -> tuple[str, str]:
        """Tensors that are read once the forward pass is over: no step of it may overwrite them."""
        return self.graph.output, self.graph.features
