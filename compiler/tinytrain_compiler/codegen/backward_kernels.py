"""Which C functions a backward pass calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..ops import Kernel
from ..schedule import InputGradient, KernelStep, SaveArgmaxIndices, Schedule, UpdateWeights

SAVING = "void {}(uint32_t *argmax_indices, const int8_t *x{})"


@dataclass(frozen=True)
class BackwardKernels:
    """C functions of the backward pass, shared where their constants are equal."""

    symbols: dict[KernelStep, str] = field(default_factory=dict)  # step -> C function
    kernels: dict[str, tuple[Kernel, str, list[str]]] = field(default_factory=dict)  # -> kernel, prototype, layers


def backward_kernels(schedule: Schedule, prefix: str, prototypes: Mapping[str, str]) -> BackwardKernels:
    """prototypes: GradientText's."""
    found = BackwardKernels()
    by_identity: dict[object, str] = {}
    for step, prototype in _calls(schedule, prototypes):
        kernel, layer = step.kernel, step.node.name
        symbol = by_identity.get(kernel.identity)
        if symbol is None:
            symbol = base = f"{prefix}_{kernel.symbol}"
            number = 2
            while symbol in found.kernels:
                symbol, number = f"{base}_v{number}", number + 1
            by_identity[kernel.identity] = symbol
            found.kernels[symbol] = (kernel, prototype.format(symbol, _parameters(step)), [])
        found.kernels[symbol][2].append(layer)
        found.symbols[step] = symbol
    return found


def _parameters(step: KernelStep) -> str:
    """The last ones: inputs that the kernel reads again, its constants, and scratch memory."""
    read = [*step.values, *["operand"] * step.has_operand] if isinstance(step, InputGradient) else []
    return "".join(f", const int8_t *{name}" for name in read) + (", void *scratch" if step.scratch else "")


def _calls(schedule: Schedule, prototypes: Mapping[str, str]) -> Iterator[tuple[KernelStep, str]]:
    """Steps that call a function of their own, last node first, with its prototype."""
    savers = {step.argmax_indices: step for step in schedule.steps("forward") if isinstance(step, SaveArgmaxIndices)}
    for step in schedule.steps("backward"):
        if isinstance(step, UpdateWeights):
            yield step, prototypes["update"]
        elif isinstance(step, InputGradient) and step.argmax_indices is not None:
            yield savers[step.argmax_indices], SAVING
            yield step, prototypes["saved"]
        elif isinstance(step, InputGradient):
            yield step, prototypes["weighted" if step.scales else "pool"]
