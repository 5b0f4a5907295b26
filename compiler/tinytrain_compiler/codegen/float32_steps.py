"""The backward pass as C, with gradients in float32: no exponents, no magnitudes, scales as they are."""

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

FLOAT32 = StepWriters(FORWARD)


@FLOAT32.writes(ApplyMask)
def _apply_mask(c: StepText, step: ApplyMask) -> list[Statement]:
    g, mask, count = c.gradient(step.gradient), c.cast("uint32_t", step.mask), c.count(step.node.output)
    return [Statement([f"tt_float_mask({g}, {mask}, {count});"])]


@FLOAT32.writes(UpdateBias)
def _update_bias(c: StepText, step: UpdateBias) -> list[Statement]:
    pixels = c.count(step.node.output) // len(step.node.constants["bias"])
    learn, inverses = c.names.of("learn", step.node), c.names.local("bias_inverses_of", step.node)
    call = f"tt_float_learn_bias(&{learn}, &state, rate, {inverses}, {c.gradient(step.gradient)}, {pixels});"
    return [Statement(c.state(step.node, step.state)), update(c, [call])]


@FLOAT32.writes(UpdateWeights)
def _update_weights(c: StepText, step: UpdateWeights) -> list[Statement]:
    learn, inverses = c.names.of("learn", step.node), c.names.local("weight_inverses_of", step.node)
    g, saved = c.gradient(step.gradient), c.saved_inputs(step.node, step.inputs)
    return [update_chosen(c, step, f"{c.symbol(step)}(&{learn}, &state, rate, {inverses}, {g}, {saved});")]


@FLOAT32.writes(InputGradient)
def _input_gradient(c: StepText, step: InputGradient) -> list[Statement]:
    g, dx, function = c.gradient(step.gradient), c.gradient(step.target), c.symbol(step)
    if not step.scales:
        lines = [f"{function}({g}, {dx}{argmax_indices(c, step)}{values(c, step)});"]
    else:
        count, outputs = c.count(step.node.output), len(step.node.constants["weights"])
        scale = f"tt_float_scale({g}, {count}, {outputs}, {c.names.local('scales_of', step.node)});"
        lines = [scale, f"{function}({g}, {dx}, {weights(c, step)});"]
    return [Statement(lines, SELECTING if step.selecting else "")]


@FLOAT32.writes(FisherScore)
def _fisher_score(c: StepText, step: FisherScore) -> list[Statement]:
    arguments = f"{fisher_input(c, step)}, {c.gradient(step.gradient)}, {fisher_shape(c, step)}"
    return [during_group(step, f"tt_float_fisher_add({arguments});")]


@FLOAT32.writes(Accumulate)
def _accumulate(c: StepText, step: Accumulate) -> list[Statement]:
    target, source = c.gradient(step.target), c.gradient(step.source)
    return [Statement([f"tt_float_add({target}, {source}, {c.count(step.tensor)});"])]


@FLOAT32.writes(CopyGradient)
def _copy_gradient(c: StepText, step: CopyGradient) -> list[Statement]:
    target, source = c.gradient(step.target), c.gradient(step.source)
    return [Statement([f"memcpy({target}, {source}, {c.count(step.tensor)} * sizeof(float));"])]
