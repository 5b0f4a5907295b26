"""Operators that compute nothing: shape changes, Identity, Dropout, Constant."""

from __future__ import annotations

import onnx

from ....ops.reshape import ReshapeAttributes
from ..float_passes.reshapes import RESHAPES
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule


@support_rule("Flatten")
def _flatten(c: Context) -> Findings:
    """To (1, F), axis=1; images of several channels and pixels with a Gemm behind."""
    shape = c.output_shape()
    if shape is not None and shape[0] != 1:
        yield f"its output has shape {shape}", "use axis=1"


@support_rule("Reshape")
def _reshape(c: Context) -> Findings:
    """Constant shape; to (1, F) as Flatten, or between images with one channel or one pixel."""
    yield from _same_order(c)


@support_rule("Squeeze")
def _squeeze(c: Context) -> Findings:
    """Constant axes, limits as for Reshape."""
    yield from _same_order(c)


@support_rule("Unsqueeze")
def _unsqueeze(c: Context) -> Findings:
    """Constant axes, limits as for Reshape."""
    yield from _same_order(c)


def _same_order(c: Context) -> Findings:
    """Of a chain of shape changes only the ends count; they are judged at the last one."""
    if len(c.node.input) > 1 and c.constant(1) is None:
        yield f"its {'shape' if c.node.op_type == 'Reshape' else 'axes'} input is computed by the model", ""
        return
    following = c.editor.only_consumer(c.node.output[0])
    if following is not None and following.op_type in RESHAPES:
        return
    first = c.node
    while (before := c.editor.private_producer(first.input[0])) is not None and before.op_type in RESHAPES:
        first = before
    source, result = c.editor.shapes.get(first.input[0]), c.output_shape()
    if source is not None and result is not None and not _keeps_order(source, result):
        yield f"it turns {source} into {result}, which moves values between channels and pixels", ""


def _keeps_order(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Images lie in memory as H, W, C, so a new shape must not need another order. A Gemm can take any."""

    def plain(shape: tuple[int, ...]) -> bool:
        return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1

    return before == after or len(after) == 2 or (plain(before) and plain(after))


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
def reshape(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """Free where NCHW and NHWC order agree on both sides, or where a Gemm's columns can be reordered."""
    x = importer.activation(node.input[0])
    shape = importer.shape_of(node.output[0])

    def same_order(s: tuple[int, ...]) -> bool:
        return len(s) == 1 or s[2] == 1 or s[0] * s[1] == 1

    if x.name in importer.flattened and len(shape) != 1:
        raise UnsupportedNodeError("it reshapes a flattened image", "let a Gemm follow the Flatten directly")
    if shape != x.shape and not (same_order(x.shape) and same_order(shape)):
        if len(shape) != 1:
            raise UnsupportedNodeError(
                f"it turns {x.shape} into {shape} (height, width, channels), which reorders memory",
                "reshape only between images with one channel or one pixel, or flatten into a Gemm",
            )
        importer.flattened[node.output[0]] = x.shape
    return Pending(node, "reshape", (x.name,), shape, ReshapeAttributes())
