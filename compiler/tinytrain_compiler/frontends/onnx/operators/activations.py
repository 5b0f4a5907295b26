"""Relu, Clip, Softmax; element-wise functions, which become tables."""

from __future__ import annotations

import numpy as np
import onnx

from ....ops.lookup import LookupAttributes
from ....ops.softmax import SoftmaxAttributes
from ..float_passes.activations import clip_limits
from ..float_passes.edit import attributes, default_opset
from ..qdq_importer import Pending, QdqImporter, builder
from ..rule import Context, Findings, support_rule
from ..segments import ACTIVATIONS, COMBINATIONS


@support_rule("Relu")
def _relu(c: Context) -> Findings:
    """Any place; becomes the clip limits of the layer in front."""
    yield from ()


@support_rule("Clip")
def _clip(c: Context) -> Findings:
    """Any constant min and max, ReLU6 among them; becomes the clip limits of the layer in front."""
    if clip_limits(c.node, c.editor) is None:
        yield "its min or max is computed by the model", "make both constants"


@support_rule("Softmax")
def _softmax(c: Context) -> Findings:
    """Over any axis."""
    shape = c.shape()
    if shape is None:
        return
    old = default_opset(c.editor.proto) < 13
    axis = c.attributes.get("axis", 1 if old else -1)
    if not -len(shape) <= axis < len(shape):  # onnxruntime runs it all the same, on something else
        yield f"{shape} has no axis {axis}", "export it again"
        return
    axis %= len(shape)
    # Before opset 13 it ran over this axis and all behind it together.
    if old and int(np.prod(shape[axis + 1 :])) != 1:
        yield f"it runs over axis {axis} of {shape} and all behind it", "export with opset 13 or newer"


@builder("Relu", "Clip")
def clip(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """Limits of the operator in front; a node of its own where that one is quantised already."""
    low, high = 0.0, np.inf
    if node.op_type == "Clip":
        limits = [importer.constant(n) if n else None for n in (*node.input[1:], "", "")[:2]]
        low, high = (
            default if c is None else float(c.real.reshape(()))
            for c, default in zip(limits, (-np.inf, np.inf), strict=True)
        )
    pending = importer.pending.pop(node.input[0], None)
    if pending is None:
        x, layout = importer.as_it_lies(node.input[0])
        pending = Pending(node, "lookup", (x.name,), layout, LookupAttributes())
    pending.low, pending.high = (min(max(limit, low), high) for limit in (pending.low, pending.high))
    return pending


@builder("Softmax")
def softmax(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    x, layout = importer.innermost(node.input[0], attributes(node).get("axis", -1))
    return Pending(node, "softmax", (x.name,), layout, SoftmaxAttributes())


def _table(c: Context) -> Findings:
    """Of an activation; it and what follows element by element are one table of 256 bytes."""
    yield from ()


def _combination(c: Context) -> Findings:
    """Of an activation and constants that have one value each, or of functions of one activation; becomes a table."""
    yield from ()


for _op in ACTIVATIONS:
    support_rule(_op)(_table)
for _op in COMBINATIONS:
    support_rule(_op)(_combination)
