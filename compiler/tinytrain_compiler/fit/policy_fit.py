"""A policy that does not fit its board: what is too large, by how much, and what would fit. What is proposed was
planned and found to fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import DoesNotFitError, TooLittleError
from ..footprint.purposes import purpose_use
from ..footprint.training import training_flash
from ..lowering import Lowered
from ..memory import MemoryPlan, buffers_of, lower_bound
from ..training.options import LearningOptions
from ..training.plan import TrainingPlan, plan_training
from ..training.scheme import Scheme, TrainedLayer
from ..training.scheme_file import scheme_lines
from ..training.smaller import smaller_schemes
from ..training.trainable import trainable_layers
from .check import check_fit, flash_problem, sram_problem

LARGEST = 4  # buffers that a message names

Plan = Callable[[Scheme | None, LearningOptions], Lowered]


def plan_that_fits(policy: str, scheme: Scheme | None, options: LearningOptions, plan: Plan) -> tuple[Lowered, Lowered]:
    """(the model with its policy, inference alone), both within the board's memories.

    Raises DoesNotFitError: what inference needs too much, or what the policy adds, and a smaller one that fits.
    """
    inference = plan(None, options)
    _check(inference)
    if scheme is None:
        return inference, inference
    try:
        lowered = plan(scheme, options)
        _check(lowered)
    except TooLittleError as error:
        raise _too_little(error, policy, scheme, inference, plan) from None
    except DoesNotFitError as error:
        raise DoesNotFitError(_explanation(policy, scheme, inference, plan, error)) from None
    return lowered, inference


def _check(lowered: Lowered) -> None:
    check_fit(lowered.sram, lowered.flash, lowered.plan, lowered.board, largest_buffers(lowered.plan))


def _fitting(plan: Plan, scheme: Scheme, options: LearningOptions) -> Lowered | None:
    """The whole plan where it fits, else None. Raises TooLittleError."""
    try:
        lowered = plan(scheme, options)
        _check(lowered)
    except TooLittleError:
        raise
    except DoesNotFitError:
        return None
    return lowered


def largest_buffers(plan: MemoryPlan, count: int = 3) -> dict[str, int]:
    """The biggest buffers live at the step with the most live bytes."""
    live = purpose_use([p.buffer for p in plan.placements]).live
    return dict(list(live.items())[:count])


# -- what is too large ---------------------------------------------------------------------------


def _explanation(policy: str, scheme: Scheme, inference: Lowered, plan: Plan, error: DoesNotFitError) -> str:
    graph, board = inference.graph, inference.board
    training = plan_training(graph, scheme, inference.classes, inference.options)
    use = purpose_use(buffers_of(training.schedule))
    purposes = sorted(((size, purpose) for purpose, size in use.at_peak.items() if size), reverse=True)
    largest = list(use.live.items())[:LARGEST]
    lines = [
        f"--policy {policy} does not fit {board.name}",
        *(f"  {problem}" for problem in _problems(plan, scheme, inference.options, error)),
        f"  most bytes are live at the {training.schedule.moments[use.moment].name}: "
        + ", ".join(f"{purpose.replace('_', ' ')} {size:,}" for size, purpose in purposes),
        "  the largest of them: " + ", ".join(f"{name} {size:,}" for name, size in largest),
        f"  inference alone needs {inference.sram.needed:,} bytes of SRAM",
        *_what_fits(scheme, inference, plan),
        f"  on this machine it can be tried all the same: compile with {_prototypes(inference)}, then "
        f"tinytrain evaluate DIR --policy {policy} ...",
    ]
    return "\n".join(lines)


def _problems(plan: Plan, scheme: Scheme, options: LearningOptions, error: DoesNotFitError) -> list[str]:
    try:
        lowered = plan(scheme, options)
    except DoesNotFitError:  # it could not even be spread over the banks
        return [str(error)]
    found = []
    if lowered.sram.needed > lowered.sram.budget:
        found.append(sram_problem(lowered.sram, lowered.board))
    if lowered.flash.total > lowered.flash.budget:
        found.append(flash_problem(lowered.flash, lowered.board))
    return found or str(error).splitlines()[1:]


def _too_little(error: TooLittleError, policy: str, scheme: Scheme, inference: Lowered, plan: Plan) -> DoesNotFitError:
    """An option below what any choice needs: with the least that it needs, or, where that does not fit, what does."""
    options, proposals, missing = inference.options, [], error
    fits = None
    while fits is None:
        least = {"pool": replace(options, pool=1024 * missing.least), "macs": replace(options, macs=missing.least)}
        options = least[missing.option]
        proposals.append(f"--{missing.option} {missing.least}")
        try:
            fits = _fitting(plan, scheme, options) is not None
        except TooLittleError as error_of_another:
            missing = error_of_another
    if fits:
        return DoesNotFitError(f"{error.message}; give {' '.join(proposals)} or more")
    lines = [
        f"--policy {policy} does not fit {inference.board.name}",
        f"  {error.message}, and {' '.join(proposals)} does not fit the memory either",
        *_what_fits(scheme, inference, plan),
    ]
    return DoesNotFitError("\n".join(lines))


# -- what would fit ------------------------------------------------------------------------------


def _what_fits(scheme: Scheme, inference: Lowered, plan: Plan) -> list[str]:
    """Lines that name the largest pool, else a smaller static scheme and its numbers, else prototypes alone."""
    if scheme.candidates:
        pool = largest_pool(scheme, inference, plan)
        if pool is not None:
            return [f"  what would fit: --pool {pool}"]
        scheme = _static(scheme)
    return _smaller_scheme(scheme, inference, plan) or [f"  what would fit: {_prototypes(inference)} (prototypes only)"]


def _prototypes(inference: Lowered) -> str:
    return "--policy none" + (" --head prototype" if inference.options.head.learns else "")


def largest_pool(scheme: Scheme, inference: Lowered, plan: Plan) -> int | None:
    """KiB of the largest pool with which everything fits; None where none does. Each one tried is planned whole."""
    low, high = 0, (inference.sram.budget - inference.sram.needed) // 1024 + 1  # the pool is always live
    found = None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            lowered = _fitting(plan, scheme, replace(inference.options, pool=1024 * middle))
        except TooLittleError:
            low = middle
            continue
        if lowered is None:
            high = middle
        else:
            low = found = middle
    return found


def _static(scheme: Scheme) -> Scheme:
    """The static scheme that updates as many channels, the first ones, as the device might choose."""
    return Scheme({name: TrainedLayer(tuple(range(layer.limit))) for name, layer in scheme.layers.items()})


def _smaller_scheme(scheme: Scheme, inference: Lowered, plan: Plan) -> list[str]:
    """Lines that name the smaller scheme with the largest training state that fits; none where none does."""
    graph, options, sram, flash = inference.graph, inference.options, inference.sram, inference.flash

    def training_of(smaller: Scheme) -> TrainingPlan:
        return plan_training(graph, smaller, inference.classes, options)

    def may_fit(smaller: Scheme) -> bool:
        training = training_of(smaller)
        bound = lower_bound(buffers_of(training.schedule))
        room = sram.needed - sram.arena + bound <= sram.budget
        return room and flash.total + sum(training_flash(training, inference.board)) <= flash.budget

    candidates = [(training_of(s), s) for s in smaller_schemes(graph, scheme, may_fit)]
    # The larger the training state, the better, as far as one can say without training it.
    for training, smaller in sorted(candidates, key=lambda found: -found[0].training_state_bytes):
        lowered = _fitting(plan, smaller, options)
        if lowered is None:
            continue
        weights = sum(layer.deltas for layer in training.layers)
        biases = sum(len(layer.node.constants["bias"]) for layer in training.layers)
        return [
            f"  what would fit: --policy sparse-update --scheme FILE, with {weights:,} weights and {biases:,} biases "
            f"of {_layers(len(training.layers))}, {lowered.sram.needed:,} bytes of SRAM; FILE:",
            *(f"    {line}" for line in scheme_lines(trainable_layers(graph), smaller)),
        ]
    return []


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
