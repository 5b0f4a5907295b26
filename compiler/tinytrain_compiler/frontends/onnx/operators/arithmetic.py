"""Add, Sub, Mul and Div: of two activations, of an activation and a constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ....graph import Layout
from ....graph.quantization import INT8_MAX, INT8_MIN
from ....ops.add import AddAttributes
from ....ops.broadcast import BroadcastAttributes
from ....ops.broadcast_add import BroadcastAddAttributes
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .attention import scaled


@support_rule("Add")
def _add(c: Context) -> Findings:
    """Two activations, or one and a constant, of any shapes that broadcast."""
    yield from ()


@support_rule("Sub")
def _sub(c: Context) -> Findings:
    """Two activations, or one and a constant, of any shapes that broadcast."""
    yield from ()


@support_rule("Mul")
def _mul(c: Context) -> Findings:
    """Two activations (squeeze-and-excite, gates), or one and a constant, of any shapes that broadcast."""
    yield from ()


@support_rule("Div")
def _div(c: Context) -> Findings:
    """An activation divided by a constant of any shape that broadcasts, or by a function of itself."""
    value = c.constant(1)
    if value is not None and not np.all(value):
        yield "it divides by a constant that is 0", "leave out or change these values"


@dataclass(frozen=True)
class _Operands:
    """Both sides of a node as their kernel takes them."""

    inputs: tuple[str, ...]
    layout: Layout  # of the output
    constants: dict[str, NDArray[Any]]
    attributes: BroadcastAttributes
    swapped: bool  # the constant is the first


@builder("Add", "Sub")
def add(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    if node.op_type == "Add" and not _constants(importer, node) and _equal_shapes(importer, node):
        a, b, layout = importer.like(*node.input)
        return Pending(node, "add", (a.name, b.name), layout, AddAttributes())
    o = _operands(importer, node)
    signs = (1, -1) if node.op_type == "Sub" else (1, 1)
    given = o.attributes
    attributes = BroadcastAddAttributes(
        operand_scale=given.operand_scale, operand_zero=given.operand_zero, sign_a=signs[o.swapped],
        sign_b=signs[not o.swapped],
    )  # fmt: skip
    return Pending(node, "broadcast_add", o.inputs, o.layout, attributes, o.constants)


@builder("Mul")
def mul(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    product = scaled(importer, node)
    if product is not None:
        return product
    o = _operands(importer, node)
    return Pending(node, "mul", o.inputs, o.layout, o.attributes, o.constants)


@builder("Div")
def div(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    if _constants(importer, node):
        raise UnsupportedNodeError(
            "it divides by a quantised constant of several values", "multiply by its reciprocals instead"
        )
    raise UnsupportedNodeError(
        "it divides by another activation, which may be 0", "multiply by a gate, or divide by a constant"
    )


def _constants(importer: QdqImporter, node: onnx.NodeProto) -> list[int]:
    """Which inputs are constants."""
    return [i for i, name in enumerate(node.input) if name in importer.constants or name in importer.initializers]


def _equal_shapes(importer: QdqImporter, node: onnx.NodeProto) -> bool:
    return importer.shape(node.input[0]) == importer.shape(node.input[1])


def _operands(importer: QdqImporter, node: onnx.NodeProto) -> _Operands:
    """All in the order of the largest activation, axes of size 1 where one is read again."""
    shape, fixed = importer.shape(node.output[0]), _constants(importer, node)
    names = [name for i, name in enumerate(node.input) if i not in fixed]
    whole = next((name for name in names if importer.shape(name) == shape), None)
    axes = None if whole is None else importer.as_it_lies(whole)[1].axes
    axes = tuple(range(len(shape))) if axes is None else axes
    output = Layout.of_axes(shape, axes)
    kept = [axis for axis in axes if axis > 0 or shape[0] != 1 or len(shape) == 1]

    def device(padded: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(padded[axis] for axis in kept) or (1,)

    def arranged(name: str) -> str:
        own = importer.shape(name)
        padded = (1,) * (len(shape) - len(own)) + own
        layout = replace(Layout.of_axes(padded, axes), device=device(padded))
        return importer.arranged(name, replace(layout, shape=own)).name

    inputs = tuple(arranged(name) for name in names)
    if not fixed:
        return _Operands(inputs, output, {}, BroadcastAttributes(), swapped=False)
    operand, attributes = _operand(importer, node.input[fixed[0]])
    padded = operand.reshape((1,) * (len(shape) - operand.ndim) + operand.shape)
    operand = np.ascontiguousarray(padded.transpose(axes)).reshape(device(padded.shape))
    return _Operands(inputs, output, {"operand": operand}, attributes, swapped=fixed == [0])


def _operand(importer: QdqImporter, name: str) -> tuple[NDArray[np.int8], BroadcastAttributes]:
    """A constant as int8, in the file's order, and its scale and zero point."""
    constant = importer.constant(name)
    low, high = int(constant.values.min()), int(constant.values.max())
    if name not in importer.constants or constant.scale.size > 1 or high - low > INT8_MAX - INT8_MIN:
        raise UnsupportedNodeError(
            f"its constant '{name}' has not 8 bits and one scale",
            "quantise it per tensor to int8, or pass the float model",
        )
    zero = 0 if low >= INT8_MIN and high <= INT8_MAX else INT8_MIN - low
    attributes = BroadcastAttributes(operand_scale=float(constant.scale[0]), operand_zero=zero)
    return (constant.values + zero).astype(np.int8), attributes
