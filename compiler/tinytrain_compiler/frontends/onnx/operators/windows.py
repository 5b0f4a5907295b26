"""The windows of convolutions and pools: what a node says, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....ops.window import Window
from ..float_passes.windows import spelled_out
from ..qdq_importer import UnsupportedNodeError
from ..rule import Context, Findings
from .demands import need_auto_pad, need_image


def need_window(c: Context) -> Findings:
    """Shared by pools: 1-D or 2-D, and averages that say what they divide by."""
    shape = c.shape()
    if shape is None:
        return
    yield from need_image(c)
    yield from need_auto_pad(c)
    if len(shape) not in (3, 4):
        return
    if any(d != 1 for d in c.attributes.get("dilations", ())):
        yield "its window is dilated", "use dilations 1"
    elif c.attributes.get("count_include_pad", 0) and c.attributes.get("ceil_mode", 0):
        plain = {name: value for name, value in c.attributes.items() if name != "ceil_mode"}
        if spelled_out(plain, shape[2:]) != spelled_out(c.attributes, shape[2:]):
            yield "ceil_mode=1 adds padding here, and it counts padding", "set count_include_pad=0 or ceil_mode=0"


def node_window(attrs: dict[str, Any], kernel: Sequence[int], height: int, width: int) -> Window:
    """Explicit pads from `pads`, `auto_pad` and `ceil_mode`. A window of one axis moves along the width."""
    n = len(kernel)
    w = spelled_out(attrs, (height, width)[2 - n :], kernel)

    def pair(values: Sequence[int], other: int) -> tuple[int, int]:
        return (values[0], values[1]) if n == 2 else (other, values[0])

    return Window(pair(w.kernel, 1), pair(w.strides, 1), pair(w.dilations, 1), pair(w.pads[:n], 0), pair(w.pads[n:], 0))


def checked_window(window: Window, shape: tuple[int, ...], expected: tuple[int, ...]) -> Window:
    if window.output_size(*shape[:2]) != expected[:2]:
        raise UnsupportedNodeError("its output has another size than its window says", "export the model again")
    return window
