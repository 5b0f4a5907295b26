"""The support rules, one a type of operator.

A rule's docstring is the line of the documentation table (`tinytrain ops`) and closes every message about a node
the rule refuses, so the two can't drift. An empty fix leaves the word to the docstring.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from .alternatives import NO_GATE
from .float_passes.activations import clip_limits
from .float_passes.affine import as_affine
from .float_passes.edit import default_opset
from .float_passes.matmul import as_bias
from .float_passes.pooling import reduced_axes
from .float_passes.reshapes import RESHAPES
from .float_passes.windows import window_of
from .rule import Context, Findings, support_rule


def _need_rank(c: Context, rank: int) -> Findings:
    shape = c.shape()
    if shape is not None and len(shape) != rank:
        wanted = "(1, C, H, W)" if rank == 4 else "(1, F)"
        yield f"its input has shape {shape}", f"give it an input of shape {wanted}"


def _need_constant(c: Context, i: int, what: str) -> Findings:
    if c.has(i) and not c.is_constant(i):
        yield f"its {what} is computed by the model", f"make the {what} a constant"


def _need_window(c: Context) -> Findings:
    """Shared by pools: 2-D, nothing that ceil_mode would add."""
    shape = c.shape()
    if shape is None:
        return
    if len(shape) != 4:
        yield from _need_rank(c, 4)
        return
    if any(d != 1 for d in c.attributes.get("dilations", ())):
        yield "its window is dilated", "use dilations 1"
        return
    if c.attributes.get("ceil_mode", 0) and any(window_of(c.node, shape[2:]).remainder(shape[2:])):
        yield f"ceil_mode=1 changes the output's shape here (input {shape})", "set ceil_mode=0 or change the pads"


@support_rule("Conv")
def _conv(c: Context) -> Findings:
    """2-D, any kernel, strides, pads, auto_pad, dilations and groups (depthwise too); constant weights and bias."""
    yield from _need_rank(c, 4)
    yield from _need_constant(c, 1, "weight")
    yield from _need_constant(c, 2, "bias")


@support_rule("Gemm")
def _gemm(c: Context) -> Findings:
    """Input (1, F), transA=0, any alpha, beta and transB; constant B, and C one number per output or absent."""
    yield from _need_rank(c, 2)
    if c.attributes.get("transA", 0):
        yield "transA=1", "export a Linear layer, which has transA=0"
    yield from _need_constant(c, 1, "B")
    yield from _need_constant(c, 2, "C")
    shape, bias = c.output_shape(), c.constant(2)
    if shape is not None and bias is not None and as_bias(bias, shape[-1]) is None:
        yield f"its C has shape {bias.shape}", ""


@support_rule("MatMul")
def _matmul(c: Context) -> Findings:
    """Input (1, F) times a constant matrix, also with an Add of a constant behind it."""
    yield from _need_rank(c, 2)
    if not c.is_constant(1):
        what = "its left side is the constant" if c.is_constant(0) else "it multiplies two computed tensors"
        yield what, "use Gemm or a Linear layer with constant weights"
    elif (shape := c.shape(1)) is not None and len(shape) != 2:
        yield f"its right side has shape {shape}", ""


@support_rule("BatchNormalization")
def _batch_normalization(c: Context) -> Findings:
    """Inference mode, constant parameters; folded into the layer in front or made a depthwise 1x1 Conv."""
    if c.attributes.get("training_mode", 0) or len([o for o in c.node.output if o]) > 1:
        yield "it is in training mode", "export with model.eval()"
    elif c.quantized:
        yield "it stands alone in a quantised model", "fold it into the Conv before quantising"
    elif c.shape() is not None and as_affine(c.node, c.editor) is None:
        yield "its parameters are computed by the model", "export with model.eval()"


@support_rule("Relu")
def _relu(c: Context) -> Findings:
    """Any place; becomes the clip limits of the layer in front."""
    yield from ()


@support_rule("Clip")
def _clip(c: Context) -> Findings:
    """Any constant min and max, ReLU6 among them; becomes the clip limits of the layer in front."""
    if clip_limits(c.node, c.editor) is None:
        yield "its min or max is computed by the model", "make both constants"


@support_rule("Add")
def _add(c: Context) -> Findings:
    """Two activations of one shape (residual); or an activation and a constant number per channel, which is folded."""
    if c.is_constant(0) != c.is_constant(1):
        yield from _foldable(c)
    elif (left := c.shape(0)) is not None and (right := c.shape(1)) is not None and left != right:
        yield f"its inputs have different shapes, {left} and {right}", "make the shapes equal"


@support_rule("Sub")
def _sub(c: Context) -> Findings:
    """An activation and a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


@support_rule("Mul")
def _mul(c: Context) -> Findings:
    """An activation and a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


@support_rule("Div")
def _div(c: Context) -> Findings:
    """An activation divided by a constant number per channel (input normalisation); folded."""
    yield from _foldable(c)


def _foldable(c: Context) -> Findings:
    if not c.is_constant(0) and not c.is_constant(1):
        yield "both of its inputs are computed by the model", NO_GATE if c.node.op_type == "Mul" else ""
    elif c.quantized:
        yield "it has a constant side in a quantised model", "fold it into a Conv or Gemm before quantising"
    elif all(c.shape(i) is not None for i in (0, 1)) and as_affine(c.node, c.editor) is None:
        shapes = " and ".join(str(c.shape(i)) for i in (0, 1))
        yield f"its constant side is not one non-zero number per channel (shapes {shapes})", ""


@support_rule("GlobalAveragePool")
def _global_average_pool(c: Context) -> Findings:
    """Input (1, C, H, W)."""
    yield from _need_rank(c, 4)


@support_rule("AveragePool")
def _average_pool(c: Context) -> Findings:
    """2-D, any kernel, strides and pads, count_include_pad 0 and 1; no dilations, ceil_mode without effect only."""
    yield from _need_window(c)


@support_rule("MaxPool")
def _max_pool(c: Context) -> Findings:
    """2-D, any kernel, strides and pads; no dilations, no Indices output, ceil_mode without effect only."""
    yield from _need_window(c)
    if len([o for o in c.node.output if o]) > 1:
        yield "it also returns indices", "export with return_indices=False"


@support_rule("ReduceMean")
def _reduce_mean(c: Context) -> Findings:
    """Over height and width of (1, C, H, W), axes constant, keepdims 0 or 1; becomes GlobalAveragePool."""
    shape = c.shape()
    if shape is None:
        return
    axes = reduced_axes(c.node, c.editor)
    if axes is None:
        yield "its axes are computed by the model", "make the axes a constant"
    elif len(shape) != 4 or axes != (2, 3):
        yield f"it averages over axes {axes} of {shape}", "average over height and width, axes 2 and 3"


@support_rule("Flatten")
def _flatten(c: Context) -> Findings:
    """To (1, F), axis=1; images of several channels and pixels with a Gemm behind."""
    shape = c.output_shape()
    if shape is not None and shape[0] != 1:
        yield f"its output has shape {shape}", "use axis=1"


@support_rule("Reshape")
def _reshape(c: Context) -> Findings:
    """Constant shape; to (1, F) as Flatten, or between images with one channel or one pixel."""
    yield from _same_order(c)


@support_rule("Squeeze")
def _squeeze(c: Context) -> Findings:
    """Constant axes, limits as for Reshape."""
    yield from _same_order(c)


@support_rule("Unsqueeze")
def _unsqueeze(c: Context) -> Findings:
    """Constant axes, limits as for Reshape."""
    yield from _same_order(c)


def _same_order(c: Context) -> Findings:
    """Of a chain of shape changes only the ends count; they are judged at the last one."""
    if len(c.node.input) > 1 and c.constant(1) is None:
        yield f"its {'shape' if c.node.op_type == 'Reshape' else 'axes'} input is computed by the model", ""
        return
    following = c.editor.only_consumer(c.node.output[0])
    if following is not None and following.op_type in RESHAPES:
        return
    first = c.node
    while (before := c.editor.private_producer(first.input[0])) is not None and before.op_type in RESHAPES:
        first = before
    source, result = c.editor.shapes.get(first.input[0]), c.output_shape()
    if source is not None and result is not None and not _keeps_order(source, result):
        yield f"it turns {source} into {result}, which moves values between channels and pixels", ""


def _keeps_order(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Images lie in memory as H, W, C, so a new shape must not need another order. A Gemm can take any."""

    def plain(shape: tuple[int, ...]) -> bool:
        return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1

    return before == after or len(after) == 2 or (plain(before) and plain(after))


@support_rule("Softmax")
def _softmax(c: Context) -> Findings:
    """Over the features of (1, F) or the channels of (1, C, H, W)."""
    shape = c.shape()
    if shape is None:
        return
    old = default_opset(c.editor.proto) < 13
    axis = c.attributes.get("axis", 1 if old else -1) % max(len(shape), 1)
    # Before opset 13 it ran over this axis and all behind it together.
    if axis != 1 or (old and int(np.prod(shape[2:])) != 1):
        yield f"it runs over axis {axis} of {shape}", "use axis=1"


@support_rule("Identity")
def _identity(c: Context) -> Findings:
    """Removed."""
    yield from ()


@support_rule("Dropout")
def _dropout(c: Context) -> Findings:
    """Inference mode; removed."""
    training = c.constant(2)
    if len(c.node.output) > 1 and c.node.output[1] and c.editor.consumers(c.node.output[1]):
        yield "its mask output is used", "export with model.eval()"
    elif c.has(2) and (training is None or bool(training.any())):
        yield "it is in training mode", "export with model.eval()"


@support_rule("Constant")
def _constant(c: Context) -> Findings:
    """Any; whatever depends on constants alone is computed while compiling, with any operator."""
    yield from ()


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
