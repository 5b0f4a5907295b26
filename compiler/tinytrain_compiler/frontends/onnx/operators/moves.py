"""Operators that move elements: Concat, Slice, Split, Gather, Pad, Resize, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ....graph import Layout
from ....ops.concat import ConcatAttributes
from ....ops.take import FILL, TakeAttributes
from ..float_passes.edit import attributes
from ..float_passes.runtime import new_session
from ..qdq_importer import Pending, QdqImporter, UnsupportedNodeError, builder
from ..rule import Context, Findings, support_rule
from .demands import need_constant

_RESIZED = ("asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
            "tf_half_pixel_for_nn")  # fmt: skip


@support_rule("Concat")
def _concat(c: Context) -> Findings:
    """Activations along any axis but the batch, each in a scale of its own; in float models constants too."""
    shape = c.shape()
    if shape is not None and c.attributes["axis"] % len(shape) == 0 and shape[0] == 1:
        yield "it joins along the batch axis", "the firmware runs one sample at a time: join along another axis"


@support_rule("Slice")
def _slice(c: Context) -> Findings:
    """Constant starts, ends, axes and steps, also negative ones."""
    for i, what in enumerate(("start", "end", "axes", "steps"), 1):
        yield from need_constant(c, i, what)
    yield from _whole_batch(c)


@support_rule("Split")
def _split(c: Context) -> Findings:
    """Equal or constant parts along any axis but the batch."""
    yield from need_constant(c, 1, "split")


@support_rule("Gather")
def _gather(c: Context) -> Findings:
    """Constant indices of any shape, along any axis but the batch."""
    if c.is_constant(0):
        yield "its table is a constant", "compile the model behind the embedding, with its result as the input"
    yield from need_constant(c, 1, "indices")
    yield from _whole_batch(c)


@support_rule("Pad")
def _pad(c: Context) -> Findings:
    """Constant pads, also negative ones; modes constant (any finite value), reflect, edge and wrap."""
    yield from need_constant(c, 1, "pads")
    yield from need_constant(c, 2, "value")
    yield from need_constant(c, 3, "axes")
    value = c.constant(2)
    if value is not None and not np.isfinite(value).all():
        yield f"it pads with {float(value.ravel()[0])}", "pad with a finite number, or use the pads of the pool"
    yield from _whole_batch(c)


@support_rule("Resize")
def _resize(c: Context) -> Findings:
    """mode=nearest, constant scales or sizes, all coordinate transformations but tf_crop_and_resize."""
    mode = c.attributes.get("mode", "nearest")
    if mode != "nearest":
        yield f"mode={mode}", "export with mode='nearest' (nn.Upsample's default) and fine-tune"
    transformation = c.attributes.get("coordinate_transformation_mode", "half_pixel")
    if transformation not in _RESIZED:
        yield f"coordinate_transformation_mode={transformation}", "slice first, and resize what is left"
    yield from need_constant(c, 2, "scales")
    yield from need_constant(c, 3, "sizes")
    yield from _whole_batch(c)


@support_rule("DepthToSpace")
def _depth_to_space(c: Context) -> Findings:
    """Any block size, DCR and CRD."""
    yield from ()


@support_rule("SpaceToDepth")
def _space_to_depth(c: Context) -> Findings:
    """Any block size."""
    yield from ()


def _whole_batch(c: Context) -> Findings:
    """An axis of another size in front, as a Transpose moves it there, is no batch."""
    before, after = c.shape(), c.output_shape()
    if before is not None and after is not None and len(before) == len(after) and before[0] == 1 != after[0]:
        yield f"it turns batch {before[0]} into {after[0]}", "the firmware runs one sample at a time"


@builder("Concat")
def concat(importer: QdqImporter, node: onnx.NodeProto) -> Pending:
    """In whatever order the first input has whole axes."""
    axes = _axes(importer, node.input[0])
    parts = [importer.arranged(name, Layout.of_axes(importer.shape(name), axes)) for name in node.input]
    layout = Layout.of_axes(importer.shape(node.output[0]), axes)
    axis = _kept(layout.shape, axes).index(attributes(node)["axis"] % len(layout.shape))
    return Pending(node, "concat", tuple(part.name for part in parts), layout, ConcatAttributes(axis))


@builder("Slice", "Resize")
def moved(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    return _take(importer, node, _index_lists(importer, node))


@builder("Split")
def split(importer: QdqImporter, node: onnx.NodeProto) -> None:
    """One node an output."""
    source = importer.shape(node.input[0])
    axis, first = attributes(node).get("axis", 0) % len(source), 0
    for i, name in enumerate(node.output):
        size = importer.shape(name)[axis]
        part = onnx.helper.make_node("Split", [node.input[0]], [name], name=f"{node.name}_{i}")
        pending = _take(importer, part, {axis: list(range(first, first + size))})
        first += size
        if pending is not None:
            importer.pending[name] = pending


@builder("Gather")
def gather(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    """A single index drops its axis, indices of several dimensions become as many axes."""
    source = importer.shape(node.input[0])
    axis = attributes(node).get("axis", 0) % len(source)
    indices = importer.initializers[node.input[1]].reshape(-1)
    return _take(importer, node, {axis: [int(i) % source[axis] for i in indices]})


@builder("Pad")
def pad(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    """Padding reads the byte that stands for its value."""
    constant = attributes(node).get("mode", "constant") == "constant"
    value = 0.0
    if constant and len(node.input) > 2 and node.input[2]:
        value = float(importer.constant(node.input[2]).real.reshape(()))
    q = importer.as_it_lies(node.input[0])[0].quantization
    fill = round(value / q.scale) + q.zero_point
    if not -128 <= fill <= 127:
        raise UnsupportedNodeError(
            f"it pads with {value:g}, which its input's scale {q.scale:.3g} cannot hold", "pad with zeros"
        )
    asked = onnx.NodeProto.FromString(node.SerializeToString())
    if constant:  # which elements are padding shows as an index that none has
        del asked.input[2:3]
        asked.input.insert(2, "padding")
    marks = {"padding": np.array(FILL, np.float32)}
    return _take(importer, node, _index_lists(importer, asked, marks), fill)


@builder("DepthToSpace", "SpaceToDepth")
def blocks(importer: QdqImporter, node: onnx.NodeProto) -> Pending | None:
    """A reshape, a transposition and a reshape: bytes move where the operator behind it asks for its order."""
    _, c, h, w = importer.shape(node.input[0])
    size, crd = attributes(node)["blocksize"], attributes(node).get("mode", "DCR") == "CRD"
    if node.op_type == "SpaceToDepth":
        shape, perm = (1, c, h // size, size, w // size, size), (0, 3, 5, 1, 2, 4)
    elif crd:
        shape, perm = (1, c // size**2, size, size, h, w), (0, 1, 4, 2, 5, 3)
    else:
        shape, perm = (1, size, size, c // size**2, h, w), (0, 3, 4, 1, 5, 2)

    def turned(layout: Layout) -> Layout:
        found = layout.reshaped(shape).transposed(perm)
        if found is None:
            raise UnsupportedNodeError("a Reshape in front of it mixed its axes", "quantise the tensor between the two")
        return found.reshaped(importer.shape(node.output[0]))

    name = node.input[0]
    if name in importer.activations and importer.as_it_lies(name)[1].reshaped(shape).transposed(perm) is None:
        importer.reorder(name, Layout.row_major(importer.shape(name)))
    return importer.same_bytes(node, turned)


def _take(
    importer: QdqImporter, node: onnx.NodeProto, lists: Mapping[int, Sequence[int]], fill: int = 0
) -> Pending | None:
    """lists: for axes of the file, the indices that are taken; the others are taken whole."""
    shape = importer.shape(node.input[0])
    lists = {axis: list(some) for axis, some in lists.items() if list(some) != list(range(shape[axis]))}
    if not lists:
        return importer.same_bytes(node, lambda layout: layout.reshaped(importer.shape(node.output[0])))
    axes = _axes(importer, node.input[0])
    x = importer.arranged(node.input[0], Layout.of_axes(shape, axes))
    result = Layout.of_axes([len(lists.get(axis, ())) or size for axis, size in enumerate(shape)], axes)
    indices = tuple(tuple(lists.get(axis, ())) for axis in _kept(shape, axes))
    device = tuple(len(some) or size for some, size in zip(indices, x.shape, strict=True))
    result = replace(result, device=device)  # an axis of several in front that becomes one is still there
    layout = result.reshaped(importer.shape(node.output[0]))  # as a Gather's indices have other axes than their list
    return Pending(node, "take", (x.name,), layout, TakeAttributes(indices, fill))


def _axes(importer: QdqImporter, name: str) -> Sequence[int]:
    """The file's axes as they lie in memory, where whole ones do; else in the file's order."""
    return importer.as_it_lies(name)[1].axes or range(len(importer.shape(name)))


def _kept(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    """The axes that the device's shape has, in its order: Layout.of_axes drops the batch."""
    return [axis for axis in axes if axis > 0 or shape[0] != 1 or len(shape) == 1]


def _index_lists(
    importer: QdqImporter, node: onnx.NodeProto, more: Mapping[str, NDArray[np.float32]] | None = None
) -> dict[int, list[int]]:
    """Which index of each axis every output element reads: the node itself, run by onnxruntime on these numbers.

    more: constants besides the model's.
    """
    shape = importer.shape(node.input[0])
    constants = {name: importer.initializers[name] for name in node.input[1:] if name in importer.initializers}
    asked = onnx.NodeProto.FromString(node.SerializeToString())
    asked.name = ""
    graph = onnx.helper.make_graph(
        [asked],
        "indices",
        [onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants | dict(more or {})).items()],
    )
    opsets = [o for o in importer.proto.opset_import if o.domain in ("", "ai.onnx")]
    session = new_session(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=importer.proto.ir_version))
    lists = {}
    for axis, size in enumerate(shape):
        numbers = np.arange(size, dtype=np.float32).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        (found,) = session.run(None, {node.input[0]: np.ascontiguousarray(np.broadcast_to(numbers, shape))})
        # Padding of other axes marks whole rows: what an index reads shows in the largest.
        lists[axis] = found.max(tuple(i for i in range(len(shape)) if i != axis)).astype(int).tolist()
    return lists
