"""The windows of convolutions and pools: what a node says, and what is refused."""

from __future__ import annotations

from typing import Any

from ....ops.window import Window
from ..float_passes.windows import window_of
from ..qdq_importer import UnsupportedNodeError
from ..rule import Context, Findings
from .demands import need_one_sample, need_rank


def need_window(c: Context) -> Findings:
    """Shared by pools: 2-D, nothing that ceil_mode would add."""
    shape = c.shape()
    if shape is None:
        return
    if len(shape) != 4:
        yield from need_rank(c, 4)
        return
    yield from need_one_sample(shape)
    if any(d != 1 for d in c.attributes.get("dilations", ())):
        yield "its window is dilated", "use dilations 1"
        return
    if c.attributes.get("ceil_mode", 0) and any(window_of(c.node, shape[2:]).remainder(shape[2:])):
        yield f"ceil_mode=1 changes the output's shape here (input {shape})", "set ceil_mode=0 or change the pads"


def node_window(attrs: dict[str, Any], kernel: tuple[int, int], height: int, width: int) -> Window:
    """Explicit pads from `pads` or `auto_pad`."""
    stride = tuple(attrs.get("strides", (1, 1)))
    dilation = tuple(attrs.get("dilations", (1, 1)))
    pads = list(attrs.get("pads", (0, 0, 0, 0)))
    mode = attrs.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        for i, size in enumerate((height, width)):
            extent = (kernel[i] - 1) * dilation[i] + 1
            total = max((-(-size // stride[i]) - 1) * stride[i] + extent - size, 0)
            small, large = total // 2, total - total // 2
            pads[i], pads[i + 2] = (small, large) if mode == "SAME_UPPER" else (large, small)
    return Window(kernel, stride, dilation, (pads[0], pads[1]), (pads[2], pads[3]))


def checked_window(window: Window, shape: tuple[int, ...], expected: tuple[int, ...]) -> Window:
    if window.output_size(*shape[:2]) != expected[:2]:
        raise UnsupportedNodeError("its output size needs ceil_mode", "export it with ceil_mode=0")
    return window
