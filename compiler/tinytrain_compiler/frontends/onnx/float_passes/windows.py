"""Convs and pools say everything: kernel_shape, strides, dilations and pads as numbers, no auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from .edit import GraphEditor, attributes, set_attribute

WINDOWED = ("Conv", "AveragePool", "MaxPool")


@dataclass(frozen=True)
class WindowAttributes:
    """A 2-D window; (height, width) each, pads (top, left, bottom, right)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    def remainder(self, size: Sequence[int]) -> tuple[int, ...]:
        """Rows and columns of the padded input (height, width) that no window reaches; ceil_mode acts on them."""
        return tuple(
            (size[i] + self.pads[i] + self.pads[i + 2] - (self.kernel[i] - 1) * self.dilations[i] - 1) % self.strides[i]
            for i in (0, 1)
        )


def window_of(node: onnx.NodeProto, size: Sequence[int], kernel: Sequence[int] | None = None) -> WindowAttributes:
    """The window of a Conv or pool on an input of (height, width); `kernel` where the node doesn't say."""
    a = attributes(node)
    k = tuple(a.get("kernel_shape") or kernel or ())
    strides = tuple(a.get("strides", (1, 1)))
    dilations = tuple(a.get("dilations", (1, 1)))
    auto = a.get("auto_pad", "NOTSET")
    pads = tuple(a.get("pads", (0, 0, 0, 0)))
    if auto == "VALID":
        pads = (0, 0, 0, 0)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for i in (0, 1):
            steps = -(-size[i] // strides[i])
            total = max((steps - 1) * strides[i] + (k[i] - 1) * dilations[i] + 1 - size[i], 0)
            small, large = total // 2, total - total // 2
            begin.append(small if auto == "SAME_UPPER" else large)
            end.append(large if auto == "SAME_UPPER" else small)
        pads = (*begin, *end)
    return WindowAttributes(k, strides, dilations, pads)


def explicit_windows(editor: GraphEditor) -> None:
    for node in editor.nodes(*WINDOWED):
        shape = editor.shapes[node.input[0]]
        kernel = editor.shapes[node.input[1]][2:] if node.op_type == "Conv" else None
        w = window_of(node, shape[2:], kernel)
        set_attribute(node, "auto_pad", None)
        set_attribute(node, "ceil_mode", None)  # without effect, or the model would have been refused
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
