"""What a support rule is: it looks at one node and yields what is wrong with it as (reason, fix)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from .float_passes.edit import Array, GraphEditor, attributes

Complaint = tuple[str, str]  # reason, fix
Findings = Iterator[Complaint]


class Context:
    """One node with what the rules ask about it."""

    def __init__(self, node: onnx.NodeProto, editor: GraphEditor, quantized: bool) -> None:
        self.node = node
        self.editor = editor
        self.quantized = quantized
        self.attributes: dict[str, Any] = attributes(node)

    def has(self, i: int) -> bool:
        return len(self.node.input) > i and bool(self.node.input[i])

    def shape(self, i: int = 0) -> tuple[int, ...] | None:
        """Shape of an input; None where it is unknown, which is the fault of a node before this one."""
        return self.editor.shapes.get(self.node.input[i]) if self.has(i) else None

    def output_shape(self) -> tuple[int, ...] | None:
        return self.editor.shapes.get(self.node.output[0])

    def constant(self, i: int) -> Array | None:
        return self.editor.constants.get(self.node.input[i]) if self.has(i) else None

    def is_constant(self, i: int) -> bool:
        """Whether an input is a constant, or one behind the DequantizeLinear of a quantised model."""
        if self.constant(i) is not None:
            return True
        producer = self.editor.producer(self.node.input[i])
        return (
            producer is not None
            and producer.op_type == "DequantizeLinear"
            and all(name in self.editor.constants for name in producer.input)
        )


Rule = Callable[[Context], Findings]
_RULES: dict[str, Rule] = {}


def support_rule(op: str) -> Callable[[Rule], Rule]:
    """The decorated function is the rule of an ONNX operator."""

    def register(function: Rule) -> Rule:
        _RULES[op] = function
        return function

    return register


def registered_rules() -> dict[str, Rule]:
    """The rules by operator."""
    return dict(_RULES)
