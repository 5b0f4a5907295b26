"""Convs and pools say everything: kernel_shape, strides, dilations and pads as numbers, no auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from .edit import GraphEditor, attributes, set_attribute

WINDOWED = ("Conv", "AveragePool", "MaxPool")


@dataclass(frozen=True)
class WindowAttributes:
    """A window over one or two axes; a number for each, pads before the first and then after the last."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def window_of(node: onnx.NodeProto, size: Sequence[int], kernel: Sequence[int] | None = None) -> WindowAttributes:
    """The window of a Conv or pool on an input of (height, width) or (length,); `kernel` where the node doesn't say."""
    return spelled_out(attributes(node), size, kernel)


def spelled_out(a: dict[str, Any], size: Sequence[int], kernel: Sequence[int] | None = None) -> WindowAttributes:
    """A window's attributes without auto_pad and ceil_mode: what these add is padding."""
    axes = range(len(size))
    k = tuple(a.get("kernel_shape") or kernel or ())
    strides = tuple(a.get("strides", (1,) * len(size)))
    dilations = tuple(a.get("dilations", (1,) * len(size)))
    auto = a.get("auto_pad", "NOTSET")
    pads = list(a.get("pads", (0, 0) * len(size)))
    extents = [(k[i] - 1) * dilations[i] + 1 for i in axes]
    if auto == "VALID":
        pads = [0, 0] * len(size)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        for i in axes:
            total = max((-(-size[i] // strides[i]) - 1) * strides[i] + extents[i] - size[i], 0)
            small, large = total // 2, total - total // 2
            pads[i], pads[i + len(size)] = (small, large) if auto == "SAME_UPPER" else (large, small)
    if a.get("ceil_mode", 0) and auto in ("NOTSET", "VALID"):
        for i in axes:
            begin, end = pads[i], pads[i + len(size)]
            count = -(-(size[i] + begin + end - extents[i]) // strides[i]) + 1
            if (count - 1) * strides[i] >= size[i] + begin:  # it would begin behind the last pixel
                count -= 1
            pads[i + len(size)] = max(end, (count - 1) * strides[i] + extents[i] - size[i] - begin)
    return WindowAttributes(k, strides, dilations, tuple(pads))


def explicit_windows(editor: GraphEditor) -> None:
    for node in editor.nodes(*WINDOWED):
        shape = editor.shapes[node.input[0]]
        kernel = editor.shapes[node.input[1]][2:] if node.op_type == "Conv" else None
        w = window_of(node, shape[2:], kernel)
        set_attribute(node, "auto_pad", None)
        set_attribute(node, "ceil_mode", None)
        set_attribute(node, "storage_order", None)
        for name, value in (("kernel_shape", w.kernel), ("strides", w.strides), ("pads", w.pads)):
            set_attribute(node, name, list(value))
        if node.op_type == "Conv":
            set_attribute(node, "dilations", list(w.dilations))
            set_attribute(node, "group", attributes(node).get("group", 1))
        else:
            set_attribute(node, "dilations", None)
        if len(node.input) == 3 and not node.input[2]:
            del node.input[2]  # a bias that is left out
