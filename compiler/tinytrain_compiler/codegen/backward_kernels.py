"""Which C functions a backward pass calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..graph import Graph
from ..ops import Kernel, backward_of
from ..training.plan import TrainingPlan


@dataclass(frozen=True)
class BackwardKernels:
    """C functions of the backward pass, shared where their constants are equal."""

    symbols: dict[str, str]  # "<node>/gradient" or "<node>/learn" -> C function
    kernels: dict[str, tuple[Kernel, str, list[str]]]  # C function -> kernel, prototype, layers


def backward_kernels(graph: Graph, plan: TrainingPlan, prefix: str, prototypes: Mapping[str, str]) -> BackwardKernels:
    symbols: dict[str, str] = {}
    kernels: dict[str, tuple[Kernel, str, list[str]]] = {}
    by_identity: dict[Any, str] = {}

    def use(key: str, kernel: Kernel, layer: str, prototype: str, scratch: int) -> None:
        symbol = by_identity.get(kernel.identity)
        if symbol is None:
            symbol = base = f"{prefix}_{kernel.symbol}"
            number = 2
            while symbol in kernels:
                symbol, number = f"{base}_v{number}", number + 1
            by_identity[kernel.identity] = symbol
            kernels[symbol] = (kernel, prototype.format(symbol, ", void *scratch" if scratch else ""), [])
        kernels[symbol][2].append(layer)
        symbols[key] = symbol

    for action in plan.actions:
        node, layer = action.node, plan.layer(action.node)
        if action.kind == "learn" and layer is not None and layer.learns_weights:
            scratch = plan.learning_scratch(graph, node)
            use(f"{node.name}/learn", plan.learning_kernel(graph, node), node.name, prototypes["learn"], scratch)
        if action.kind == "propagate":
            kernel = plan.gradient_kernel(graph, node)
            saving = backward_of(node).saving_kernel(node, graph.tensors)
            assert kernel is not None
            prototype = prototypes["weighted" if "weights" in node.constants else "pool"]
            if saving is not None:
                prototype = prototypes["saved"]
                use(f"{node.name}/save", saving, node.name, "void {}(uint32_t *winners, const int8_t *x{})", 0)
            scratch = plan.gradient_scratch(graph, node)
            use(f"{node.name}/gradient", kernel, node.name, prototype, scratch)
    return BackwardKernels(symbols, kernels)
