"""From a TensorFlow Lite graph to an ONNX model that computes the same, operator by operator.

A quantised activation becomes what it is in a QDQ file: the operator's float result, QuantizeLinear,
DequantizeLinear. TensorFlow's images are (1, H, W, C), ONNX's (1, C, H, W): an activation of four dimensions is written
in one of the two orders, and a Transpose stands where somebody reads it in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...errors import Problem, UnsupportedModelError, UsageError, shown
from ..onnx.limits import MAX_WEIGHTS, elements
from ..onnx.operators.pools import RAW_MEANS
from .file import Model, Operator, Scales, Tensor, constant

OPSET = 17
IR_VERSION = 8
TO_IMAGE, TO_ROWS = (0, 3, 1, 2), (0, 2, 3, 1)  # (1, H, W, C) -> (1, C, H, W) and back
BITS_8 = ("int8", "uint8")
_LIMITS = {"RELU": (0.0, np.inf), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}
_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

Array = NDArray[Any]


class CannotTranslateError(Exception):
    """Raised by the translation of one operator; all of them are reported together."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


Translation = Callable[["Translator", Operator], None]
TRANSLATIONS: dict[str, Translation] = {}
_READS: dict[str, tuple[int, ...]] = {}


def translation(*names: str, reads: tuple[int, ...] | None = None) -> Callable[[Translation], Translation]:
    """The decorated function translates these operators; its docstring says what of them it takes. reads: which inputs
    it needs, where the file says elsewhere what the others compute (shapes)."""

    def add(function: Translation) -> Translation:
        for name in names:
            TRANSLATIONS[name] = function
            if reads is not None:
                _READS[name] = reads
        return function

    return add


class Translator:
    """State of one translation. What the operators' translations use stands below `run`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.notes: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._values = 0  # of all initializers together
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # base of a name -> the last number behind it
        self._rows: dict[int, str] = {}  # tensor -> its float name, in the file's order of dimensions
        self._images: dict[int, str] = {}  # tensor -> its float name as (1, C, H, W)
        self._computed: dict[int, Array] = {}  # constants that operators make of constants

    def run(self) -> onnx.ModelProto:
        """Raises UnsupportedModelError naming every operator that has no translation."""
        graph_input = self._input(self.model.inputs[0])
        problems = []
        for op in self._needed():
            try:
                self._translate(op)
            except CannotTranslateError as error:
                label = self.tensor(op.outputs[0]).name if op.outputs else ""
                problems.append(Problem(f"#{op.index} {label}".strip(), op.name, error.reason, error.fix))
                self._rows.update((i, f"refused {i}") for i in op.outputs)  # who reads it is not to blame
        if problems:
            raise UnsupportedModelError(problems)
        output = self.model.outputs[0]
        name = self._images.get(output) or self.rows(output)
        graph = helper.make_graph(
            self._nodes,
            "tflite",
            [graph_input],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            self._initializers,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        helper.set_model_props(proto, {RAW_MEANS: "1"})
        return proto

    def _needed(self) -> list[Operator]:
        """The operators that the output depends on; shapes, which the file states, are not computed again."""
        wanted, found = {self.model.outputs[0]}, []
        for op in reversed(self.model.operators):
            if wanted.intersection(op.outputs):
                found.append(op)
                reads = _READS.get(op.name)
                wanted.update(op.inputs if reads is None else (op.inputs[i] for i in reads if i < len(op.inputs)))
        return found[::-1]

    def _translate(self, op: Operator) -> None:
        if op.custom or op.name not in TRANSLATIONS:
            what = "custom operators have" if op.custom else "the operator has"
            raise CannotTranslateError(
                f"{what} no translation",
                "replace it by supported operators ('tinytrain ops' lists them by their ONNX names), or end the model "
                "in front of it",
            )
        if not op.outputs:
            raise CannotTranslateError("it writes nothing", "export the model again")
        for i in op.outputs:
            self._check_type(self.tensor(i))
        TRANSLATIONS[op.name](self, op)

    @staticmethod
    def _check_type(tensor: Tensor) -> None:
        if tensor.type == "float32" or (tensor.type in BITS_8 and tensor.scales is not None):
            if tensor.scales is not None and tensor.scales.scale.size > 1:
                raise CannotTranslateError("its output has one scale a channel", "quantise activations per tensor")
            return
        if tensor.type == "int16":
            raise CannotTranslateError(
                "its output is int16 (16x8 quantisation)", "convert with int8 activations (TFLITE_BUILTINS_INT8)"
            )
        if tensor.type == "float16":
            raise CannotTranslateError("it computes in float16", "convert with float32 activations")
        unscaled = " without a scale" if tensor.type in BITS_8 else ""
        raise CannotTranslateError(f"its output is {tensor.type}{unscaled}", "compute it outside of the model")

    def _input(self, index: int) -> onnx.ValueInfoProto:
        tensor = self.tensor(index)
        self._check_input(tensor)
        name, shape = self._fresh(tensor.name), tensor.shape
        if len(shape) == 4:
            shape = tuple(shape[i] for i in TO_IMAGE)
        (self._images if len(shape) == 4 else self._rows)[index] = self._quantized(tensor, name)
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    @staticmethod
    def _check_input(tensor: Tensor) -> None:
        name = shown(tensor.name)
        if tensor.dynamic:
            raise UsageError(
                f"input '{name}' has no fixed size along dimension {tensor.dynamic[0]}; fix it before converting "
                "(keras.Input(shape=...)), or with the interpreter's resize_tensor_input"
            )
        if tensor.type != "float32" and not (tensor.type in BITS_8 and tensor.scales is not None):
            fix = "convert with int8 or float32 inputs"
            raise UsageError(
                f"input '{name}' has type {tensor.type}, supported are float32 and int8 or uint8 with a scale; {fix}"
            )

    # -- what translations ask ------------------------------------------------------------------

    def tensor(self, index: int) -> Tensor:
        if index < 0:
            raise CannotTranslateError("one of its tensors is left out", "export the model again")
        return self.model.tensors[index]

    def input(self, op: Operator, i: int) -> int:
        """Tensor number of an input that must be there."""
        if i >= len(op.inputs) or op.inputs[i] < 0:
            raise CannotTranslateError(f"it has {len(op.inputs)} inputs, {i + 1} are needed", "export the model again")
        return op.inputs[i]

    def shape(self, index: int) -> tuple[int, ...]:
        return self.tensor(index).shape

    def is_constant(self, index: int) -> bool:
        return index in self._computed or self.model.is_constant(index)

    def integers(self, index: int, what: str) -> list[int]:
        """The numbers of a constant such as axes or pads. what: their name in the message."""
        tensor = self.tensor(index)
        if not self.is_constant(index) or tensor.type not in ("int32", "int64"):
            raise CannotTranslateError(f"its {what} are computed by the model", f"make the {what} a constant")
        return [int(v) for v in self._raw(index).reshape(-1)]

    def real(self, index: int) -> Array:
        """A constant as float32, dequantised."""
        tensor, values = self.tensor(index), self._raw(index)
        if index in self._computed or tensor.scales is None:
            return values.astype(np.float32)
        zero, scale = (_along(v, tensor.scales.axis, values.ndim) for v in (tensor.scales.zero, tensor.scales.scale))
        return ((values.astype(np.int64) - zero) * scale).astype(np.float32)

    def _raw(self, index: int) -> Array:
        if index not in self._computed:
            if not self.is_constant(index):
                raise CannotTranslateError(
                    f"its '{shown(self.tensor(index).name)}' is computed by the model", "make it a constant"
                )
            return constant(self.tensor(index))
        return self._computed[index]

    def set_constant(self, index: int, value: Array) -> None:
        """An operator's output that depends on constants alone."""
        self._computed[index] = value

    def rows(self, index: int) -> str:
        """The float name of a tensor in the file's order of dimensions."""
        if index not in self._rows:
            if self.is_constant(index):
                return self.constant(self.tensor(index).name, self.real(index))
            self._rows[index] = self._turned(self._other(self._images, index), TO_ROWS)
        return self._rows[index]

    def image(self, index: int) -> str:
        """The float name of a tensor of four dimensions as (1, C, H, W)."""
        if len(self.shape(index)) != 4:
            raise CannotTranslateError(
                f"its input has {len(self.shape(index))} dimensions {self.shape(index)}",
                "give it an image (1, H, W, C)",
            )
        if index not in self._images:
            if self.is_constant(index):
                return self.constant(self.tensor(index).name, self.real(index).transpose(TO_IMAGE))
            self._images[index] = self._turned(self._other(self._rows, index), TO_IMAGE)
        return self._images[index]

    def _other(self, names: dict[int, str], index: int) -> str:
        if index not in names:
            raise UsageError(
                f"tensor '{shown(self.tensor(index).name)}' is read before anything writes it (a cycle, a variable, or "
                "operators out of order); export it again"
            )
        return names[index]

    def _turned(self, name: str, order: Sequence[int]) -> str:
        return self.node("Transpose", [name], f"{name}/transposed", perm=list(order))

    def is_image(self, *indices: int) -> bool:
        """Whether all of these were written as (1, C, H, W), constants aside."""
        computed = [i for i in indices if not self.is_constant(i)]
        return bool(computed) and all(i in self._images for i in computed)

    def flat(self, index: int) -> str:
        """A tensor whose values lie in the file's order, whatever its dimensions: an image of one channel or of one
        pixel needs no Transpose."""
        if index not in self._rows and index in self._images and _same_order(self.shape(index)):
            return self._images[index]
        return self.rows(index)

    # -- what translations make --------------------------------------------------------------------

    def node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output. name: of both, made unique."""
        name = self._fresh(name)
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, inputs: Sequence[str], names: Sequence[str], axis: int) -> list[str]:
        """A Split; returns the names of its outputs."""
        outputs = [self._fresh(name) for name in names]
        self._nodes.append(helper.make_node("Split", list(inputs), outputs, name=outputs[0], axis=axis))
        return outputs

    def constant(self, name: str, value: Array | np.generic) -> str:
        """Add an initializer; returns its name."""
        self._values += elements(value.shape)
        if self._values > MAX_WEIGHTS:
            raise UsageError(f"it has more than {MAX_WEIGHTS:,} constant values; use a smaller network")
        name = self._fresh(name)
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        return name

    def operand(self, index: int, order: Sequence[int] | None) -> str:
        """A constant that an activation meets, in another order of its dimensions, which count from the last. Several
        values stay quantised as in the file; one is a float, from which tables are computed."""
        tensor, scales = self.tensor(index), self.tensor(index).scales
        keeps = scales is not None and scales.scale.size == 1 and tensor.type in BITS_8 and index not in self._computed
        values = self._raw(index) if keeps else self.real(index)
        if values.size == 1:
            return self.constant(tensor.name, self.real(index).reshape(()))
        if order is not None:
            values = values.reshape((1,) * (len(order) - values.ndim) + values.shape).transpose(order)
        if keeps and scales is not None:
            return self._dequantized(tensor.name, values, scales)
        return self.constant(tensor.name, values)

    def weights(self, op: Operator, index: int, order: Sequence[int], shape: Sequence[int] | None = None) -> str:
        """A layer's weights, in another order of dimensions, and then of another shape; quantised as in the file,
        unless the layer computes in float: those are dequantised."""
        tensor = self.tensor(index)
        if tensor.type in BITS_8 and tensor.scales is not None and self.is_constant(index):
            if self.tensor(op.outputs[0]).type in BITS_8:
                values = self._raw(index).transpose(order)
                scales = Scales(tensor.scales.scale, tensor.scales.zero, order.index(tensor.scales.axis))
                if shape is not None and scales.scale.size > 1:
                    scales = Scales(scales.scale, scales.zero, _moved(values.shape, shape, scales.axis))
                return self._dequantized(tensor.name, values if shape is None else values.reshape(shape), scales)
            self.notes.add(
                "the file has int8 weights and float activations (dynamic range): its weights were dequantised, and "
                "quantised again with the activations"
            )
        values = self.real(index).transpose(order)
        return self.constant(tensor.name, values if shape is None else values.reshape(shape))

    def bias(self, op: Operator, index: int, outputs: int) -> str:
        """A layer's bias (outputs,). An integer one counts in units of input scale times weight scale, as TensorFlow
        Lite computes; the scale that the file gives for it is a copy of these."""
        tensor = self.tensor(index)
        x, w = (self.tensor(self.input(op, i)) for i in (0, 1))
        if tensor.type not in ("int32", "int64") or x.scales is None or w.scales is None:
            return self.constant(tensor.name, self.real(index).reshape(-1))
        scale = (x.scales.scale.astype(np.float64) * w.scales.scale).astype(np.float32)
        values = self._raw(index).reshape(-1)
        if len(values) != outputs:
            raise CannotTranslateError(f"its bias has {len(values)} values, its output {outputs}", "export it again")
        return self._dequantized(tensor.name, values.astype(np.int32), Scales(scale, np.zeros(scale.size, np.int64), 0))

    def _dequantized(self, name: str, integers: Array, scales: Scales) -> str:
        zero = scales.zero.astype(integers.dtype)
        per_tensor = scales.scale.size == 1
        shape: tuple[int, ...] = () if per_tensor else (-1,)
        inputs = [
            self.constant(name, integers),
            self.constant(f"{name}/scale", scales.scale.reshape(shape)),
            self.constant(f"{name}/zero_point", zero.reshape(shape)),
        ]
        attributes = {} if per_tensor else {"axis": scales.axis}
        return self.node("DequantizeLinear", inputs, f"{name}/dequantized", **attributes)

    def reshape(self, name: str, shape: Sequence[int], label: str) -> str:
        return self.node("Reshape", [name, self.constant(f"{label}/shape", np.asarray(shape, np.int64))], label)

    def activated(self, name: str, op: Operator) -> str:
        """With the activation that is fused into an operator."""
        number = op.options["activation"]
        kind = _ACTIVATIONS[number] if 0 <= number < len(_ACTIVATIONS) else f"activation {number}"
        if kind in _LIMITS:
            return self.clipped(name, kind)
        if kind == "TANH":
            return self.node("Tanh", [name], f"{name}/Tanh")
        if kind != "NONE":
            raise CannotTranslateError(f"the fused activation {kind} has no translation", "use RELU or RELU6")
        return name

    def clipped(self, name: str, kind: str, label: str | None = None) -> str:
        """RELU, RELU6 or RELU_N1_TO_1."""
        low, high = _LIMITS[kind]
        label = f"{name}/{kind}" if label is None else label
        if np.isinf(high):
            return self.node("Relu", [name], label)
        return self.clip(name, low, high, label)

    def clip(self, name: str, low: float, high: float, label: str) -> str:
        limits = [self.constant(f"{label}/{what}", np.float32(v)) for what, v in (("min", low), ("max", high))]
        return self.node("Clip", [name, *limits], label)

    def label(self, op: Operator, k: int = 0) -> str:
        """What an operator is called: its output's name, which is often several joined by semicolons."""
        return self.tensor(op.outputs[k]).name.split(";")[0]

    def finish_image(self, op: Operator, name: str, k: int = 0) -> None:
        """Output k of an operator is this float name, which is (1, C, H, W)."""
        self._images[op.outputs[k]] = self._quantized(self.tensor(op.outputs[k]), name)

    def finish_rows(self, op: Operator, name: str, k: int = 0) -> None:
        """Output k of an operator is this float name, in the file's order of dimensions."""
        self._rows[op.outputs[k]] = self._quantized(self.tensor(op.outputs[k]), name)

    def finish(self, op: Operator, name: str, image: bool, k: int = 0) -> None:
        (self.finish_image if image else self.finish_rows)(op, name, k)

    def finish_flat(self, op: Operator, name: str) -> None:
        """Output 0 of an operator has these values in the file's order: bring them to its shape."""
        shape, label = self.shape(op.outputs[0]), self.label(op)
        image = len(shape) == 4 and _same_order(shape)
        shape = tuple(shape[i] for i in TO_IMAGE) if image else shape
        self.finish(op, self.reshape(name, shape, label), image)

    def quantized(self, index: int, name: str) -> str:
        """A value between two nodes, quantised as a tensor of the file is."""
        return self._quantized(self.tensor(index), name)

    def requantized(self, op: Operator, name: str, k: int = 0) -> str:
        """A value between two nodes of one operator, quantised as its output k is."""
        return self._quantized(self.tensor(op.outputs[k]), name)

    def _quantized(self, tensor: Tensor, name: str) -> str:
        """Behind QuantizeLinear and DequantizeLinear, where the tensor is quantised."""
        if tensor.scales is None or tensor.type not in BITS_8:
            return name
        parameters = [
            self.constant(f"{name}/scale", tensor.scales.scale[0]),
            self.constant(f"{name}/zero_point", tensor.scales.zero[0].astype(tensor.type)),
        ]
        integers = self.node("QuantizeLinear", [name, *parameters], f"{name}/quantized")
        return self.node("DequantizeLinear", [integers, *parameters], f"{name}/dequantized")

    def _fresh(self, base: str) -> str:
        name = base
        while not name or name in self._taken:
            self._numbers[base] = self._numbers.get(base, 0) + 1
            name = f"{base}_{self._numbers[base]}"
        self._taken.add(name)
        return name


def _same_order(shape: Sequence[int]) -> bool:
    """Whether an image (1, H, W, C) lies in memory as (1, C, H, W) does."""
    return len(shape) == 4 and (shape[3] == 1 or shape[1] * shape[2] == 1)


def _along(values: Array, axis: int, rank: int) -> Array:
    """(n,) in a shape that broadcasts along `axis`; one value along any."""
    return values.reshape(()) if values.size == 1 else values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _moved(before: Sequence[int], after: Sequence[int], axis: int) -> int:
    """Where the dimension `axis` of a shape is after a reshape that leaves its size and what is before it."""
    lead = elements(before[:axis])
    for i in range(len(after)):
        if elements(after[:i]) == lead and after[i] == before[axis]:
            return i
    raise CannotTranslateError("its weights have scales along a dimension that it mixes", "quantise per output channel")
