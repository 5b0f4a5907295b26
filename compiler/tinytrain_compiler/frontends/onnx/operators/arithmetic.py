"""Add of two activations; Add, Sub, Mul and Div with a constant, which are folded."""

from __future__ import annotations

import onnx

from ....ops.add import AddAttributes
from ..alternatives import NO_GATE
from ..float_passes.affine import as_affine
from ..float_passes.matmul import as_bias
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .attention import scaled


@support_rule("Add")
def _add(c: Context) -> Findings:
    """Two activations of one shape (residual); or an activation and a constant number per channel, which is folded."""
    if c.is_constant(0) != c.is_constant(1):
        if not _is_bias(c):
            yield from _foldable(c)
    elif (left := c.shape(0)) is not None and (right := c.shape(1)) is not None and left != right:
        yield f"its inputs have different shapes, {left} and {right}", "make the shapes equal"


@support_rule("Sub")
def _sub(c: Context) -> Findings:
    """An activation and a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


@support_rule("Mul")
def _mul(c: Context) -> Findings:
    """An activation and a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


@support_rule("Div")
def _div(c: Context) -> Findings:
    """An activation divided by a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


def _is_bias(c: Context) -> bool:
    """Whether its constant side is the bias of the MatMul in front."""
    which = 0 if c.is_constant(0) else 1
    product, shape = c.editor.private_producer(c.node.input[1 - which]), c.output_shape()
    if product is None or product.op_type != "MatMul" or product.input[1] not in c.editor.constants or shape is None:
        return False
    return shape == c.shape(1 - which) and as_bias(c.constant(which), shape[-1]) is not None


def _foldable(c: Context) -> Findings:
    if not c.is_constant(0) and not c.is_constant(1):
        yield "both of its inputs are computed by the model", NO_GATE if c.node.op_type == "Mul" else ""
    elif c.quantized:
        yield "it has a constant side in a quantised model", "fold it into a Conv or Gemm before quantising"
    elif all(c.shape(i) is not None for i in (0, 1)) and as_affine(c.node, c.editor) is None:
        shapes = " and ".join(str(c.shape(i)) for i in (0, 1))
        yield f"its constant side is not one non-zero number per channel (shapes {shapes})", ""


@builder("Mul")
def mul(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    product = scaled(importer, node)
    if product is None:
        raise UnsupportedNodeError("it multiplies what no kernel computes", "fold it into a layer before quantising")
    return product


@builder("Add")
def add(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    if importer.shape(node.input[0]) != importer.shape(node.input[1]):
        shapes = " and ".join(str(importer.shape(name)) for name in node.input)
        raise UnsupportedNodeError(f"its inputs have the shapes {shapes}", "only equal shapes can be added")
    a, b, layout = importer.like(*node.input)
    return Pending(node, "add", (a.name, b.name), layout, AddAttributes())
