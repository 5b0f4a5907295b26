"""What every rewrite of a float ONNX graph needs: look tensors up, replace nodes, keep names unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values; strings decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set one attribute; None removes it."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def static_shape(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The shape of a tensor whose every dimension is a number, else None."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def default_opset(proto: onnx.ModelProto) -> int:
    """Version of the standard operator set the model uses; 0 where it names none."""
    return max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the shape of every tensor that can be known, constants of shape arithmetic included."""
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


class GraphEditor:
    """The graph of a model under rewriting. Works in place on the proto it is given.

    `shapes` and `constants` are as of the last `refresh`; add_constant keeps `constants` up to date.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.constants: dict[str, Array] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._taken: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Infer all shapes again, after nodes changed."""
        del self.graph.value_info[:]
        for output in self.graph.output:  # an exporter's leftovers may contradict what we infer
            output.type.tensor_type.ClearField("shape")
        inferred = infer_shapes(self.proto).graph
        self.graph.value_info.extend(inferred.value_info)
        for mine, theirs in zip(self.graph.output, inferred.output, strict=True):
            mine.CopyFrom(theirs)
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        infos = [*self.graph.input, *self.graph.value_info, *self.graph.output]
        shapes = ((info.name, static_shape(info)) for info in infos)
        self.shapes = {name: shape for name, shape in shapes if shape is not None}
        self.shapes |= {name: array.shape for name, array in self.constants.items()}
        self._taken = {name for node in self.graph.node for name in (node.name, *node.input, *node.output)}
        self._taken |= set(self.constants) | {info.name for info in infos}

    # Questions

    @property
    def output_names(self) -> set[str]:
        return {o.name for o in self.graph.output}

    def nodes(self, *op_types: str) -> list[onnx.NodeProto]:
        """A snapshot, safe to edit under, in execution order."""
        return [n for n in self.graph.node if not op_types or n.op_type in op_types]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        return next((n for n in self.graph.node if tensor in n.output), None)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return [n for n in self.graph.node if tensor in n.input]

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor nobody outside the graph sees."""
        found = self.consumers(tensor)
        return found[0] if len(found) == 1 and tensor not in self.output_names else None

    def private_producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that writes a tensor which only one node reads and nobody outside the graph sees."""
        return self.producer(tensor) if self.only_consumer(tensor) is not None else None

    # Edits

    def fresh(self, base: str) -> str:
        """A name for a node or tensor that nothing has yet."""
        name, i = base, 1
        while name in self._taken:
            name, i = f"{base}_{i}", i + 1
        self._taken.add(name)
        return name

    def add_constant(self, base: str, value: Array) -> str:
        name = self.fresh(base)
        value = np.asarray(value, order="C")
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.constants[name] = value
        self.shapes[name] = value.shape
        return name

    def replace_uses(self, old: str, new: str) -> None:
        for node in self.graph.node:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

    def replace(self, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put nodes where `node` was; references to other nodes stay valid."""
        at = self._index(node)
        del self.graph.node[at]
        for i, each in enumerate(new):
            self.graph.node.insert(at + i, each)

    def bypass(self, node: onnx.NodeProto) -> None:
        """Remove a node that changes nothing: its readers read its first input.

        Where it writes an output of the graph, its producer takes over the output's name, which stays. The
        node itself stays where there is no such producer (an Identity from input to output).
        """
        source, result = node.input[0], node.output[0]
        if result in self.output_names:
            producer = self.producer(source)
            if producer is None or source in self.output_names:
                return
            self.remove([node])
            outputs = [result if name == source else name for name in producer.output]
            del producer.output[:]
            producer.output.extend(outputs)
            self.replace_uses(source, result)
        else:
            self.remove([node])
            self.replace_uses(result, source)

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            del self.graph.node[self._index(node)]

    def _index(self, node: onnx.NodeProto) -> int:
        return next(i for i, n in enumerate(self.graph.node) if n.output[0] == node.output[0])

    def remove_unused(self) -> None:
        """Drop nodes nobody reads, constants nobody uses, and constants listed as inputs of the graph."""
        live, dead = self.output_names, []
        for node in reversed(self.graph.node):
            if live.intersection(node.output):
                live.update(node.input)
            else:
                dead.append(node)
        self.remove(dead)
        for i in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[i].name not in live:
                del self.graph.initializer[i]
        for i in reversed(range(len(self.graph.input))):
            if self.graph.input[i].name in self.constants:
                del self.graph.input[i]
