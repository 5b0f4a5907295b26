"""Values that are moved: joined, cut, padded, resized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..file import Operator
from ..translator import TO_IMAGE, CannotTranslateError, Translator, translation
from .arithmetic import operands_are_images

_AXIS_OF_IMAGE = {TO_IMAGE[i]: i for i in range(4)}  # of (1, H, W, C) -> of (1, C, H, W)


def _axis(axis: int, rank: int, image: bool) -> int:
    if not -rank <= axis < rank:
        raise CannotTranslateError(f"its axis {axis} does not fit {rank} dimensions", "export the model again")
    return _AXIS_OF_IMAGE[axis % rank] if image else axis % rank


def _source(t: Translator, index: int, image: bool) -> str:
    return t.image(index) if image else t.rows(index)


def _vector(t: Translator, op: Operator, what: str, values: Sequence[int]) -> str:
    return t.constant(f"{t.label(op)}/{what}", np.asarray(values, np.int64))


@translation("CONCATENATION")
def concatenation(t: Translator, op: Operator) -> None:
    """Along any axis; any fused activation."""
    image = operands_are_images(t, op)
    axis = _axis(op.options["axis"], len(t.shape(op.outputs[0])), image)
    y = t.node("Concat", [_source(t, i, image) for i in op.inputs], t.label(op), axis=axis)
    t.finish(op, t.activated(y, op), image)


@translation("SPLIT", "SPLIT_V")
def split(t: Translator, op: Operator) -> None:
    """Along any constant axis, in parts of any size."""
    x, axis_input = (0, 2) if op.name == "SPLIT_V" else (1, 0)
    source = t.input(op, x)
    (axis,) = t.integers(t.input(op, axis_input), "axis") or [0]
    rank, image = len(t.shape(source)), t.is_image(source)
    sizes = [t.shape(i)[axis] if -rank <= axis < rank and len(t.shape(i)) == rank else 0 for i in op.outputs]
    names = [t.label(op, k) for k in range(len(op.outputs))]
    parts = t.split([_source(t, source, image), _vector(t, op, "sizes", sizes)], names, _axis(axis, rank, image))
    for k, name in enumerate(parts):
        t.finish(op, name, image, k)


@translation("SLICE")
def slice_(t: Translator, op: Operator) -> None:
    """Constant begin and size."""
    x = t.input(op, 0)
    shape, begin = t.shape(x), t.integers(t.input(op, 1), "begin")
    size = t.integers(t.input(op, 2), "size")
    if not len(shape) == len(begin) == len(size):
        raise CannotTranslateError(f"begin {begin} and size {size} don't fit {shape}", "export the model again")
    ends = [n if s < 0 else b + s for n, b, s in zip(shape, begin, size, strict=True)]
    image = t.is_image(x)
    y = _sliced(t, op, _source(t, x, image), begin, ends, [1] * len(shape), image)
    t.finish(op, y, image)


@translation("STRIDED_SLICE")
def strided_slice(t: Translator, op: Operator) -> None:
    """Constant begin, end and strides; begin, end and shrink masks."""
    x = t.input(op, 0)
    shape = t.shape(x)
    begin, end, strides = (t.integers(t.input(op, i), what) for i, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if op.options["ellipsis_mask"] or op.options["new_axis_mask"] or op.options["offset"]:
        raise CannotTranslateError("it has an ellipsis or a new axis", "write all dimensions out, and reshape")
    if not len(shape) == len(begin) == len(end) == len(strides) or min(strides, default=1) < 1:
        raise CannotTranslateError(f"begin, end and strides {strides} don't fit {shape}", "use positive strides")
    shrink = op.options["shrink_axis_mask"]
    starts = [0 if op.options["begin_mask"] >> i & 1 and not shrink >> i & 1 else b for i, b in enumerate(begin)]
    ends = [n if op.options["end_mask"] >> i & 1 else e for i, (n, e) in enumerate(zip(shape, end, strict=True))]
    starts = [s + n if s < 0 else s for s, n in zip(starts, shape, strict=True)]
    ends = [starts[i] + 1 if shrink >> i & 1 else e for i, e in enumerate(ends)]
    if shrink:
        t.finish_flat(op, t.requantized(op, _sliced(t, op, t.rows(x), starts, ends, strides, image=False)))
        return
    image = t.is_image(x)
    t.finish(op, _sliced(t, op, _source(t, x, image), starts, ends, strides, image), image)


def _sliced(
    t: Translator, op: Operator, name: str, begin: Sequence[int], end: Sequence[int], steps: Sequence[int], image: bool
) -> str:
    axes = [_AXIS_OF_IMAGE[i] if image else i for i in range(len(begin))]
    vectors = zip(("starts", "ends", "axes", "steps"), (begin, end, axes, steps), strict=True)
    return t.node("Slice", [name, *(_vector(t, op, what, values) for what, values in vectors)], t.label(op))


@translation("PAD", "PADV2", "MIRROR_PAD")
def pad(t: Translator, op: Operator) -> None:
    """Constant pads of zeros, of a constant, or mirrored (REFLECT)."""
    x, pads = t.input(op, 0), t.integers(t.input(op, 1), "pads")
    rank, image = len(t.shape(x)), t.is_image(x)
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        raise CannotTranslateError(f"its pads {pads} don't fit {t.shape(x)}", "export the model again")
    if op.name == "MIRROR_PAD" and op.options["mode"] != 0:
        raise CannotTranslateError("it pads symmetrically", "use REFLECT, or zeros")
    order = TO_IMAGE if image else range(rank)
    inputs = [_source(t, x, image), _vector(t, op, "pads", [pads[2 * i + k] for k in (0, 1) for i in order])]
    if op.name == "PADV2":
        inputs.append(t.constant(f"{t.label(op)}/value", t.real(t.input(op, 2)).reshape(())))
    mode = "reflect" if op.name == "MIRROR_PAD" else "constant"
    t.finish(op, t.node("Pad", inputs, t.label(op), mode=mode), image)


@translation("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", reads=(0,))
def resize(t: Translator, op: Operator) -> None:
    """To any fixed size; align_corners and half_pixel_centers too."""
    x, nearest = t.input(op, 0), op.name == "RESIZE_NEAREST_NEIGHBOR"
    image, shape = t.image(x), t.shape(op.outputs[0])
    if len(shape) != 4:
        raise CannotTranslateError(f"it makes {shape} of an image", "export the model again")
    align, half = op.options["align_corners"], op.options["half_pixel_centers"]
    mode = "align_corners" if align else "half_pixel" if half else "asymmetric"
    attributes = {"nearest_mode": "round_prefer_ceil" if align or half else "floor"} if nearest else {}
    y = t.node(
        "Resize", [image, "", "", _vector(t, op, "sizes", [shape[i] for i in TO_IMAGE])], t.label(op),
        mode="nearest" if nearest else "linear", coordinate_transformation_mode=mode, **attributes,
    )  # fmt: skip
    t.finish_image(op, y)


@translation("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_to_space(t: Translator, op: Operator) -> None:
    """Any block size."""
    kind = {"DEPTH_TO_SPACE": "DepthToSpace", "SPACE_TO_DEPTH": "SpaceToDepth"}[op.name]
    t.finish_image(op, t.node(kind, [t.image(t.input(op, 0))], t.label(op), blocksize=int(op.options["block_size"])))


@translation("GATHER")
def gather(t: Translator, op: Operator) -> None:
    """Constant indices along any axis."""
    x, indices = t.input(op, 0), t.integers(t.input(op, 1), "indices")
    if op.options["batch_dims"]:
        raise CannotTranslateError("it has batch_dims", "use batch_dims 0")
    axis = _axis(op.options["axis"], len(t.shape(x)), image=False)
    chosen = np.asarray(indices, np.int64).reshape(t.shape(op.inputs[1]))
    t.finish_rows(
        op, t.node("Gather", [t.rows(x), t.constant(f"{t.label(op)}/indices", chosen)], t.label(op), axis=axis)
    )


@translation("PACK")
def pack(t: Translator, op: Operator) -> None:
    """Any activations along a new axis."""
    out = t.shape(op.outputs[0])
    axis = _axis(op.options["axis"], len(out), image=False)
    single = [1 if i == axis else n for i, n in enumerate(out)]
    parts = [t.reshape(t.rows(i), single, f"{t.label(op)}/part") for i in op.inputs]
    t.finish_rows(op, t.node("Concat", parts, t.label(op), axis=axis))


@translation("UNPACK")
def unpack(t: Translator, op: Operator) -> None:
    """Along any axis."""
    x = t.input(op, 0)
    axis, count = _axis(op.options["axis"], len(t.shape(x)), image=False), len(op.outputs)
    names = [f"{t.label(op, k)}/part" for k in range(count)]
    for k, part in enumerate(t.split([t.rows(x), _vector(t, op, "sizes", [1] * count)], names, axis)):
        whole = t.requantized(op, part, k)
        t.finish_rows(op, t.reshape(whole, t.shape(op.outputs[k]), t.label(op, k)), k)
