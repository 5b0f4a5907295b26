"""QDQ ONNX -> quantised graph.

In a QDQ model every operator reads DequantizeLinear outputs and its result goes into a
QuantizeLinear. Between the two the file's arithmetic is float; here each such triple becomes one
integer node. Relu and Clip in between become the clip limits of the node in front of them. Where a tensor lies on the
device in another order than in the file, its Layout says so; nodes that change nothing but that become no nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...errors import Problem, UnsupportedModelError
from ...graph import Graph, Layout, Node, Origin, Quantization, Tensor, verify
from ...graph.quantization import INT8_MAX, INT8_MIN
from ...ops import operator_of, registered
from ...ops.lookup import LookupAttributes
from ...ops.weighted import check_precision
from .float_passes.edit import GraphEditor
from .input_layout import input_layout
from .layout import Activation, Arranger
from .scales import along, scales_of
from .segments import NotFiniteError, Segment, find_segments, table_of


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
    """An operator whose output has not met its QuantizeLinear yet.

    `inputs` name tensors of the graph. `layout` is the output's: Layout.image or Layout.row_major of its shape in the
    file, or the input's where each element of the output comes from the input's element at its place.
    """

    node: onnx.NodeProto
    op: str
    inputs: tuple[str, ...]
    layout: Layout
    attributes: Any
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    low: float = -np.inf  # real clip limits
    high: float = np.inf
    segment: Segment | None = None  # of a lookup with a table of its own


class UnsupportedNodeError(Exception):
    """Raised by the builder of one node; the importer turns it into a Problem and goes on."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


Builder = Callable[["QdqImporter", onnx.NodeProto], Pending | None]
BUILDERS: dict[str, Builder] = {}


def builder(*op_types: str) -> Callable[[Builder], Builder]:
    def add(function: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(op_types, function))
        return function

    return add


class QdqImporter:
    """State of one import: what each float name of the file stands for in the quantised graph."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        proto = onnx.shape_inference.infer_shapes(proto)
        self.proto = proto
        self.properties = {p.key: p.value for p in proto.metadata_props}
        self.initializers = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
        values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
        self.dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        self.graph = Arranger()
        self.input = ""  # its tensor, once it is quantised
        self.inputs: dict[str, Layout] = {}  # float names that show the input, not quantised yet
        self.activations: dict[str, Activation] = {}  # by float name
        self.quantized: dict[str, Activation] = {}  # by int8 name
        self.types: dict[str, np.dtype[Any]] = {}  # int8 name -> its type in the file, int8 or uint8
        self.constants: dict[str, Constant] = {}  # float name -> quantised initializer
        self.pending: dict[str, Pending] = {}  # float name -> operator
        self.problems: list[Problem] = []
        segments = find_segments(GraphEditor(onnx.ModelProto.FromString(proto.SerializeToString())), BUILDERS)
        self.segments = {segment.output: segment for segment in segments}
        self.interiors = {node.output[0] for segment in segments for node in segment.nodes} - set(self.segments)

    def run(self) -> Graph:
        (graph_input,) = [v.name for v in self.proto.graph.input if v.name not in self.initializers]
        self.inputs[graph_input] = layout = input_layout(self.proto)
        refused: set[str] = set()
        for node in self.proto.graph.node:
            if refused.intersection(node.input):  # would only repeat the complaint
                refused.update(node.output)
                continue
            try:
                self._import(node)
            except UnsupportedNodeError as error:
                self.problems.append(Problem(node.name or node.output[0], node.op_type, error.reason, error.fix))
                refused.update(node.output)
        if self.problems:
            raise UnsupportedModelError(self.problems)
        output, output_layout = self._output(self.proto.graph.output[0].name)
        graph = Graph(
            self.input, output, self._features(output), self.graph.tensors, self.graph.nodes, self.graph.origins,
            layout, output_layout,
        )  # fmt: skip
        verify(graph, after="import")
        _check_arithmetic(graph)
        return graph

    def _output(self, name: str) -> tuple[str, Layout]:
        """The tensor of the model's output, and how it lies there: whole axes in any order, or the file's order."""
        if name not in self.activations:
            problem = Problem(
                name, "output", "the model's output is not a quantised tensor", "end the model in Gemm, Conv or a pool"
            )
            raise UnsupportedModelError([problem])
        layout = natural(self.activations[name].layout)
        return self.arranged(name, layout).name, layout

    # -- the three kinds of node ---------------------------------------------------------------

    def _import(self, node: onnx.NodeProto) -> None:
        if node.op_type == "DequantizeLinear":
            self._dequantize(node)
        elif node.op_type == "QuantizeLinear":
            self._quantize(node)
        elif node.output[0] in self.segments:
            segment = self.segments[node.output[0]]
            x, layout = self.as_it_lies(segment.root)
            self.pending[segment.output] = Pending(
                node, "lookup", (x.name,), layout, LookupAttributes(), segment=segment
            )
        elif node.output[0] in self.interiors:
            pass  # the table of its segment has it
        elif node.op_type in BUILDERS:
            pending = BUILDERS[node.op_type](self, node)
            if pending is not None:
                self.pending[node.output[0]] = pending
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
            found = self.quantized[source]
            tensor = self.graph.tensors[found.tensor]
            self._check_same_scales(scales_of(node, self.initializers, self.types[source]).quantization, tensor)
            self.activations[name] = found

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

    def _quantize(self, node: onnx.NodeProto) -> None:
        source, name = node.input[0], node.output[0]
        quantization, self.types[name] = self._quantization(node)
        if source in self.inputs:
            self.quantized[name] = self._quantized_input(source, name, quantization)
            return
        if source in self.activations:
            x = self.activations[source]
            if self.graph.tensors[x.tensor].quantization == quantization:
                self.quantized[name] = replace(x, name=source, integers=name)
                return
            # A change of scale alone.
            self.pending[source] = Pending(node, "lookup", (x.tensor,), x.layout, LookupAttributes())
        if source not in self.pending:
            raise UnsupportedNodeError(
                "it quantises a value that no supported operator computes", "export the model again as float"
            )
        tensor, layout = self._finish(source, self.pending.pop(source), quantization)
        self.graph.origins[tensor] = Origin(name, layout)
        self.quantized[name] = Activation(tensor, layout, source, name)

    def _quantized_input(self, source: str, integers: str, quantization: Quantization) -> Activation:
        layout = self.inputs[source]
        if not self.input:
            self.input = self.graph.tensor(source, layout.device, quantization)
            self.graph.origins[self.input] = Origin(integers, layout)
        elif self.graph.tensors[self.input].quantization != quantization:
            raise UnsupportedNodeError(
                "it quantises the model's input a second time, with another scale", "quantise the input once"
            )
        return Activation(self.input, layout, source, integers)

    def _finish(self, float_name: str, pending: Pending, quantization: Quantization) -> tuple[str, Layout]:
        """Turn a pending operator into a node, its output's scale now known."""
        low, high = INT8_MIN, INT8_MAX
        if np.isfinite(pending.low):
            low = int(np.clip(np.rint(pending.low / quantization.scale) + quantization.zero_point, low, high))
        if np.isfinite(pending.high):
            high = int(np.clip(np.rint(pending.high / quantization.scale) + quantization.zero_point, low, high))
        shape = pending.layout.device
        output = self.graph.tensor(float_name, shape, quantization)
        name = pending.node.name or float_name
        source = self.graph.tensors[pending.inputs[0]]
        limits = {"low": low, "high": high} if hasattr(pending.attributes, "low") else {}
        unclipped = not limits and (low, high) != (INT8_MIN, INT8_MAX)
        if registered()[pending.op].keeps_scale and (source.quantization != quantization or unclipped):
            unscaled = self.graph.tensor(f"{float_name}.unscaled", shape, source.quantization)
            self._append(f"{name}.unscaled", pending, unscaled, {})
            self.graph.node(Node(name, "lookup", (unscaled,), output, LookupAttributes(low, high)))
        else:
            self._append(name, pending, output, limits)
        return output, pending.layout

    def _append(self, name: str, pending: Pending, output: str, limits: dict[str, int]) -> None:
        constants = dict(pending.constants)
        if "weights" in constants:
            constants["bias"] = self._integer_bias(pending)
            constants.pop("bias_real")
        if pending.segment is not None:
            constants = self._table(pending, output)
        attributes = replace(pending.attributes, **limits)
        self.graph.node(Node(name, pending.op, pending.inputs, output, attributes, constants))

    def _table(self, pending: Pending, output: str) -> dict[str, NDArray[Any]]:
        x, y = (self.graph.tensors[name].quantization for name in (pending.inputs[0], output))
        assert pending.segment is not None
        try:
            return table_of(pending.segment, list(self.proto.opset_import), x, y)
        except NotFiniteError as error:
            raise UnsupportedNodeError(
                str(error), "keep its input away from there, with a Clip or an Add of a constant in front"
            ) from error

    def _integer_bias(self, pending: Pending) -> NDArray[np.int32]:
        """round(bias / (s_x * s_w)); exact where the file's bias already stands in these units."""
        s_x = self.graph.tensors[pending.inputs[0]].quantization.scale
        bias = np.rint(pending.constants["bias_real"] / (pending.constants["weight_scales"] * s_x))
        if np.any(np.abs(bias) > 2**31 - 1):
            raise UnsupportedNodeError(
                "its bias is too large for 32 bits at the scale of its weights", "retrain or rescale the layer"
            )
        return bias.astype(np.int32)

    # -- helpers the builders use --------------------------------------------------------------

    def as_it_lies(self, name: str) -> tuple[Tensor, Layout]:
        """The tensor behind a float name, in whatever order it has: for operators that work element by element."""
        x = self._activation(name)
        return self.graph.tensors[x.tensor], x.layout

    def arranged(self, name: str, layout: Layout) -> Tensor:
        """The tensor behind a float name in this order and shape; bytes move only where the order is another one."""
        return self.graph.arranged(self._activation(name), layout)

    def image(self, name: str) -> Tensor:
        """(1, C, H, W) as (H, W, C), (1, C, L) as (1, L, C): Layout.image of its shape."""
        shape = self.shape(name)
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise UnsupportedNodeError(f"its input has shape {shape}", "give it an input of shape (1, C, H, W)")
        return self.arranged(name, Layout.image(shape))

    def row_major(self, name: str) -> Tensor:
        """In the file's order and shape, without batch: Layout.row_major of its shape."""
        return self.arranged(name, Layout.row_major(self.shape(name)))

    def flat(self, name: str) -> tuple[Tensor, Layout]:
        """As (n,) in whatever order it has; Layout.positions says where a layer's weights for it belong."""
        layout = self._activation(name).layout
        layout = replace(layout, device=(prod(layout.device),))
        return self.arranged(name, layout), layout

    def like(self, a: str, b: str) -> tuple[Tensor, Tensor, Layout]:
        """Two activations of one shape, both as the first lies; the second alone is reordered, if anything is."""
        x, layout = self.as_it_lies(a)
        return x, self.arranged(b, layout.reshaped(self.shape(b))), layout

    def innermost(self, name: str, axis: int) -> tuple[Tensor, Layout]:
        """With one axis of the file innermost, whole; the others before it as they lie, where they lie whole."""
        shape, found = self.shape(name), self._activation(name).layout.axes
        axis %= len(shape)
        others = [other for other in found or range(len(shape)) if other != axis]
        layout = Layout.of_axes(shape, (*others, axis))
        return self.arranged(name, layout), layout

    def reorder(self, name: str, layout: Layout) -> None:
        """From here on a float name lies like this."""
        self.activations[name] = replace(self._activation(name), tensor=self.arranged(name, layout).name, layout=layout)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of any tensor of the file, batch included."""
        return tuple(self.dims[name])

    def same_bytes(self, node: onnx.NodeProto, change: Callable[[Layout], Layout]) -> Pending | None:
        """For nodes that change how their input is read, and nothing else: its layout alone changes."""
        source, name = node.input[0], node.output[0]
        if source in self.pending:
            pending = self.pending.pop(source)
            return replace(pending, layout=change(pending.layout))
        if source in self.inputs:
            self.inputs[name] = change(self.inputs[source])
        else:
            x = self._activation(source)
            self.activations[name] = replace(x, layout=change(x.layout), name=name)
        return None

    def _activation(self, name: str) -> Activation:
        if name in self.activations:
            return self.activations[name]
        if name in self.constants or name in self.initializers:
            raise UnsupportedNodeError(
                f"its input '{name}' is a constant", "fold it into the neighbouring Conv or Gemm before export"
            )
        raise UnsupportedNodeError(
            f"its input '{name}' is not quantised", "quantise it, or pass the float model instead"
        )

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
        if constant.values.dtype.kind != "i":
            raise UnsupportedNodeError(f"its weight '{name}' is not int8", "quantise weights to int8")
        low, high = int(constant.values.min(initial=0)), int(constant.values.max(initial=0))
        if low < INT8_MIN or high > INT8_MAX:
            raise UnsupportedNodeError(
                f"less their zero point, its weights '{name}' go from {low} to {high}, which int8 does not hold",
                "quantise weights symmetrically (onnxruntime: WeightSymmetric, or QInt8 weights)",
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

    def _features(self, output: str) -> str:
        """The input of the last layer with weights, if it is a classifier: a vector in the file's order."""
        for node in reversed(self.graph.nodes):
            if operator_of(node).classifies:
                source = self.graph.tensors[node.inputs[0]]
                is_vector = len(source.shape) == 1 or source.shape[:2] == (1, 1)
                return source.name if is_vector and self.graph.origins[source.name].layout.is_row_major else output
        return output


def natural(layout: Layout) -> Layout:
    """The layout of an output: whole axes as they lie, the file's order where they don't, with a shape that says so.

    Images have their channels innermost, also those of one pixel.
    """
    shape = layout.shape
    images = [Layout.image(shape)] if len(shape) in (3, 4) else []
    plain = Layout.row_major(shape)
    for usual in (*images, plain) if len(shape) == 4 else (plain, *images):
        if usual.same_order(layout):
            return usual
    axes = layout.axes
    return Layout.row_major(shape) if axes is None else Layout.of_axes(shape, axes)


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
