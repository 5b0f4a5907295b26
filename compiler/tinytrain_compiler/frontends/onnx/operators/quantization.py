"""QuantizeLinear and DequantizeLinear: the importer itself reads them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from ..rule import Context, Findings, support_rule


@support_rule("QuantizeLinear")
def _quantize_linear(c: Context) -> Findings:
    """int8 or uint8 with one constant scale for the tensor; models that come quantised (QDQ)."""
    yield from _scales(c, (TensorProto.INT8, TensorProto.UINT8), weights=False)


@support_rule("DequantizeLinear")
def _dequantize_linear(c: Context) -> Findings:
    """int8 or uint8 activations, int8 weights (also one scale per output channel), int32 biases; constant scales."""
    yield from _scales(c, (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32), weights=c.constant(0) is not None)


def _scales(c: Context, types: tuple[int, ...], weights: bool) -> Findings:
    scale, zero = c.constant(1), c.constant(2)
    if scale is None or (c.has(2) and zero is None):
        yield "its scale or zero point is computed by the model", "quantise statically"
        return
    if wrong := sorted({float(s) for s in scale.ravel() if not (np.isfinite(s) and s > 0)}, key=str):
        yield f"its scale is {', '.join(map(str, wrong[:3]))}", "quantise again: scales are positive numbers"
    if c.attributes.get("block_size", 0):
        yield "it is quantised in blocks", "quantise per tensor or per channel"
    elif scale.size > 1 and not weights:
        yield "an activation has one scale per channel", "quantise activations per tensor"
    data = c.constant(0)
    given = zero if zero is not None else data if c.node.op_type == "DequantizeLinear" else np.zeros(1, np.uint8)
    if given is not None and onnx.helper.np_dtype_to_tensor_dtype(given.dtype) not in types:
        yield f"it uses {given.dtype}", "quantise to int8"
