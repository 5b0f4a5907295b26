"""Pieces of the backward pass's C that all gradient formats share."""

from __future__ import annotations

from collections.abc import Sequence

from ..schedule import FisherScore, InputGradient, UpdateWeights
from .step_text import SELECTING, UPDATING, Statement, StepText, indented


def update(c: StepText, lines: Sequence[str]) -> Statement:
    """Updates stay away from the passes that measure Fisher information."""
    return Statement(lines, UPDATING if c.selects else "")


def update_chosen(c: StepText, step: UpdateWeights, call: str) -> Statement:
    """Of a candidate, a selection may have chosen no channels."""
    chosen = c.layer(step.node).is_candidate
    return update(c, ["if (state.chosen > 0) {", *indented([call]), "}"] if chosen else [call])


def weights(c: StepText, step: InputGradient) -> str:
    """The weights that a gradient passes through: a trained layer's as just updated."""
    return "effective.weights" if step.parameters is not None else f"{c.names.of('layer', step.node)}.weights"


def argmax_indices(c: StepText, step: InputGradient) -> str:
    return "" if step.argmax_indices is None else f", {c.cast('uint32_t', step.argmax_indices)}"


def values(c: StepText, step: InputGradient) -> str:
    """What the kernel reads of the forward pass, and the constant in place of an input, as arguments."""
    read = [c.activation(tensor) for tensor in step.values.values()]
    constants = [f"{c.names.of('layer', step.node)}.operand"] if step.has_operand else []
    return "".join(f", {name}" for name in read + constants)


def fisher_input(c: StepText, step: FisherScore) -> str:
    """A candidate's scores, and its whole input."""
    return f"fisher->scores + {c.candidate(step.node).first}, {c.at(step.inputs)} + {step.offset}"


def fisher_shape(c: StepText, step: FisherScore) -> str:
    candidate, source = c.candidate(step.node), c.graph.tensors[step.node.inputs[0]]
    return f"{candidate.pixels}, {candidate.channels}, {source.quantization.zero_point}"


def during_group(step: FisherScore, call: str) -> Statement:
    return Statement([call], f"{SELECTING} && fisher->group == {step.group}")
