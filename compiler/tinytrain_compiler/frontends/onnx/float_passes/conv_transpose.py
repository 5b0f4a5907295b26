"""ConvTranspose as a Conv that computes all phases of the output as channels, and moves that interleave them.

With stride s, the output elements s apart from each other see the input through the same weights: every s-th ones
of the kernel. A Conv with s times the outputs an axis computes them side by side, exactly the same sums; Reshape,
Transpose and Reshape put them in their places, and a Slice cuts off what is too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
from onnx import helper

from .affine import as_affine
from .edit import Array, GraphEditor, attributes


@dataclass(frozen=True)
class Phases:
    """One axis. Output element i, counted from `cut` elements in front of the first, is element i // stride of phase
    i % stride; taps[k] = (the phase that weight k counts for, its place in the Conv's kernel).
    """

    stride: int
    cut: int
    taps: tuple[tuple[int, int], ...]
    kernel: int  # the Conv's
    pads: tuple[int, int]
    size: int  # of the Conv's output


def phases_of(size: int, kernel: int, stride: int, pad: int, result: int) -> Phases:
    """size, result: elements of input and output; pad: in front. The cut makes the Conv's kernel as small as can be."""

    def extent(cut: int) -> tuple[int, int]:
        return (kernel - 1 - pad + cut) // stride - (cut - pad) // stride + 1, cut

    _, cut = min(extent(cut) for cut in range(stride))
    first = (cut - pad) // stride  # a weight moves its input by so many elements of its phase, at least and at most
    last = max((kernel - 1 - pad + cut) // stride, 0)
    taps = tuple(((k - pad + cut) % stride, last - (k - pad + cut) // stride) for k in range(kernel))
    after = max(-(-(cut + result) // stride) - size - first, 0)
    width = last - first + 1
    return Phases(stride, cut, taps, width, (last, after), size + last + after - width + 1)


def conv_transpose_to_conv(editor: GraphEditor) -> None:
    """With the constant arithmetic per channel and the Relu or Clip behind it, which go in front of the moves."""
    for node in editor.nodes("ConvTranspose"):
        a = attributes(node)
        groups, axes = a.get("group", 1), len(editor.shapes[node.input[0]]) - 2
        stored = editor.constants[node.input[1]].astype(np.float64)  # (inputs, outputs of a group, *kernel)
        weight = stored.reshape(groups, -1, *stored.shape[1:])
        outputs = groups * stored.shape[1]
        bias = editor.constants[node.input[2]].astype(np.float64) if len(node.input) > 2 and node.input[2] else None
        bias = np.zeros(outputs) if bias is None else bias
        result = node.output[0]
        while (after := editor.only_consumer(result)) is not None and (affine := as_affine(after, editor)) is not None:
            weight = weight * affine.scale.reshape(groups, 1, -1, *[1] * axes)
            bias = bias * affine.scale + affine.shift
            result = after.output[0]
            editor.remove([after])
        sizes = zip(
            editor.shapes[node.input[0]][2:], weight.shape[3:], a.get("strides", [1] * axes), a.get("pads", [0] * axes),
            editor.shapes[node.output[0]][2:], strict=False,
        )  # fmt: skip
        phases = [phases_of(*each) for each in sizes]
        weight, bias = _as_channels(phases, weight, bias)
        named = [
            editor.add_constant(f"{base}_phases", value.astype(np.float32))
            for base, value in ((node.input[1], weight), (f"{node.name}_bias", bias))
        ]
        computed = editor.fresh(f"{result}_phases")
        pads = [end[i] for i in range(2) for end in (p.pads for p in phases)]
        conv = helper.make_node(
            "Conv", [node.input[0], *named], [computed], name=node.name, group=groups, pads=pads,
            kernel_shape=[p.kernel for p in phases],
        )  # fmt: skip
        row = [conv]
        if after is not None and after.op_type in ("Relu", "Clip") and after.input[0] == result:
            result = after.output[0]
            activation = onnx.NodeProto.FromString(after.SerializeToString())
            activation.input[0], activation.output[0] = computed, editor.fresh(f"{result}_phases")
            editor.remove([after])
            row.append(activation)
        editor.replace(node, [*row, *_interleaved(editor, phases, groups, outputs, row[-1].output[0], result)])


def _as_channels(phases: Sequence[Phases], weight: Array, bias: Array) -> tuple[Array, Array]:
    """weight: (groups, inputs, outputs, *kernel) of a group. Back: the Conv's; channels by group, phase, output."""
    groups, inputs, outputs = weight.shape[:3]
    n, strides, kernel = len(phases), [p.stride for p in phases], [p.kernel for p in phases]
    by_place = np.moveaxis(weight, (0, 2, 1), (-3, -2, -1))
    result = np.zeros((*strides, *kernel, groups, outputs, inputs))
    for where in product(*(range(size) for size in weight.shape[3:])):
        taps = [p.taps[k] for p, k in zip(phases, where, strict=True)]
        result[(*(phase for phase, _ in taps), *(place for _, place in taps))] = by_place[where]
    # groups, phases, outputs, inputs, kernel
    result = result.transpose(2 * n, *range(n), 2 * n + 1, 2 * n + 2, *range(n, 2 * n))
    wide = np.broadcast_to(bias.reshape(groups, *[1] * n, outputs), (groups, *strides, outputs))
    return result.reshape(-1, inputs, *kernel), wide.reshape(-1)


def _interleaved(
    editor: GraphEditor, phases: Sequence[Phases], groups: int, outputs: int, source: str, result: str
) -> list[onnx.NodeProto]:
    """The nodes that put the phases in `source` in their places."""
    n = len(phases)
    apart = (1, groups, *(p.stride for p in phases), outputs // groups, *(p.size for p in phases))
    order = [0, 1, 2 + n, *(axis for i in range(n) for axis in (3 + n + i, 2 + i))]
    if groups == 1:  # one axis less is one that the device need not have
        apart, order = (1, *apart[2:]), [axis - (axis > 1) for axis in order if axis != 1]
    whole = (1, outputs, *(p.stride * p.size for p in phases))
    shape = editor.shapes[result]
    last = result if whole == shape else editor.fresh(f"{result}_whole")
    names = [source, editor.fresh(f"{result}_apart"), editor.fresh(f"{result}_turned"), last]
    shapes = [editor.add_constant(f"{result}_shape", np.array(each, np.int64)) for each in (apart, whole)]
    nodes = [
        helper.make_node("Reshape", [names[0], shapes[0]], [names[1]]),
        helper.make_node("Transpose", [names[1]], [names[2]], perm=order),
        helper.make_node("Reshape", [names[2], shapes[1]], [names[3]]),
    ]
    if last != result:
        cuts = [p.cut for p in phases]
        ends = [cut + size for cut, size in zip(cuts, shape[2:], strict=True)]
        limits = [
            editor.add_constant(f"{result}_{name}", np.array(values, np.int64))
            for name, values in (("starts", cuts), ("ends", ends), ("axes", list(range(2, 2 + n))))
        ]
        nodes.append(helper.make_node("Slice", [last, *limits], [result]))
    for node in nodes:
        node.name = editor.fresh(f"{result}_{node.op_type.lower()}")
    return nodes
