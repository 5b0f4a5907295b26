"""QDQ ONNX -> quantised graph.

In a QDQ model every operator reads DequantizeLinear outputs and its result goes into a
QuantizeLinear. Between the two the file's arithmetic is float; here each such triple becomes one
integer node. Relu and Clip in between become the clip limits of the node in front of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...errors import Problem, UnsupportedModelError
from ...graph import Graph, Node, Quantization, Tensor, verify
from ...graph.quantization import INT8_MAX, INT8_MIN
from ...ops import operator_of, registered
from ...ops.lookup import LookupAttributes
from ...ops.weighted import check_precision
from .scales import along, scales_of


@dataclass(frozen=True)
class Constant:
    """A quantised initializer, its zero point already taken off: real = scale * values."""

    values: NDArray[Any]
    scale: NDArray[np.float64]  # (1,), or one for each index of `axis`
    axis: int = 0

    @property
    def real(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.values * along(self.scale, self.axis, self.values.ndim)
        return found


@dataclass
class Pending:
    """An operator whose output has not met its QuantizeLinear yet."""

    node: onnx.NodeProto
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Any
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    low: float = -np.inf  # real clip limits
    high: float = np.inf


class UnsupportedNodeError(Exception):
    """Raised by the builder of one node; the importer turns it into a Problem and goes on."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


Builder = Callable[["QdqImporter", onnx.NodeProto], Pending]
BUILDERS: dict[str, Builder] = {}


def builder(*op_types: str) -> Callable[[Builder], Builder]:
    def add(function: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(op_types, function))
        return function

    return add


def device_shape(dims: list[int]) -> tuple[int, ...]:
    """ONNX dims with batch 1 -> (H, W, C) or (F,)."""
    if len(dims) == 4:
        return dims[2], dims[3], dims[1]
    if len(dims) == 3:
        return 1, dims[2], dims[1]
    return (int(np.prod(dims)),)


class QdqImporter:
    """State of one import: what each float name of the file stands for in the quantised graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        proto = onnx.shape_inference.infer_shapes(proto)
        self.proto = proto
        self.initializers = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
        values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
        self.dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.activations: dict[str, str] = {}  # float name -> tensor
        self.quantized: dict[str, str] = {}  # int8 name -> tensor
        self.types: dict[str, np.dtype[Any]] = {}  # int8 name -> its type in the file, int8 or uint8
        self.constants: dict[str, Constant] = {}  # float name -> quantised initializer
        self.pending: dict[str, Pending] = {}  # float name -> operator
        self.flattened: dict[str, tuple[int, ...]] = {}  # vector tensor -> (H, W, C) whose memory order it keeps
        self.problems: list[Problem] = []

    def run(self) -> Graph:
        (graph_input,) = [v.name for v in self.proto.graph.input if v.name not in self.initializers]
        refused: set[str] = set()
        for node in self.proto.graph.node:
            if refused.intersection(node.input):  # would only repeat the complaint
                refused.update(node.output)
                continue
            try:
                self._import(node, graph_input)
            except UnsupportedNodeError as error:
                self.problems.append(Problem(node.name or node.output[0], node.op_type, error.reason, error.fix))
                refused.update(node.output)
        if self.problems:
            raise UnsupportedModelError(self.problems)
        output = self.activations.get(self.proto.graph.output[0].name)
        if output is None or output in self.flattened:
            reason = "the model's output is not a quantised tensor" if output is None else "it flattens the output"
            raise UnsupportedModelError(
                [
                    Problem(
                        self.proto.graph.output[0].name,
                        "output",
                        reason,
                        "end the model in Gemm, Conv, a pool or Softmax",
                    )
                ]
            )
        origins = {tensor: integers for integers, tensor in self.quantized.items()}
        graph = Graph(self.activations[graph_input], output, self._features(output), self.tensors, self.nodes, origins)
        verify(graph, after="import")
        _check_arithmetic(graph)
        return graph

    # -- the three kinds of node ---------------------------------------------------------------

    def _import(self, node: onnx.NodeProto, graph_input: str) -> None:
        if node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type == "QuantizeLinear":
            self._quantize(node, graph_input)
        elif node.op_type in BUILDERS:
            self.pending[node.output[0]] = BUILDERS[node.op_type](self, node)
        else:
            raise UnsupportedNodeError(
                "no integer kernel computes it", "see `tinytrain ops` for the supported operators"
            )

    def _dequantize(self, node: onnx.NodeProto) -> None:
        source, name = node.input[0], node.output[0]
        if source in self.initializers:
            integers = self.initializers[source]
            scales = scales_of(node, self.initializers, integers.dtype)
            axis = scales.axis % max(integers.ndim, 1)
            values = integers.astype(np.int64) - along(scales.zero, axis, integers.ndim)
            self.constants[name] = Constant(values, scales.scale, axis)
        elif source not in self.quantized:
            raise UnsupportedNodeError(
                f"its input '{source}' is no constant and comes from no QuantizeLinear", "pass the float model instead"
            )
        else:
            tensor = self.tensors[self.quantized[source]]
            self._check_same_scales(scales_of(node, self.initializers, self.types[source]).quantization, tensor)
            self.activations[name] = tensor.name

    @staticmethod
    def _check_same_scales(found: Quantization | None, tensor: Tensor) -> None:
        q = tensor.quantization
        if found != q:
            had = "one scale an axis" if found is None else f"scale {found.scale:.6g}, zero point {found.zero_point}"
            raise UnsupportedNodeError(
                f"it reads '{tensor.name}' with another scale or zero point ({had}) than it was quantised with "
                f"({q.scale:.6g}, {q.zero_point})",
                "give both the same; a change of scale is a DequantizeLinear and a QuantizeLinear",
            )

    def _quantize(self, node: onnx.NodeProto, graph_input: str) -> None:
        source, name = node.input[0], node.output[0]
        quantization, self.types[name] = self._quantization(node)
        if source == graph_input and source in self.activations:
            first = self.tensors[self.activations[source]]
            if first.quantization != quantization:
                raise UnsupportedNodeError(
                    "it quantises the model's input a second time, with another scale", "quantise the input once"
                )
            self.quantized[name] = first.name
            return
        if source in self.activations:  # a change of scale alone
            previous = self.tensors[self.activations[source]]
            if previous.quantization == quantization:
                self.quantized[name] = previous.name
                return
            self.pending[source] = Pending(node, "lookup", (previous.name,), previous.shape, LookupAttributes())
        if source == graph_input:
            self.quantized[name] = self.activations[source] = self._tensor(
                source, device_shape(self.dims[source]), quantization
            )
            return
        if source not in self.pending:
            raise UnsupportedNodeError(
                "it quantises a value that no supported operator computes", "export the model again as float"
            )
        self.quantized[name] = self._finish(source, self.pending.pop(source), quantization)

    def _finish(self, float_name: str, pending: Pending, quantization: Quantization) -> str:
        """Turn a pending operator into a node, its output's scale now known."""
        low, high = INT8_MIN, INT8_MAX
        if np.isfinite(pending.low):
            low = int(np.clip(np.rint(pending.low / quantization.scale) + quantization.zero_point, low, high))
        if np.isfinite(pending.high):
            high = int(np.clip(np.rint(pending.high / quantization.scale) + quantization.zero_point, low, high))
        output = self._tensor(float_name, pending.shape, quantization)
        name = pending.node.name or float_name
        source = self.tensors[pending.inputs[0]]
        operator = registered()[pending.op]
        clips = (low, high) != (INT8_MIN, INT8_MAX)
        target = output
        if operator.keeps_scale and (source.quantization != quantization or (operator.keeps_bytes and clips)):
            target = self._tensor(f"{float_name}.unscaled", pending.shape, source.quantization)
            self._append(f"{name}.unscaled", pending, target, {})
            self.nodes.append(Node(name, "lookup", (target,), output, LookupAttributes(low, high)))
        else:
            limits = {} if operator.keeps_bytes else {"low": low, "high": high}
            self._append(name, pending, output, limits)
        if pending.inputs[0] in self.flattened and operator.keeps_order:
            self.flattened[output] = self.flattened[pending.inputs[0]]
        if operator.keeps_bytes and float_name in self.flattened:
            self.flattened[output] = self.flattened.pop(float_name)
        return output

    def _append(self, name: str, pending: Pending, output: str, limits: dict[str, int]) -> None:
        constants = dict(pending.constants)
        if "weights" in constants:
            constants["bias"] = self._integer_bias(pending)
            constants.pop("bias_real")
        self.nodes.append(
            Node(name, pending.op, pending.inputs, output, replace(pending.attributes, **limits), constants)
        )

    def _integer_bias(self, pending: Pending) -> NDArray[np.int32]:
        """round(bias / (s_x * s_w)); exact where the file's bias already stands in these units."""
        s_x = self.tensors[pending.inputs[0]].quantization.scale
        bias = np.rint(pending.constants["bias_real"] / (pending.constants["weight_scales"] * s_x))
        if np.any(np.abs(bias) > 2**31 - 1):
            raise UnsupportedNodeError(
                "its bias is too large for 32 bits at the scale of its weights", "retrain or rescale the layer"
            )
        return bias.astype(np.int32)

    # -- helpers the builders use --------------------------------------------------------------

    def activation(self, name: str) -> Tensor:
        """The quantised tensor behind a float name."""
        if name in self.activations:
            return self.tensors[self.activations[name]]
        if name in self.constants or name in self.initializers:
            raise UnsupportedNodeError(
                f"its input '{name}' is a constant", "fold it into the neighbouring Conv or Gemm before export"
            )
        raise UnsupportedNodeError(
            f"its input '{name}' is not quantised", "quantise it, or pass the float model instead"
        )

    def shape_of(self, name: str) -> tuple[int, ...]:
        return device_shape(self.dims[name])

    def constant(self, name: str) -> Constant:
        """A quantised weight; a bias may also be float."""
        if name in self.constants:
            return self.constants[name]
        if name in self.initializers:
            return Constant(self.initializers[name].astype(np.float64), np.ones(1))
        raise UnsupportedNodeError(
            f"its weight '{name}' is not a constant", "only layers with fixed weights can be compiled"
        )

    def integer_weights(self, name: str, axis: int) -> Constant:
        """int8 weights with one scale, or one for each output, which is numbered along `axis`."""
        constant = self.constant(name)
        if constant.scale.size > 1 and constant.axis != axis:
            raise UnsupportedNodeError(
                f"the scales of its weight '{name}' run along axis {constant.axis}, its outputs along axis {axis}",
                f"quantise weights per tensor, or per output (axis={axis})",
            )
        if constant.values.dtype.kind != "i" or np.abs(constant.values).max(initial=0) > 128:
            raise UnsupportedNodeError(f"its weight '{name}' is not int8", "quantise weights to int8")
        if constant.values.max(initial=0) > INT8_MAX:
            raise UnsupportedNodeError(
                f"its weight '{name}' has a zero point that int8 cannot absorb", "use symmetric int8 weights"
            )
        return constant

    # -- internals -----------------------------------------------------------------------------

    def _quantization(self, node: onnx.NodeProto) -> tuple[Quantization, np.dtype[Any]]:
        """Of a QuantizeLinear's output, and the type it has in the file."""
        scales = scales_of(node, self.initializers)
        if scales.quantization is None:
            raise UnsupportedNodeError(
                f"activations need one scale a tensor and 8 bits, it has {scales.scale.size} and {scales.dtype}",
                "quantise activations per tensor to int8",
            )
        return scales.quantization, scales.dtype

    def _tensor(self, name: str, shape: tuple[int, ...], quantization: Quantization) -> str:
        name = name.removesuffix("_QuantizeLinear_Input")  # onnxruntime renames what stands before a QuantizeLinear
        while name in self.tensors:
            name += "'"
        self.tensors[name] = Tensor(name, shape, quantization)
        return name

    def _features(self, output: str) -> str:
        """The input of the last layer with weights, if it is a classifier: vector in, output at the end."""
        for node in reversed(self.nodes):
            if operator_of(node).classifies:
                source = self.tensors[node.inputs[0]]
                is_vector = len(source.shape) == 1 or source.shape[:2] == (1, 1)
                return source.name if is_vector and source.name not in self.flattened else output
        return output


def _check_arithmetic(graph: Graph) -> None:
    """Raise UnsupportedModelError, naming every node whose scales no integer multiplier can bring together."""
    problems: list[Problem] = []
    for node in graph.nodes:
        try:
            operator_of(node).kernel(node, graph.tensors)
            if operator_of(node).weights is not None:
                check_precision(node, graph.tensors)
        except ValueError as error:
            problems.append(Problem(node.name, node.op, str(error), "quantise again with ranges nearer to each other"))
        except UnsupportedModelError as error:
            problems += error.problems
    if problems:
        raise UnsupportedModelError(problems)
