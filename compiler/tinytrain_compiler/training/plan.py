"""The plan of a model that trains: its layers, its state, its pool, and the schedule of one training step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..graph import Graph, Node
from ..schedule import Loss, Schedule, align
from .formats import Formats
from .freeze_boundary import FreezeBoundary, freeze_boundary
from .layers import LayerState, lay_out
from .options import DEFAULT, LearningOptions
from .pool import SelectionPlan, plan_pool
from .scheme import Scheme
from .step_schedule import training_schedule


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that code generation and the memory planner need to know about training."""

    scheme: Scheme
    options: LearningOptions
    layers: list[LayerState]
    training_state_bytes: int
    boundary: FreezeBoundary
    head_offset: int  # of the head's part inside the training state
    head_bytes: int
    selection: SelectionPlan | None
    schedule: Schedule

    @property
    def formats(self) -> Formats:
        return self.options.formats

    @property
    def fisher_passes(self) -> int:
        """Over the samples, where the device chooses by what they say."""
        return self.selection.groups if self.selection is not None and self.options.selector.measures else 0

    @cached_property
    def _by_node(self) -> dict[str, LayerState]:
        return {layer.node.name: layer for layer in self.layers}

    def layer(self, node: Node) -> LayerState:
        """Of a node that trains."""
        return self._by_node[node.name]

    @property
    def loss(self) -> Loss:
        return next(step for step in self.schedule.steps("loss") if isinstance(step, Loss))


def plan_training(graph: Graph, scheme: Scheme, classes: int, options: LearningOptions = DEFAULT) -> TrainingPlan:
    """Lay the training state out and put the steps in order.

    Errors: NoBackwardRuleError naming the operator that lies on the path and has no rule; DoesNotFitError for a
    pool that is too small.
    """
    layers, head_offset = lay_out(graph, scheme, options.formats.rounding)
    head_bytes = options.head.state_bytes(classes, graph.tensors[graph.features].bytes)
    boundary = freeze_boundary(graph, scheme.layers)
    training_state_bytes, selection = head_offset + head_bytes, None
    if scheme.candidates:
        selection = plan_pool(graph, scheme, align(training_state_bytes), options)
        training_state_bytes = selection.pool_bytes
    schedule = training_schedule(graph, scheme, layers, selection, training_state_bytes, classes, options.formats)
    return TrainingPlan(
        scheme, options, layers, training_state_bytes, boundary, head_offset, head_bytes, selection, schedule
    )
