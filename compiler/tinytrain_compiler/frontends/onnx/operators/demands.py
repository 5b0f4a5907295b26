"""Findings that several support rules share."""

from __future__ import annotations

from ..rule import Context, Findings

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def need_image(c: Context) -> Findings:
    """(1, C, H, W), or (1, C, L), which is an image of height 1."""
    shape = c.shape()
    if shape is not None and len(shape) not in (3, 4):
        yield f"its input has shape {shape}", "give it an input of shape (1, C, H, W) or (1, C, L)"
    elif shape is not None and shape[0] != 1:
        yield f"it works on {shape[0]} samples at once, its input being {shape}", "keep the first axis of the input 1"


def need_auto_pad(c: Context) -> Findings:
    """Of convolutions and pools; onnxruntime ends without a word on which node has another one."""
    found = c.attributes.get("auto_pad", "NOTSET")
    if found not in AUTO_PADS:
        yield f"its auto_pad is {str(found)[:20]!r}", f"use one of {', '.join(AUTO_PADS)}"


def need_constant(c: Context, i: int, what: str) -> Findings:
    if c.has(i) and not c.is_constant(i):
        yield f"its {what} is computed by the model", f"make the {what} a constant"
