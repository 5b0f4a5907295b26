"""One tiny .tflite file for each way in which an operator is spelled, in float32 and in int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tflite_models import Tensor, TfliteBuilder

SAME, VALID = 0, 1
RELU, RELU_N1_TO_1, RELU6 = 1, 2, 3
IMAGE = (1, 6, 5, 4)


class Case:
    """One operator behind an input; in int8, scales fit values of about 2."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.b = TfliteBuilder()

    @property
    def is_int8(self) -> bool:
        return self.kind == "int8"

    def input(self, shape: Sequence[int] = IMAGE) -> int:
        return self.b.input(shape, self.kind, 0.02, 3)

    def out(self, *shape: int, scale: float = 0.03, zero: int = -7, name: str = "result") -> Tensor:
        given: dict[str, Any] = {"scale": [scale], "zero": [zero]} if self.is_int8 else {}
        return Tensor(tuple(shape), self.kind, name, **given)

    def like(self, *shape: int, name: str = "result") -> Tensor:
        """An output with the input's scale."""
        return self.out(*shape, scale=0.02, zero=3, name=name)

    def weights(self, *shape: int, axis: int = 0, per_channel: bool = True) -> int:
        values = self.b.rng.normal(size=shape).astype(np.float32) * 0.3
        if not self.is_int8:
            return self.b.const(values)
        count = shape[axis] if per_channel else 1
        scales = (0.005 + 0.003 * self.b.rng.random(count)).astype(np.float32)
        along = [-1 if i == axis else 1 for i in range(len(shape))] if per_channel else [1] * len(shape)
        integers = np.clip(np.rint(values / scales.reshape(along)), -127, 127).astype(np.int8)
        return self.b.const(integers, scale=scales, zero=[0] * count, axis=axis)

    def bias(self, weights: int, count: int) -> int:
        values = self.b.rng.normal(size=count).astype(np.float32) * 0.3
        if not self.is_int8:
            return self.b.const(values)
        scales = (np.float32(0.02) * np.asarray(self.b.tensors[weights].scale, np.float32)).astype(np.float32)
        return self.b.const(np.rint(values / scales).astype(np.int32), scale=scales, zero=[0] * scales.size)

    def values(self, *shape: int) -> int:
        """A constant operand, of values from 0.5 to 2."""
        values = self.b.rng.uniform(0.5, 2, shape).astype(np.float32)
        if not self.is_int8:
            return self.b.const(values)
        return self.b.const(np.rint(values / 0.02).astype(np.int8), scale=[0.02], zero=[0])


def conv(c: Case, padding: int, stride: int = 1, dilation: int = 1, activation: int = 0) -> int:
    x, w = c.input(), c.weights(7, 3, 2, 4)
    h, v = (
        -(-n // stride) if padding == SAME else (n - (k - 1) * dilation - 1) // stride + 1 for n, k in ((6, 3), (5, 2))
    )
    return c.b.op(
        "CONV_2D", [x, w, c.bias(w, 7)], c.out(1, h, v, 7), padding=padding, stride_h=stride, stride_w=stride,
        dilation_h=dilation, dilation_w=dilation, activation=activation,
    )  # fmt: skip


def depthwise(c: Case, multiplier: int) -> int:
    x, w = c.input(), c.weights(1, 3, 3, 4 * multiplier, axis=3)
    return c.b.op(
        "DEPTHWISE_CONV_2D", [x, w, c.bias(w, 4 * multiplier)], c.out(1, 3, 3, 4 * multiplier), padding=SAME,
        stride_h=2, stride_w=2, multiplier=multiplier, activation=RELU6, dilation_h=1, dilation_w=1,
    )  # fmt: skip


def transpose_conv(c: Case, padding: int, stride: int) -> int:
    x, w = c.input((1, 3, 4, 2)), c.weights(3, 3, 3, 2)
    h, v = (n * stride if padding == SAME else (n - 1) * stride + 3 for n in (3, 4))
    return c.b.op(
        "TRANSPOSE_CONV", [c.b.ints(1, h, v, 3), w, x], c.out(1, h, v, 3), padding=padding, stride_h=stride,
        stride_w=stride,
    )  # fmt: skip


def dense(c: Case, shape: Sequence[int], out: Sequence[int], keep: bool = False, per_channel: bool = False) -> int:
    x, w = c.input(shape), c.weights(3, 6, per_channel=per_channel)
    options: dict[str, Any] = {"activation": RELU, "keep_num_dims": keep}
    return c.b.op("FULLY_CONNECTED", [x, w, c.bias(w, 3)], c.out(*out), **options)


def pool(c: Case, name: str, padding: int, size: int, stride: int) -> int:
    h, v = (-(-n // stride) if padding == SAME else (n - size) // stride + 1 for n in (6, 5))
    return c.b.op(
        name, [c.input()], c.like(1, h, v, 4), padding=padding, stride_h=stride, stride_w=stride, filter_h=size,
        filter_w=size,
    )  # fmt: skip


def reduction(c: Case, name: str, axes: Sequence[int], keep: bool, out: Sequence[int]) -> int:
    y = c.like(*out) if name.startswith("REDUCE") else c.out(*out, scale=0.1 if name == "SUM" else 0.03)
    return c.b.op(name, [c.input(), c.b.ints(*axes)], y, keep_dims=keep)


def unary(c: Case, name: str, positive: bool = False, **options: Any) -> int:
    x = c.input()
    if positive:
        x = c.b.op("ADD", [x, c.values(1)], c.out(*IMAGE, scale=0.02, zero=-120, name="positive"), activation=RELU)
        x = c.b.op("ADD", [x, c.values(1)], c.out(*IMAGE, scale=0.02, zero=-128, name="above"), activation=0)
    given = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}.get(name, (0.03, -7))
    return c.b.op(name, [x], c.out(*IMAGE, scale=given[0], zero=given[1]), **options)


def binary(c: Case, name: str, *shape: int, **options: Any) -> int:
    """With a constant of this shape; of none, with itself behind a Relu."""
    x = c.input()
    other = c.values(*shape) if shape else c.b.op("RELU", [x], c.like(*IMAGE, name="relu"))
    return c.b.op(name, [x, other], c.like(*IMAGE) if "IMUM" in name else c.out(*IMAGE), **options)


def strided(c: Case) -> int:
    ends = [c.b.ints(0, 1, -3, 0), c.b.ints(1, 6, 9, 4), c.b.ints(1, 2, 1, 1)]
    return c.b.op("STRIDED_SLICE", [c.input(), *ends], c.like(1, 3, 3, 4), end_mask=4, begin_mask=8)


def shrinking(c: Case) -> int:
    ends = [c.b.ints(0, -1, 0, 0), c.b.ints(1, 0, 5, 4), c.b.ints(1, 1, 1, 1)]
    return c.b.op("STRIDED_SLICE", [c.input(), *ends], c.like(1, 5, 4), shrink_axis_mask=2)


def keras_flatten(c: Case) -> int:
    """As Keras writes Flatten of a dynamic batch: the shape is computed."""
    x = c.input()
    shape = c.b.op("SHAPE", [x], Tensor((4,), "int32", "shape"))
    cut = [c.b.ints(0), c.b.ints(1), c.b.ints(1)]
    batch = c.b.op("STRIDED_SLICE", [shape, *cut], Tensor((), "int32", "batch"), shrink_axis_mask=1)
    pack = c.b.op("PACK", [batch, c.b.const(np.int32(120))], Tensor((2,), "int32", "pack"), count=2, axis=0)
    return c.b.op("RESHAPE", [x, pack], c.like(1, 120))


def conv_1d(c: Case) -> int:
    """As Keras writes Conv1D."""
    x, w = c.input((1, 9, 4)), c.weights(3, 1, 3, 4)
    x = c.b.op("EXPAND_DIMS", [x, c.b.ints(1)], c.like(1, 1, 9, 4, name="expanded"))
    x = c.b.op(
        "CONV_2D", [x, w, c.bias(w, 3)], c.out(1, 1, 7, 3, name="conv"), padding=VALID, stride_h=1, stride_w=1,
        dilation_h=1, dilation_w=1,
    )  # fmt: skip
    return c.b.op("SQUEEZE", [x], c.out(1, 7, 3), axes=[1])


def split(c: Case) -> int:
    x = c.input()
    c.b.op("SPLIT", [c.b.const(np.int32(3)), x], c.like(1, 6, 5, 2, name="left"), c.like(1, 6, 5, 2, name="right"))
    return c.b.op("ADD", [len(c.b.tensors) - 1, len(c.b.tensors) - 2], c.out(1, 6, 5, 2))


def split_v(c: Case) -> int:
    x = c.input()
    sizes = c.b.ints(1, 3)
    c.b.op("SPLIT_V", [x, sizes, c.b.const(np.int32(-1))], c.like(1, 6, 5, 1, name="one"), c.like(1, 6, 5, 3, name="r"))
    return c.b.op("RELU", [len(c.b.tensors) - 1], c.like(1, 6, 5, 3))


def unpack(c: Case) -> int:
    x = c.input((1, 2, 5))
    first = c.b.op("UNPACK", [x], c.like(1, 5, name="a"), c.like(1, 5, name="b"), count=2, axis=1)
    return c.b.op("PACK", [first + 1, first], c.like(1, 5, 2), count=2, axis=2)


def network(c: Case) -> int:
    """A small network as Keras writes them: two convolutions, a sum, a mean, a classifier."""
    b, x = c.b, c.input((1, 8, 8, 3))
    conv = {"padding": SAME, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}
    w = c.weights(8, 3, 3, 3)
    x = b.op("CONV_2D", [x, w, c.bias(w, 8)], c.out(1, 8, 8, 8, zero=-128, scale=0.02, name="stem"), activation=RELU6,
             **conv)  # fmt: skip
    w = c.weights(1, 3, 3, 8, axis=3)
    y = b.op("DEPTHWISE_CONV_2D", [x, w, c.bias(w, 8)], c.out(1, 8, 8, 8, name="depthwise"), multiplier=1, **conv)
    x = b.op("ADD", [x, y], c.out(1, 8, 8, 8, name="sum"), activation=RELU)
    x = b.op("MEAN", [x, b.ints(1, 2)], c.out(1, 8, scale=0.02, zero=-128, name="mean"), keep_dims=False)
    w = c.weights(4, 8, per_channel=False)
    x = b.op("FULLY_CONNECTED", [x, w, c.bias(w, 4)], c.out(1, 4, name="logits"))
    return b.op("SOFTMAX", [x], c.out(1, 4, scale=1 / 256, zero=-128), beta=1.0)


CASES: dict[str, Callable[[Case], int]] = {
    "conv same": lambda c: conv(c, SAME, 2, activation=RELU),
    "conv valid": lambda c: conv(c, VALID, dilation=2, activation=RELU_N1_TO_1),
    "depthwise": lambda c: depthwise(c, 1),
    "depthwise multiplied": lambda c: depthwise(c, 2),
    "transpose conv same": lambda c: transpose_conv(c, SAME, 2),
    "transpose conv valid": lambda c: transpose_conv(c, VALID, 2),
    "transpose conv 1": lambda c: transpose_conv(c, SAME, 1),
    "dense": lambda c: dense(c, (1, 6), (1, 3)),
    "dense per channel": lambda c: dense(c, (1, 6), (1, 3), per_channel=True),
    "dense of an image": lambda c: dense(c, (1, 1, 3, 2), (1, 3)),
    "dense of tokens": lambda c: dense(c, (1, 5, 6), (1, 5, 3), keep=True),
    "average pool": lambda c: pool(c, "AVERAGE_POOL_2D", VALID, 3, 2),
    "average pool same": lambda c: pool(c, "AVERAGE_POOL_2D", SAME, 2, 2),
    "max pool": lambda c: pool(c, "MAX_POOL_2D", SAME, 3, 2),
    "mean": lambda c: reduction(c, "MEAN", (1, 2), False, (1, 4)),
    "mean kept": lambda c: reduction(c, "MEAN", (1, 2), True, (1, 1, 1, 4)),
    "mean of channels": lambda c: reduction(c, "MEAN", (-1,), False, (1, 6, 5)),
    "max": lambda c: reduction(c, "REDUCE_MAX", (1, 2), False, (1, 4)),
    "sum of float": lambda c: reduction(c, "SUM", (1,), True, (1, 1, 5, 4)),
    "relu": lambda c: unary(c, "RELU"),
    "relu6": lambda c: unary(c, "RELU6"),
    "relu n1 to 1": lambda c: unary(c, "RELU_N1_TO_1"),
    "leaky relu": lambda c: unary(c, "LEAKY_RELU", alpha=0.2),
    "logistic": lambda c: unary(c, "LOGISTIC"),
    "tanh": lambda c: unary(c, "TANH"),
    "elu": lambda c: unary(c, "ELU"),
    "hard swish": lambda c: unary(c, "HARD_SWISH"),
    "gelu": lambda c: unary(c, "GELU"),
    "gelu approximate": lambda c: unary(c, "GELU", approximate=True),
    "abs": lambda c: unary(c, "ABS"),
    "rsqrt": lambda c: unary(c, "RSQRT", positive=True),
    "prelu": lambda c: c.b.op("PRELU", [c.input(), c.values(1, 1, 4)], c.out(*IMAGE)),
    "softmax": lambda c: c.b.op("SOFTMAX", [c.input((1, 7))], c.out(1, 7, scale=1 / 256, zero=-128), beta=1.0),
    "add": lambda c: binary(c, "ADD", activation=RELU),
    "add per channel": lambda c: binary(c, "ADD", 1, 1, 1, 4),
    "sub": lambda c: binary(c, "SUB", 4),
    "mul": lambda c: binary(c, "MUL"),
    "mul by a number": lambda c: binary(c, "MUL", 1),
    "minimum": lambda c: binary(c, "MINIMUM"),
    "maximum": lambda c: binary(c, "MAXIMUM"),
    "squared difference": lambda c: binary(c, "SQUARED_DIFFERENCE", 1),
    "reshape": lambda c: c.b.op("RESHAPE", [c.input(), c.b.ints(1, 15, 8)], c.like(1, 15, 8)),
    "keras flatten": keras_flatten,
    "conv 1d": conv_1d,
    "transpose": lambda c: c.b.op("TRANSPOSE", [c.input(), c.b.ints(0, 2, 3, 1)], c.like(1, 5, 4, 6)),
    "concatenation": lambda c: c.b.op("CONCATENATION", [c.input(), 0], c.like(1, 6, 5, 8), axis=-1),
    "split": split,
    "split v": split_v,
    "slice": lambda c: c.b.op("SLICE", [c.input(), c.b.ints(0, 1, 2, 0), c.b.ints(1, 3, -1, 2)], c.like(1, 3, 3, 2)),
    "strided slice": strided,
    "strided slice shrinking": shrinking,
    "pad": lambda c: c.b.op("PAD", [c.input(), c.b.const(np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))],
                            c.like(1, 9, 6, 4)),
    "mirror pad": lambda c: c.b.op(
        "MIRROR_PAD", [c.input(), c.b.const(np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))], c.like(1, 9, 6, 4),
        mode=0),
    "resize nearest": lambda c: c.b.op("RESIZE_NEAREST_NEIGHBOR", [c.input(), c.b.ints(12, 10)], c.like(1, 12, 10, 4)),
    "resize nearest half": lambda c: c.b.op(
        "RESIZE_NEAREST_NEIGHBOR", [c.input(), c.b.ints(9, 7)], c.like(1, 9, 7, 4), half_pixel_centers=True),
    "resize bilinear": lambda c: c.b.op("RESIZE_BILINEAR", [c.input(), c.b.ints(9, 7)], c.like(1, 9, 7, 4)),
    "resize bilinear half": lambda c: c.b.op(
        "RESIZE_BILINEAR", [c.input(), c.b.ints(12, 10)], c.like(1, 12, 10, 4), half_pixel_centers=True),
    "resize bilinear corners": lambda c: c.b.op(
        "RESIZE_BILINEAR", [c.input(), c.b.ints(9, 7)], c.like(1, 9, 7, 4), align_corners=True),
    "depth to space": lambda c: c.b.op("DEPTH_TO_SPACE", [c.input()], c.like(1, 12, 10, 1), block_size=2),
    "space to depth": lambda c: c.b.op("SPACE_TO_DEPTH", [c.input((1, 4, 6, 3))], c.like(1, 2, 3, 12), block_size=2),
    "gather": lambda c: c.b.op("GATHER", [c.input(), c.b.ints(3, 0, 2)], c.like(1, 6, 5, 3), axis=3),
    "unpack and pack": unpack,
    "batch matmul": lambda c: c.b.op("BATCH_MATMUL", [c.input((1, 5, 4)), 0], c.out(1, 5, 5, scale=0.2),
                                     adjoint_y=True),
    "network": network,
}  # fmt: skip


def file_of(name: str, kind: str) -> bytes:
    case = Case(kind)
    output = CASES[name](case)
    return case.b.build(output)


def inputs_of(name: str, kind: str, count: int = 1) -> Any:
    """Real values that int8 holds exactly, (count, *shape) in the file's order."""
    case = Case(kind)
    CASES[name](case)
    shape = case.b.tensors[case.b.inputs[0]].shape[1:]
    steps = np.random.default_rng(1).integers(-120, 120, (count, *shape))
    return ((steps - 3) * np.float32(0.02)).astype(np.float32)
