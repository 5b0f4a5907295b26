"""What every rewrite of a float ONNX graph needs: look tensors up, replace nodes, keep names unique."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """The graph of a model under rewriting, in time that grows with the edits and not with the graph.

    The nodes are edited in lists of the editor's own, with an index of who writes and who reads each tensor, so
    inputs and outputs change through `set_input` and `set_output` alone. `commit` puts nodes and constants into the
    proto. `shapes` is as of the last `refresh`; `constants` is kept up to date.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.constants: dict[str, Array] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._taken: set[str] = set()
        self._added: dict[str, Array] = {}  # constants that the proto does not hold yet
        self._dropped: set[str] = set()  # constants that it still holds
        self._next: dict[str, int] = {}  # base of a name -> the first number to try behind it
        self._slots: list[list[onnx.NodeProto]] = []  # per node of the last commit, what stands there now
        self._slot_of: dict[int, int] = {}  # id of a node -> its slot
        self._writer: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, dict[int, onnx.NodeProto]] = {}  # tensor -> its readers by id
        self._index_all()
        self.refresh()

    def commit(self) -> None:
        """Write nodes and constants back into the proto."""
        nodes = self.nodes()
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        self._keep_constants(lambda name: name not in self._dropped)
        self.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self._added.items())
        self._added, self._dropped = {}, set()
        self._index_all()

    def refresh(self) -> None:
        """Commit, and infer all shapes again."""
        self.commit()
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
        self._next = {}

    # Questions

    @property
    def output_names(self) -> set[str]:
        return {o.name for o in self.graph.output}

    def nodes(self, *op_types: str) -> list[onnx.NodeProto]:
        """A snapshot, safe to edit under, in execution order."""
        return [n for slot in self._slots for n in slot if not op_types or n.op_type in op_types]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        return self._writer.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return sorted(self._readers.get(tensor, {}).values(), key=lambda node: self._slot_of[id(node)])

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor nobody outside the graph sees."""
        readers = self._readers.get(tensor, {})
        return next(iter(readers.values())) if len(readers) == 1 and tensor not in self.output_names else None

    def private_producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that writes a tensor which only one node reads and nobody outside the graph sees."""
        return self.producer(tensor) if self.only_consumer(tensor) is not None else None

    # Edits

    def fresh(self, base: str) -> str:
        """A name for a node or tensor that nothing has yet."""
        name = base
        while name in self._taken:
            number = self._next.get(base, 1)
            name, self._next[base] = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name

    def add_constant(self, base: str, value: Array) -> str:
        name = self.fresh(base)
        value = np.asarray(value, order="C")
        self.constants[name] = self._added[name] = value
        self.shapes[name] = value.shape
        return name

    def drop_constant(self, name: str) -> None:
        """Forget a constant that nobody reads any more; its name is free again."""
        if name in self.constants and not self._readers.get(name) and name not in self.output_names:
            del self.constants[name], self.shapes[name]
            self._taken.discard(name)
            if self._added.pop(name, None) is None:
                self._dropped.add(name)

    def set_input(self, node: onnx.NodeProto, i: int, name: str) -> None:
        self._forget(node)
        node.input[i] = name
        self._learn(node)

    def set_inputs(self, node: onnx.NodeProto, names: Iterable[str]) -> None:
        self._forget(node)
        names = list(names)
        del node.input[:]
        node.input.extend(names)
        self._learn(node)

    def set_output(self, node: onnx.NodeProto, i: int, name: str) -> None:
        self._forget(node)
        node.output[i] = name
        self._learn(node)

    def replace_uses(self, old: str, new: str) -> None:
        for node in self.consumers(old):
            self.set_inputs(node, [new if name == old else name for name in node.input])

    def replace(self, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put nodes where `node` was; references to other nodes stay valid."""
        self._forget(node)
        at = self._slot_of.pop(id(node))
        slot = self._slots[at]
        i = next(i for i, n in enumerate(slot) if n is node)
        slot[i : i + 1] = new
        for each in new:
            self._slot_of[id(each)] = at
            self._learn(each)

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            self.replace(node, [])

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
            self.set_output(producer, list(producer.output).index(source), result)
            self.replace_uses(source, result)
        else:
            self.remove([node])
            self.replace_uses(result, source)

    def remove_unused(self) -> None:
        """Drop nodes nobody reads, constants nobody uses, and constants listed as inputs of the graph."""
        live, dead = self.output_names, []
        for node in reversed(self.nodes()):
            if live.intersection(node.output):
                live.update(node.input)
            else:
                dead.append(node)
        self.remove(dead)
        self.commit()
        self._keep_constants(lambda name: name in live)
        for i in reversed(range(len(self.graph.input))):
            if self.graph.input[i].name in self.constants:
                del self.graph.input[i]

    def _keep_constants(self, wanted: Callable[[str], bool]) -> None:
        for i in reversed(range(len(self.graph.initializer))):
            if not wanted(self.graph.initializer[i].name):
                del self.graph.initializer[i]

    # The index

    def _index_all(self) -> None:
        self._slots = [[node] for node in self.graph.node]
        self._slot_of = {id(slot[0]): i for i, slot in enumerate(self._slots)}
        self._writer, self._readers = {}, {}
        for slot in self._slots:
            self._learn(slot[0])

    def _learn(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if name:
                self._writer[name] = node
        for name in node.input:
            if name:
                self._readers.setdefault(name, {})[id(node)] = node

    def _forget(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            if self._writer.get(name) is node:
                del self._writer[name]
        for name in node.input:
            self._readers.get(name, {}).pop(id(node), None)
