"""The backward pass as C, with gradients as int16 mantissas and an exponent a tensor."""

from __future__ import annotations

from ..schedule import (
    Accumulate,
    ApplyMask,
    CopyGradient,
    FisherScore,
    InputGradient,
    UpdateBias,
    UpdateWeights,
)
from .backward_parts import (
    argmax_indices,
    during_group,
    fisher_input,
    fisher_shape,
    update,
    update_chosen,
    values,
    weights,
)
from .forward_steps import FORWARD
from .step_text import SELECTING, Statement, StepText, StepWriters

INT16 = StepWriters(FORWARD)


@INT16.writes(ApplyMask)
def _apply_mask(c: StepText, step: ApplyMask) -> list[Statement]:
    g, mask, count = c.gradient(step.gradient), c.cast("uint32_t", step.mask), c.count(step.node.output)
    return [Statement([f"tt_apply_mask({g}, {mask}, {count});"])]


@INT16.writes(UpdateBias)
def _update_bias(c: StepText, step: UpdateBias) -> list[Statement]:
    g, exponent, count = c.gradient(step.gradient), c.exponent(step.gradient), c.count(step.node.output)
    learn, pixels = c.names.of("learn", step.node), count // len(step.node.constants["bias"])
    lines = [
        f"const int32_t magnitude = tt_magnitude({g}, {count});",
        f"tt_learn_bias(&{learn}, &state, rate, {g}, {pixels}, {exponent}, magnitude);",
    ]
    return [Statement(c.state(step.node, step.state)), update(c, lines)]


@INT16.writes(UpdateWeights)
def _update_weights(c: StepText, step: UpdateWeights) -> list[Statement]:
    g, saved = c.gradient(step.gradient), c.saved_inputs(step.node, step.inputs)
    last = f"{c.exponent(step.gradient)}, magnitude{c.working(step.working)}"
    call = f"{c.symbol(step)}(&{c.names.of('learn', step.node)}, &state, rate, {g}, {saved}, {last});"
    return [update_chosen(c, step, call)]


@INT16.writes(InputGradient)
def _input_gradient(c: StepText, step: InputGradient) -> list[Statement]:
    exponent, variable = c.exponent(step.gradient), c.exponent(step.target)
    g, dx, function = c.gradient(step.gradient), c.gradient(step.target), c.symbol(step)
    working = c.working(step.working)
    if not step.scales:
        lines = [f"{variable} = {exponent} + {function}({g}, {dx}{argmax_indices(c, step)}{values(c, step)}{working});"]
    else:
        count, outputs = c.count(step.node.output), len(step.node.constants["weights"])
        scales, bounds = c.names.local("scales_of", step.node), step.kernel.arguments
        lines = [
            f"{exponent} += tt_scale_channels({g}, {count}, {outputs}, &{scales}, {bounds['drop']});",
            f"const int32_t shift = tt_input_shift({g}, {count}, {bounds['l1']});",
            f"{function}({g}, {dx}, {weights(c, step)}, shift{working});",
            f"{variable} = {exponent} + shift;",
        ]
    return [Statement(lines, SELECTING if step.selecting else "")]


@INT16.writes(FisherScore)
def _fisher_score(c: StepText, step: FisherScore) -> list[Statement]:
    arguments = f"{fisher_input(c, step)}, {c.gradient(step.gradient)}, {fisher_shape(c, step)}"
    return [during_group(step, f"tt_fisher_add({arguments}, {c.exponent(step.gradient)});")]


@INT16.writes(Accumulate)
def _accumulate(c: StepText, step: Accumulate) -> list[Statement]:
    target, source = c.gradient(step.target), c.gradient(step.source)
    into, other, count = c.exponent(step.target), c.exponent(step.source), c.count(step.tensor)
    return [Statement([f"{into} = tt_add_gradients({target}, {into}, {source}, {other}, {count});"])]


@INT16.writes(CopyGradient)
def _copy_gradient(c: StepText, step: CopyGradient) -> list[Statement]:
    target, source = c.gradient(step.target), c.gradient(step.source)
    lines = [
        f"memcpy({target}, {source}, {2 * c.count(step.tensor)});",
        f"{c.exponent(step.target)} = {c.exponent(step.source)};",
    ]
    return [Statement(lines)]
