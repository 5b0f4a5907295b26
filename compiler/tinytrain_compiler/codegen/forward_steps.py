"""The forward pass as C: kernel calls, effective parameters of layers that train, and what backward() needs of it."""

from __future__ import annotations

from ..ops.clipping import limits
from ..schedule import (
    EffectiveParameters,
    Forward,
    KeepFisherInput,
    SaveArgmaxIndices,
    SaveInput,
    SaveMask,
    ShareGradient,
)
from .kernels import has_params
from .step_text import SAVING, SELECTING, Statement, StepText, StepWriters

FORWARD = StepWriters()


@FORWARD.writes(Forward)
def _forward(c: StepText, step: Forward) -> list[Statement]:
    use = c.use(step.node)
    if use is None:
        return []
    arguments = [c.activation(tensor) for tensor in (*step.inputs, step.output)]
    if has_params(use.kernel):
        arguments.append("&effective" if step.parameters is not None else f"&{c.names.of('layer', step.node)}")
    return [Statement([f"{use.symbol}({', '.join(arguments)}{c.working(step.working)});"])]


@FORWARD.writes(EffectiveParameters)
def _effective_parameters(c: StepText, step: EffectiveParameters) -> list[Statement]:
    target, learn = c.at(step.target), c.names.of("learn", step.node)
    weights = target if step.weight_bytes else "NULL"
    biases = f"(int32_t *)(void *)({target} + {step.weight_bytes})"
    lines = [
        "tt_conv_params effective;",
        *c.state(step.node, step.state),
        f"tt_effective(&{learn}, &state, {weights}, {biases}, &effective);",
    ]
    return [Statement(lines, SELECTING if step.selecting else "")]


@FORWARD.writes(KeepFisherInput)
def _keep_fisher_input(c: StepText, step: KeepFisherInput) -> list[Statement]:
    count = c.count(step.source.name)
    copy = f"memcpy({c.at(step.target)} + {step.offset}, {c.activation(step.source)}, {count});"
    return [Statement([copy], f"keep == TT_KEEP_FISHER + {step.group}")]


@FORWARD.writes(SaveInput)
def _save_input(c: StepText, step: SaveInput) -> list[Statement]:
    target, source = c.saved_inputs(step.node, step.target), c.activation(step.source)
    shape = f"{c.count(step.source.name) // step.channels}, {step.channels}"
    call = f"tt_save_channels({target}, {source}, {shape}, state.channels, state.chosen);"
    return [Statement([call], "keep == TT_KEEP")]


@FORWARD.writes(SaveMask)
def _save_mask(c: StepText, step: SaveMask) -> list[Statement]:
    low, high = limits(step.node)
    mask, source = c.cast("uint32_t", step.mask), c.activation(step.source)
    return [Statement([f"tt_save_mask({mask}, {source}, {c.count(step.source.name)}, {low}, {high});"], SAVING)]


@FORWARD.writes(SaveArgmaxIndices)
def _save_argmax_indices(c: StepText, step: SaveArgmaxIndices) -> list[Statement]:
    argmax_indices = c.cast("uint32_t", step.argmax_indices)
    return [Statement([f"{c.symbol(step)}({argmax_indices}, {c.activation(step.source)});"], SAVING)]


@FORWARD.writes(ShareGradient)
def _share_gradient(c: StepText, step: ShareGradient) -> list[Statement]:
    return []
