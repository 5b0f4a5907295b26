"""Layers with weights: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV, FULLY_CONNECTED; BATCH_MATMUL."""

from __future__ import annotations

from collections.abc import Sequence

from ..file import Operator
from ..translator import TO_IMAGE, TO_ROWS, CannotTranslateError, Translator, translation
from .windows import dilations_of, pads, strides_of


@translation("CONV_2D")
def conv_2d(t: Translator, op: Operator) -> None:
    """Any padding, strides and dilations; constant weights (O, H, W, I), groups too; any fused activation."""
    x, w = t.input(op, 0), t.input(op, 1)
    weights = _weights_shape(t, w)
    channels = _image_shape(t, x)[3]
    if weights[3] == 0 or channels % max(weights[3], 1):
        raise CannotTranslateError(f"its weights {weights} don't fit {channels} channels", "export the model again")
    _conv(t, op, t.weights(op, w, (0, 3, 1, 2)), weights[1:3], weights[0], channels // weights[3])


@translation("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(t: Translator, op: Operator) -> None:
    """Any padding, strides, dilations and multiplier; constant weights (1, H, W, O); any fused activation."""
    x, w = t.input(op, 0), t.input(op, 1)
    weights = _weights_shape(t, w)
    channels = _image_shape(t, x)[3]
    if channels == 0 or weights[0] != 1 or weights[3] % channels:
        raise CannotTranslateError(f"its weights {weights} don't fit {channels} channels", "export the model again")
    # (1, H, W, O) -> (O, 1, H, W): outputs of one input channel stand together in both.
    _conv(t, op, t.weights(op, w, (3, 0, 1, 2)), weights[1:3], weights[3], channels)


def _conv(t: Translator, op: Operator, weights: str, kernel: Sequence[int], outputs: int, group: int) -> None:
    x = op.inputs[0]
    inputs = [t.image(x), weights]
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        inputs.append(t.bias(op, op.inputs[2], outputs))
    y = t.node(
        "Conv", inputs, t.label(op), kernel_shape=list(kernel), strides=strides_of(op), dilations=dilations_of(op),
        pads=pads(op, t.shape(x)[1:3], kernel), group=group,
    )  # fmt: skip
    t.finish_image(op, t.activated(y, op))


@translation("TRANSPOSE_CONV", reads=(1, 2, 3))
def transpose_conv(t: Translator, op: Operator) -> None:
    """Any padding and strides; constant weights (O, H, W, I); any fused activation."""
    w, x = t.input(op, 1), t.input(op, 2)
    weights, image = _weights_shape(t, w), _image_shape(t, x)
    out = _image_shape(t, op.outputs[0])
    if weights[3] != image[3]:
        raise CannotTranslateError(f"its weights {weights} don't fit {image[3]} channels", "export the model again")
    strides = strides_of(op)
    # What of the full output is cut off, at the front half of it; negative where the output is larger.
    spare = [(image[i] - 1) * strides[i - 1] + weights[i] - out[i] for i in (1, 2)]
    before = [max(n, 0) // 2 for n in spare]
    after = [max(n, 0) - b for n, b in zip(spare, before, strict=True)]
    inputs = [t.image(x), t.weights(op, w, (3, 0, 1, 2))]  # -> (I, O, H, W)
    if len(op.inputs) > 3 and op.inputs[3] >= 0:
        inputs.append(t.constant(f"{t.label(op)}/bias", t.real(op.inputs[3]).reshape(-1)))
    y = t.node(
        "ConvTranspose", inputs, t.label(op), kernel_shape=list(weights[1:3]), strides=strides,
        pads=before + after, output_padding=[max(-n, 0) for n in spare],
    )  # fmt: skip
    t.finish_image(op, t.activated(y, op))


@translation("FULLY_CONNECTED")
def fully_connected(t: Translator, op: Operator) -> None:
    """Constant weights (O, I), input of any dimensions, of I values or several rows of I; any fused activation."""
    x, w = t.input(op, 0), t.input(op, 1)
    weights = t.shape(w)
    if len(weights) != 2 or op.options["weights_format"] != 0:
        raise CannotTranslateError(
            f"its weights of shape {weights} are not (outputs, inputs)", "convert without a target's own weight format"
        )
    values = 1
    for size in t.shape(x):
        values *= size
    if weights[1] == 0 or values % weights[1]:
        raise CannotTranslateError(f"its weights {weights} don't fit {values} inputs", "export the model again")
    bias = t.bias(op, op.inputs[2], weights[0]) if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if values == weights[1]:
        source = t.flat(x)
        if t.shape(x) != (1, values):
            source = t.quantized(x, t.reshape(source, (1, values), f"{t.label(op)}/input"))
        inputs = [source, t.weights(op, w, (0, 1))] + ([] if bias is None else [bias])
        y = t.activated(t.node("Gemm", inputs, t.label(op), transB=1), op)
        if t.shape(op.outputs[0]) == (1, weights[0]):
            t.finish_rows(op, y)
        else:
            t.finish_flat(op, t.requantized(op, y))
        return
    _dense_of_rows(t, op, values // weights[1], bias)


def _dense_of_rows(t: Translator, op: Operator, count: int, bias: str | None) -> None:
    """As a convolution of one pixel over `count` pixels, which has the bias inside."""
    x, w, label = t.input(op, 0), t.input(op, 1), t.label(op)
    outputs, inputs = t.shape(w)
    rows = t.quantized(x, t.reshape(t.rows(x), (1, 1, count, inputs), f"{label}/rows"))
    pixels = t.quantized(x, t.node("Transpose", [rows], f"{label}/pixels", perm=TO_IMAGE))
    weights = t.weights(op, w, (0, 1), (outputs, inputs, 1, 1))
    y = t.node("Conv", [pixels, weights, *([] if bias is None else [bias])], label, kernel_shape=[1, 1])
    y = t.requantized(op, t.activated(y, op))
    y = t.requantized(op, t.node("Transpose", [y], f"{label}/turned", perm=TO_ROWS))
    t.finish_rows(op, t.reshape(y, t.shape(op.outputs[0]), label))


@translation("BATCH_MATMUL")
def batch_matmul(t: Translator, op: Operator) -> None:
    """Two activations, or one and a constant; either may be transposed."""
    names = []
    for i, option in enumerate(("adjoint_x", "adjoint_y")):
        index = t.input(op, i)
        name, rank = t.rows(index), len(t.shape(index))
        if op.options[option]:
            order = [*range(rank - 2), rank - 1, rank - 2]
            name = t.node("Transpose", [name], f"{t.label(op)}/{option}", perm=order)
        names.append(name)
    t.finish_rows(op, t.node("MatMul", names, t.label(op)))


def _weights_shape(t: Translator, index: int) -> tuple[int, ...]:
    shape = t.shape(index)
    if not t.is_constant(index):
        raise CannotTranslateError("its weights are computed by the model", "make the weights a constant")
    if len(shape) != 4:
        raise CannotTranslateError(f"its weights have shape {shape}", "export the model again")
    return shape


def _image_shape(t: Translator, index: int) -> tuple[int, ...]:
    shape = t.shape(index)
    if len(shape) != 4:
        raise CannotTranslateError(f"it has an image of shape {shape}", "give it an image (1, H, W, C)")
    return shape
