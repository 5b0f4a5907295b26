"""Pools, and what is reduced over axes."""

from __future__ import annotations

import numpy as np

from ..file import Operator
from ..translator import CannotTranslateError, Translator, translation
from .windows import pads, strides_of

_REDUCTIONS = {"MEAN": "ReduceMean", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin", "SUM": "ReduceSum"}


@translation("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(t: Translator, op: Operator) -> None:
    """Any window, padding and strides; any fused activation."""
    x = t.input(op, 0)
    kernel = [int(op.options["filter_h"]), int(op.options["filter_w"])]
    image = t.image(x)
    if min(kernel) < 1:
        raise CannotTranslateError(f"its window is {kernel}", "export the model again")
    y = t.node(
        "AveragePool" if op.name == "AVERAGE_POOL_2D" else "MaxPool", [image], t.label(op), kernel_shape=kernel,
        strides=strides_of(op), pads=pads(op, t.shape(x)[1:3], kernel),
    )  # fmt: skip
    t.finish_image(op, t.activated(y, op))


@translation("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM", reads=(0, 1))
def reduce(t: Translator, op: Operator) -> None:
    """Over any constant axes; SUM of float activations alone."""
    x = t.input(op, 0)
    if op.name == "SUM" and t.tensor(x).type != "float32":
        raise CannotTranslateError("TensorFlow Lite's kernels for int8 sums wrap around", "use MEAN")
    rank, kind = len(t.shape(x)), _REDUCTIONS[op.name]
    axes = sorted({axis % rank if rank else 0 for axis in t.integers(t.input(op, 1), "axes")})
    keep = bool(op.options["keep_dims"])
    if rank == 4 and axes == [1, 2] and op.name != "SUM":
        x_name = t.image(x)
        mean = op.name == "MEAN"
        attributes = {} if mean else {"axes": [2, 3], "keepdims": 1}
        y = t.node("GlobalAveragePool" if mean else kind, [x_name], t.label(op), **attributes)
        if keep:
            t.finish_image(op, y)
        else:
            t.finish_flat(op, t.requantized(op, y))
    elif op.name == "SUM":  # its axes are an input already
        inputs = [t.rows(x), t.constant(f"{t.label(op)}/axes", np.asarray(axes, np.int64))]
        t.finish_rows(op, t.node(kind, inputs, t.label(op), keepdims=int(keep)))
    else:
        t.finish_rows(op, t.node(kind, [t.rows(x)], t.label(op), axes=axes, keepdims=int(keep)))
