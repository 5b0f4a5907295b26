"""Where the arena's bytes go: by purpose, when most are live, and at each purpose's own worst moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..graph import Graph
from ..memory import PURPOSES, Buffer, Purpose
from ..training.plan import TrainingPlan
from ..training.scheme import backward_nodes

Phase = Literal["forward", "loss", "backward"]


@dataclass(frozen=True)
class PurposeUse:
    """Bytes by purpose. Buffers share bytes over time, so only one moment's can be added up."""

    step: int  # with the most live bytes
    at_peak: dict[Purpose, int]  # live at that step; they add up to the plan's lower bound
    largest: dict[Purpose, int]  # most bytes of a purpose at once, whenever that is
    live: dict[str, int]  # buffers live at that step, largest first


def purpose_use(buffers: Sequence[Buffer]) -> PurposeUse:
    steps = range(max(buffer.last for buffer in buffers) + 1)
    by_step = [dict.fromkeys(PURPOSES, 0) for _ in steps]
    for buffer in buffers:
        for step in range(buffer.first, buffer.last + 1):
            by_step[step][buffer.purpose] += buffer.bytes_at(step)
    peak = max(steps, key=lambda step: sum(by_step[step].values()))
    live = sorted(((b.name, b.bytes_at(peak)) for b in buffers), key=lambda item: -item[1])
    return PurposeUse(
        peak,
        by_step[peak],
        {purpose: max(at[purpose] for at in by_step) for purpose in PURPOSES},
        {name: size for name, size in live if size},
    )


def step_at(graph: Graph, training: TrainingPlan | None, step: int) -> tuple[Phase, str | None]:
    """A planner's step as its phase and its layer; the loss has none."""
    if step < len(graph.nodes):
        return "forward", graph.nodes[step].name
    if step == len(graph.nodes) or training is None:
        return "loss", None
    return "backward", backward_nodes(graph, training.scheme)[step - len(graph.nodes) - 1].name


def step_name(graph: Graph, training: TrainingPlan | None, step: int) -> str:
    """A planner's step in words: "forward pass of conv1", "loss", "backward pass of conv1"."""
    return phase_text(*step_at(graph, training, step))


def phase_text(phase: Phase, layer: str | None) -> str:
    return phase if layer is None else f"{phase} pass of {layer}"
