"""Products of two activations and layer normalisation: what transformers are made of besides layers with weights."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import onnx

from ....graph import Layout
from ....ops.layer_norm import MAX_ELEMENTS, LayerNormAttributes
from ....ops.matmul import MatMulAttributes, Strides
from ..float_passes.edit import attributes
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .demands import need_constant


@support_rule("LayerNormalization")
def _layer_normalization(c: Context) -> Findings:
    """Over any last axes, constant scale and bias; also spelled out as means, a difference, a square and a root."""
    yield from need_constant(c, 1, "scale")
    yield from need_constant(c, 2, "bias")
    if len([o for o in c.node.output if o]) > 1:
        yield "it also returns mean or deviation", "use its first output alone"
    shape, axis = c.shape(), c.attributes.get("axis", -1)
    if shape is not None and prod(shape[axis:]) > MAX_ELEMENTS:
        yield f"it normalises {prod(shape[axis:]):,} elements at once", f"normalise at most {MAX_ELEMENTS:,}"


@builder("LayerNormalization")
def layer_normalization(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    attrs, shape = attributes(node), importer.shape(node.input[0])
    axis = attrs.get("axis", -1) % len(shape)
    if axis == len(shape) - 1:
        x, layout = importer.innermost(node.input[0], axis)
    else:
        x, layout = importer.row_major(node.input[0]), Layout.row_major(shape)
    scale = importer.constant(node.input[1]).real
    shift = importer.constant(node.input[2]).real if len(node.input) > 2 and node.input[2] else np.zeros(1)
    constants = {
        "scale": np.broadcast_to(scale, shape[axis:]).reshape(-1).astype(np.float64),
        "shift": np.broadcast_to(shift, shape[axis:]).reshape(-1).astype(np.float64),
    }
    epsilon = float(np.float32(attrs.get("epsilon", 1e-5)))
    return Pending(node, "layer_norm", (x.name,), layout, LayerNormAttributes(epsilon), constants)


def matmul_of_activations(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """Matrices lie as they do: their order is in the strides. Rows of the result are outermost, then the batch, so that
    the heads of a token lie next to each other."""
    a_shape, b_shape, shape = (importer.shape(name) for name in (*node.input, node.output[0]))
    if min(len(a_shape), len(b_shape)) < 2:
        raise UnsupportedNodeError("one of its inputs is a vector", "give both two dimensions")
    rank = len(shape)
    layout = Layout.of_axes(shape, (rank - 2, *range(rank - 2), rank - 1))
    a, a_strides = _strides(importer, node.input[0], shape)
    b, b_strides = _strides(importer, node.input[1], shape)
    y_strides = _strides_of(shape, (rank - 2, *range(rank - 2), rank - 1))
    batch = _merged([size for size in zip(shape[:-2], a_strides, b_strides, y_strides, strict=False) if size[0] > 1])
    if len(batch) > 2:
        sizes = tuple(size for size, *_ in batch)
        raise UnsupportedNodeError(f"its matrices have {len(batch)} batch axes {sizes}", "merge them into two")
    batch = [(1, 0, 0, 0)] * (2 - len(batch)) + batch
    (i, ai, bi, yi), (j, aj, bj, yj) = batch
    product = MatMulAttributes(
        (i, j), shape[-2], a_shape[-1], shape[-1], _four(ai, aj, a_strides), _four(bi, bj, b_strides),
        _four(yi, yj, y_strides),
    )  # fmt: skip
    return Pending(node, "matmul", (a, b), layout, product)


def scaled(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    """A Mul with one positive constant right behind a product of two activations is part of it; None elsewhere."""
    product = importer.pending.get(node.input[0])
    if product is None or product.op != "matmul":
        return None
    factor = importer.constant(node.input[1]).real
    if factor.size != 1 or not factor.ravel()[0] > 0:
        return None
    importer.pending.pop(node.input[0])
    return replace(product, attributes=replace(product.attributes, factor=float(factor.ravel()[0])))


def _strides(importer: QdqImporter, name: str, shape: tuple[int, ...]) -> tuple[str, list[int]]:
    """The tensor behind a float name, and its strides along the axes of a batch of matrices of this many dimensions."""
    own = importer.shape(name)
    _, layout = importer.as_it_lies(name)
    axes = layout.axes
    if axes is None:
        layout, axes = Layout.row_major(own), tuple(range(len(own)))
    strides = _strides_of(own, axes)
    strides = [
        0 if size == 1 and i < len(own) - 2 else stride
        for i, (size, stride) in enumerate(zip(own, strides, strict=True))
    ]
    return importer.arranged(name, layout).name, [0] * (len(shape) - len(own)) + strides


def _strides_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[int]:
    """Elements from one index of each axis to the next. axes: as they lie in memory, outermost first."""
    return [prod(shape[other] for other in axes[axes.index(axis) + 1 :]) for axis in range(len(shape))]


def _merged(batch: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Axes (size, stride in a, b and y), those that are walked as one made one."""
    found: list[tuple[int, ...]] = []
    for size, *strides in batch:
        if found and all(before == size * stride for before, stride in zip(found[-1][1:], strides, strict=True)):
            found[-1] = (found[-1][0] * size, *strides)
        else:
            found.append((size, *strides))
    return found


def _four(i: int, j: int, strides: list[int]) -> Strides:
    return i, j, strides[-2], strides[-1]
