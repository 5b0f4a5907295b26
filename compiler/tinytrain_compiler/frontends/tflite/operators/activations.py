"""Element-wise functions of one tensor, and SOFTMAX."""

from __future__ import annotations

import math

import numpy as np

from ..file import Operator
from ..translator import TO_IMAGE, CannotTranslateError, Translator, translation

_UNARY = {
    "LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish", "ELU": "Elu", "ABS": "Abs", "NEG": "Neg",
    "EXP": "Exp", "LOG": "Log", "SQRT": "Sqrt", "SIN": "Sin", "COS": "Cos", "FLOOR": "Floor", "CEIL": "Ceil",
    "ROUND": "Round", "SIGN": "Sign",
}  # fmt: skip


def _source(t: Translator, op: Operator) -> tuple[str, bool]:
    """Its input, in the order in which it stands, and whether that is an image."""
    x = t.input(op, 0)
    image = t.is_image(x)
    return (t.image(x) if image else t.rows(x)), image


@translation(*_UNARY)
def unary(t: Translator, op: Operator) -> None:
    """Of any tensor."""
    x, image = _source(t, op)
    t.finish(op, t.node(_UNARY[op.name], [x], t.label(op)), image)


@translation("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def relu(t: Translator, op: Operator) -> None:
    """Of any tensor."""
    x, image = _source(t, op)
    y = t.clip(x, 0.0, 1.0, t.label(op)) if op.name == "RELU_0_TO_1" else t.clipped(x, op.name, t.label(op))
    t.finish(op, y, image)


@translation("LEAKY_RELU")
def leaky_relu(t: Translator, op: Operator) -> None:
    """Of any tensor."""
    x, image = _source(t, op)
    t.finish(op, t.node("LeakyRelu", [x], t.label(op), alpha=float(op.options["alpha"])), image)


@translation("PRELU")
def prelu(t: Translator, op: Operator) -> None:
    """A constant slope: one, or one per channel."""
    x, image = _source(t, op)
    slope = t.real(t.input(op, 1))
    if image:
        slope = slope.reshape((1,) * (4 - slope.ndim) + slope.shape).transpose(TO_IMAGE)[0]
    y = t.node("PRelu", [x, t.constant(f"{t.label(op)}/slope", slope)], t.label(op))
    t.finish(op, y, image)


@translation("SQUARE")
def square(t: Translator, op: Operator) -> None:
    """Of any tensor."""
    x, image = _source(t, op)
    t.finish(op, t.node("Mul", [x, x], t.label(op)), image)


@translation("RSQRT")
def rsqrt(t: Translator, op: Operator) -> None:
    """Of any tensor."""
    x, image = _source(t, op)
    root = t.node("Sqrt", [x], f"{t.label(op)}/sqrt")
    t.finish(op, t.node("Reciprocal", [root], t.label(op)), image)


@translation("GELU")
def gelu(t: Translator, op: Operator) -> None:
    """Of any tensor; exact, or with tanh."""
    x, image = _source(t, op)
    label = t.label(op)

    def number(value: float, what: str) -> str:
        return t.constant(f"{label}/{what}", np.float32(value))

    if op.options["approximate"]:  # tanh(sqrt(2 / pi) * (x + 0.044715 x^3))
        cube = t.node("Pow", [x, number(3, "three")], f"{label}/cube")
        cube = t.node("Mul", [cube, number(0.044715, "factor")], f"{label}/cube_scaled")
        inner = t.node("Add", [x, cube], f"{label}/inner")
        inner = t.node("Mul", [inner, number(math.sqrt(2 / math.pi), "root")], f"{label}/inner_scaled")
        s = t.node("Tanh", [inner], f"{label}/tanh")
    else:
        s = t.node("Erf", [t.node("Div", [x, number(math.sqrt(2), "root")], f"{label}/scaled")], f"{label}/erf")
    y = t.node("Mul", [x, t.node("Add", [s, number(1, "one")], f"{label}/plus_one")], f"{label}/product")
    t.finish(op, t.node("Mul", [y, number(0.5, "half")], label), image)


@translation("SOFTMAX", "LOG_SOFTMAX")
def softmax(t: Translator, op: Operator) -> None:
    """Over the last dimension, beta 1."""
    if op.name == "SOFTMAX" and op.options["beta"] != 1.0:
        raise CannotTranslateError(f"its beta is {op.options['beta']:g}", "use beta 1, and scale the layer before it")
    x, image = _source(t, op)
    kind = "Softmax" if op.name == "SOFTMAX" else "LogSoftmax"
    t.finish(op, t.node(kind, [x], t.label(op), axis=1 if image else len(t.shape(op.inputs[0])) - 1), image)
