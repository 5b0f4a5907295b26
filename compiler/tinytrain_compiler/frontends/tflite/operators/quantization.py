"""QUANTIZE, DEQUANTIZE and CAST: changes of type."""

from __future__ import annotations

import numpy as np

from ..file import Operator
from ..translator import CannotTranslateError, Translator, translation


@translation("QUANTIZE")
def quantize(t: Translator, op: Operator) -> None:
    """From float, or from other scales, to int8 or uint8."""
    _same_values(t, op)


@translation("DEQUANTIZE")
def dequantize(t: Translator, op: Operator) -> None:
    """Of an activation; of a constant (int8 or float16 weights), which becomes float32."""
    x = t.input(op, 0)
    if t.is_constant(x):
        t.set_constant(op.outputs[0], t.real(x))
        if t.tensor(x).type == "float16":
            t.notes.add(
                "the file has float16 weights: they were widened to float32, and quantised with the activations"
            )
        else:
            t.notes.add("the file has quantised weights and float activations: they are quantised again together")
    else:
        _same_values(t, op)


@translation("CAST")
def cast(t: Translator, op: Operator) -> None:
    """Of constants, and from float32 to float32."""
    x = t.input(op, 0)
    if t.is_constant(x):
        t.set_constant(op.outputs[0], t.real(x).astype(np.float32))
    elif t.tensor(x).type != "float32":
        raise CannotTranslateError(f"it casts {t.tensor(x).type}", "use QUANTIZE and DEQUANTIZE")
    else:
        _same_values(t, op)


def _same_values(t: Translator, op: Operator) -> None:
    x = t.input(op, 0)
    image = t.is_image(x)
    t.finish(op, t.image(x) if image else t.rows(x), image)
