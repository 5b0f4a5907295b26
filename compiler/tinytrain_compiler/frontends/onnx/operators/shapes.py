"""Operators that compute nothing: shape changes, Identity, Dropout, Constant."""

from __future__ import annotations

import onnx

from ....graph import Layout
from ..float_passes.edit import attributes
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule


@support_rule("Flatten")
def _flatten(c: Context) -> Findings:
    """Any axis."""
    yield from ()


@support_rule("Reshape")
def _reshape(c: Context) -> Findings:
    """Constant shape."""
    yield from _constant_input(c, "shape")


@support_rule("Squeeze")
def _squeeze(c: Context) -> Findings:
    """Constant axes."""
    yield from _constant_input(c, "axes")


@support_rule("Unsqueeze")
def _unsqueeze(c: Context) -> Findings:
    """Constant axes."""
    yield from _constant_input(c, "axes")


@support_rule("Transpose")
def _transpose(c: Context) -> Findings:
    """Any; bytes move only where the operator behind it needs another order than they have."""
    yield from ()


def _constant_input(c: Context, what: str) -> Findings:
    if c.has(1) and c.constant(1) is None:
        yield f"its {what} input is computed by the model", ""


@support_rule("Identity")
def _identity(c: Context) -> Findings:
    """Removed."""
    yield from ()


@support_rule("Dropout")
def _dropout(c: Context) -> Findings:
    """Inference mode; removed."""
    training = c.constant(2)
    if len(c.node.output) > 1 and c.node.output[1] and c.editor.consumers(c.node.output[1]):
        yield "its mask output is used", "export with model.eval()"
    elif c.has(2) and (training is None or bool(training.any())):
        yield "it is in training mode", "export with model.eval()"


@support_rule("Constant")
def _constant(c: Context) -> Findings:
    """Any; whatever depends on constants alone is computed while compiling, with any operator."""
    yield from ()


@builder("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
def reshape(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    return importer.same_bytes(node, lambda layout: layout.reshaped(importer.shape(node.output[0])))


@builder("Transpose")
def transpose(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    """No bytes move here: where it matters, the operator behind it asks for its own order."""
    source = node.input[0]
    perm = tuple(attributes(node).get("perm", range(len(importer.shape(source)))[::-1]))

    def turned(layout: Layout) -> Layout:
        found = layout.transposed(perm)
        if found is None:
            raise UnsupportedNodeError("a Reshape in front of it mixed its axes", "quantise the tensor between the two")
        return found

    if source in importer.activations and importer.as_it_lies(source)[1].transposed(perm) is None:
        importer.reorder(source, Layout.row_major(importer.shape(source)))
    return importer.same_bytes(node, turned)
