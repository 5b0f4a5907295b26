"""A policy that does not fit its board: what is too large, by how much, and what would fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import DoesNotFitError
from ..graph import Graph
from ..memory import Buffer, MemoryPlan, buffers_of
from ..memory.lifetimes import lower_bound
from ..training.plan import TrainingPlan, plan_training
from ..training.scheme import Scheme
from ..training.scheme_file import scheme_lines
from ..training.smaller import smaller_schemes
from ..training.trainable import trainable_layers
from .budget import check_fit, flash_problem, sram_problem
from .purposes import purpose_use, step_name
from .training_budget import training_flash

if TYPE_CHECKING:
    from ..lowering import Lowered

LARGEST = 4  # buffers that a message names

Plan = Callable[[Scheme | None], "Lowered"]


def plan_that_fits(policy: str, scheme: Scheme | None, plan: Plan) -> tuple[Lowered, Lowered]:
    """(the model with its policy, inference alone), both within the board's memories.

    Raises DoesNotFitError: what inference needs too much, or what the policy adds, and a smaller one that fits.
    """
    inference = plan(None)
    _check(inference)
    if scheme is None:
        return inference, inference
    try:
        lowered = plan(scheme)
        _check(lowered)
    except DoesNotFitError as error:
        raise DoesNotFitError(_explanation(policy, scheme, inference, plan, error)) from None
    return lowered, inference


def _check(lowered: Lowered) -> None:
    check_fit(lowered.sram, lowered.flash, lowered.plan, lowered.board, largest_buffers(lowered.plan))


def largest_buffers(plan: MemoryPlan, count: int = 3) -> dict[str, int]:
    """The biggest buffers live at the step with the most live bytes."""
    live = purpose_use([p.buffer for p in plan.placements]).live
    return dict(list(live.items())[:count])


def _buffers(graph: Graph, training: TrainingPlan) -> list[Buffer]:
    buffers = buffers_of(graph)
    training.extra.add_to(buffers)
    return buffers


def _explanation(policy: str, scheme: Scheme, inference: Lowered, plan: Plan, error: DoesNotFitError) -> str:
    graph, board = inference.graph, inference.board
    training = plan_training(graph, scheme, inference.classes, inference.options)
    use = purpose_use(_buffers(graph, training))
    purposes = sorted(((size, purpose) for purpose, size in use.at_peak.items() if size), reverse=True)
    largest = list(use.live.items())[:LARGEST]
    lines = [
        f"--policy {policy} does not fit {board.name}",
        *(f"  {problem}" for problem in _problems(plan, scheme, error)),
        f"  most bytes are live at the {step_name(graph, training, use.step)}: "
        + ", ".join(f"{purpose.replace('_', ' ')} {size:,}" for size, purpose in purposes),
        "  the largest of them: " + ", ".join(f"{name} {size:,}" for name, size in largest),
        f"  inference alone needs {inference.sram.needed:,} bytes of SRAM",
        *_alternative(scheme, inference, plan),
        f"  on this machine it can be tried all the same: compile with --policy none, then "
        f"tinytrain evaluate DIR --policy {policy} ...",
    ]
    return "\n".join(lines)


def _problems(plan: Plan, scheme: Scheme, error: DoesNotFitError) -> list[str]:
    try:
        lowered = plan(scheme)
    except DoesNotFitError:  # it could not even be spread over the banks
        return [str(error)]
    found = []
    if lowered.sram.needed > lowered.sram.budget:
        found.append(sram_problem(lowered.sram, lowered.board))
    if lowered.flash.total > lowered.flash.budget:
        found.append(flash_problem(lowered.flash, lowered.board))
    return found or str(error).splitlines()[1:]


def _alternative(scheme: Scheme, inference: Lowered, plan: Plan) -> list[str]:
    """Lines that name a smaller scheme and its numbers, or --policy none."""
    graph, sram, flash = inference.graph, inference.sram, inference.flash
    nothing = "--policy none" + (" --head prototype" if inference.options.head.learns else "")
    if scheme.candidates:
        room = (sram.budget - sram.needed) // 1024
        return [f"  what would fit: {f'a --pool of about {room} KiB' if room > 0 else nothing}"]

    def training_of(smaller: Scheme) -> TrainingPlan:
        return plan_training(graph, smaller, inference.classes, inference.options)

    def may_fit(smaller: Scheme) -> bool:
        training = training_of(smaller)
        bound = lower_bound(_buffers(graph, training))
        room = sram.needed - sram.arena + bound <= sram.budget
        return room and flash.total + sum(training_flash(training, inference.board)) <= flash.budget

    candidates = [(training_of(s), s) for s in smaller_schemes(graph, scheme, may_fit)]
    # The more is learnt, the better, as far as one can say without training it.
    for training, smaller in sorted(candidates, key=lambda found: -found[0].learnt_bytes):
        try:
            lowered = plan(smaller)
            _check(lowered)
        except DoesNotFitError:
            continue
        weights = sum(layer.deltas for layer in training.layers)
        biases = sum(len(layer.node.constants["bias"]) for layer in training.layers)
        return [
            f"  what would fit: --policy sparse-update --scheme FILE, with {weights:,} weights and {biases:,} biases "
            f"of {_layers(len(training.layers))}, {lowered.sram.needed:,} bytes of SRAM; FILE:",
            *(f"    {line}" for line in scheme_lines(trainable_layers(graph), smaller)),
        ]
    return [f"  what would fit: {nothing} (prototypes only)"]


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
