"""Changes of shape, which compute nothing: the file states all shapes, so that how it computes them does not matter."""

from __future__ import annotations

from ...onnx.limits import elements
from ..file import Operator
from ..translator import CannotTranslateError, Translator, translation


@translation("RESHAPE", "SQUEEZE", "EXPAND_DIMS", reads=(0,))
def reshape(t: Translator, op: Operator) -> None:
    """To any fixed shape, however the model computes it."""
    x = t.input(op, 0)
    before, after = t.shape(x), t.shape(op.outputs[0])
    if elements(before) != elements(after):
        raise CannotTranslateError(
            f"it makes {after} of {before}", "convert with a fixed batch (keras.Input(batch_size=1))"
        )
    if t.is_constant(x):
        t.set_constant(op.outputs[0], t.real(x).reshape(after))
    else:
        t.finish_flat(op, t.flat(x))


@translation("TRANSPOSE")
def transpose(t: Translator, op: Operator) -> None:
    """Any constant order of dimensions."""
    x, order = t.input(op, 0), t.integers(t.input(op, 1), "dimensions")
    if sorted(order) != list(range(len(t.shape(x)))):
        raise CannotTranslateError(f"its order {order} does not fit {t.shape(x)}", "export the model again")
    if t.is_constant(x):
        t.set_constant(op.outputs[0], t.real(x).transpose(order))
    else:
        t.finish_rows(op, t.node("Transpose", [t.rows(x)], t.label(op), perm=order))
