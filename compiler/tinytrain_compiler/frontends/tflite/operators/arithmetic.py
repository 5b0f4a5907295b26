"""Arithmetic of two tensors: one may be a constant, and shapes broadcast."""

from __future__ import annotations

from ..file import Operator
from ..translator import TO_IMAGE, Translator, translation

_PLAIN = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MINIMUM": "Min", "MAXIMUM": "Max", "POW": "Pow",
    "SQUARED_DIFFERENCE": "Sub",
}  # fmt: skip
_FUSED = ("ADD", "SUB", "MUL", "DIV")


@translation(*_PLAIN)
def binary(t: Translator, op: Operator) -> None:
    """Two activations, or one and a constant; any fused activation."""
    image = operands_are_images(t, op)
    names = [operand(t, t.input(op, i), image) for i in (0, 1)]
    y = t.node(_PLAIN[op.name], names, t.label(op))
    if op.name == "SQUARED_DIFFERENCE":
        y = t.node("Mul", [y, y], f"{t.label(op)}/square")
    t.finish(op, t.activated(y, op) if op.name in _FUSED else y, image)


def operands_are_images(t: Translator, op: Operator) -> bool:
    """Whether all inputs stand as (1, C, H, W), so that nothing is turned; the others are constants."""
    return len(t.shape(op.outputs[0])) == 4 and t.is_image(*(t.input(op, i) for i in range(len(op.inputs))))


def operand(t: Translator, index: int, image: bool) -> str:
    """A constant in the order of the activation it meets: its dimensions count from the last."""
    if not t.is_constant(index):
        return t.image(index) if image else t.rows(index)
    return t.operand(index, TO_IMAGE if image else None)
