"""Which C kernel runs each node, and the C function of each.

All variants of a kernel are emitted, each behind its preprocessor test; those for this machine go into a file of
their own, which no firmware compiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..graph import Graph, Node
from ..ops import Kernel, operator_of
from ..ops.kernel import input_names
from ..ops.variants import PORTABLE, VARIANTS, Variant
from ..resources import find_template
from .layout import statements
from .render import LINE, c_names, render

FULL_UNROLL = 8  # inner loops up to this many rounds are unrolled whole
STACK_BYTES = 2**19  # what a `vector` kernel may hold on the stack; larger layers run the portable code


@dataclass(frozen=True)
class KernelUse:
    """One node that runs code."""

    node: Node
    kernel: Kernel
    symbol: str  # C function, prefixed


@dataclass(frozen=True)
class KernelTable:
    """All nodes with code, in execution order, and the functions they share."""

    uses: tuple[KernelUse, ...]
    prototypes: dict[str, str]  # symbol -> C declaration, without semicolon

    def of(self, node: Node) -> KernelUse | None:
        return next((use for use in self.uses if use.node is node), None)


def kernel_table(graph: Graph, prefix: str) -> KernelTable:
    """Choose kernels; nodes whose kernels are equal in every baked-in constant share one function."""
    symbols: dict[tuple[Any, ...], str] = {}
    taken: set[str] = set()
    uses: list[KernelUse] = []
    prototypes: dict[str, str] = {}
    for node in graph.nodes:
        kernel = operator_of(node).kernel(node, graph.tensors)
        if kernel is None:
            continue
        if kernel.identity not in symbols:
            base = symbol = f"{prefix}_{kernel.symbol}"
            number = 2
            while symbol in taken:  # same shape, other clip limits or shift
                symbol, number = f"{base}_v{number}", number + 1
            taken.add(symbol)
            symbols[kernel.identity] = symbol
            prototypes[symbol] = _prototype(
                symbol, node, kernel, bool(operator_of(node).scratch_bytes(node, graph.tensors))
            )
        uses.append(KernelUse(node, kernel, symbols[kernel.identity]))
    return KernelTable(tuple(uses), prototypes)


def has_params(kernel: Kernel) -> bool:
    return bool(kernel.arrays or kernel.scalars)


def _prototype(symbol: str, node: Node, kernel: Kernel, has_scratch: bool) -> str:
    parameters = [f"const int8_t *{name}" for name in input_names(len(node.inputs))] + ["int8_t *y"]
    if has_params(kernel):
        parameters.append(f"const {kernel.params_type} *p")
    if has_scratch:
        parameters.append("void *scratch")
    return f"void {symbol}({', '.join(parameters)})"


def kernel_bodies(kernel: Kernel) -> dict[Variant, str]:
    """The C body in each variant that has a template, fastest first."""
    bodies = {}
    for variant in VARIANTS:
        template = f"kernels/{kernel.template}.{variant.name}.c.j2"
        if variant is PORTABLE or find_template(template) is not None:
            bodies[variant] = _body(template, kernel)
    return bodies


def function_text(prototype: str, layers: Sequence[str], kernel: Kernel) -> dict[str, Any]:
    """What the templates print of one C function: the layers that share it, and its bodies behind their conditions."""
    bodies = kernel_bodies(kernel)
    firmware = [(variant.condition, body) for variant, body in bodies.items() if not variant.host]
    host = [(variant.condition, body) for variant, body in bodies.items() if variant.host]
    if host:  # on this machine the other file has it
        firmware[-1] = (" && ".join(f"!{condition}" for condition, _ in host), firmware[-1][1])
    return {"prototype": prototype, "layers": c_names(layers), "bodies": firmware, "host": host, "variants": [*bodies]}


def headers(functions: Sequence[dict[str, Any]], host: bool) -> list[str]:
    """What a file with these functions includes for the sake of its variants, in alphabetical order."""
    found = {variant.header for function in functions for variant in function["variants"] if variant.host == host}
    return sorted(found - {PORTABLE.header})


def _body(template: str, kernel: Kernel) -> str:
    rounds = kernel.shape.get("KP", 4) // 4
    unroll = rounds if rounds <= FULL_UNROLL else next(n for n in (4, 3, 2, 1) if rounds % n == 0)
    context = {**kernel.shape, **kernel.inline, "UNROLL": unroll, "STACK_BYTES": STACK_BYTES}
    marker = "@constants@"
    body = render(template, constants=marker, **context)
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]*\b", body))
    constants = [f"{name} = {value}" for name, value in kernel.shape.items() if name in used]
    lines = [""]
    for constant in constants:
        if len(lines[-1]) + len(constant) > LINE - 16:
            lines.append("")
        lines[-1] += f"{constant}, "
    body = body.replace(marker, "\n           ".join(line.strip() for line in lines).removesuffix(","))
    return "\n".join(statements(body.split("\n")))
