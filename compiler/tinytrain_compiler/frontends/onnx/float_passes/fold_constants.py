"""Compute everything that doesn't depend on the input: Constant nodes, shape arithmetic, weight arithmetic.

DequantizeLinear stays: behind it lie the integer weights of a model that is quantised already. A node is computed
only when it is known how much comes out, because ten bytes of ConstantOfShape can ask for terabytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from ....errors import UsageError, first_line
from ..limits import MAX_ELEMENTS, MAX_WEIGHTS, elements, spelled
from ..structure import node_label
from .edit import Array, GraphEditor, infer_shapes, static_shape
from .runtime import new_session

_KEEP = frozenset(
    {
        "DequantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
        "Multinomial",
    }
)  # fmt: skip
_AT_MOST_INPUT = frozenset({"NonZero", "Compress", "Unique"})  # how much comes out depends on values, within bounds
_MAX_ROUNDS = 50


def fold_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which constant nodes are initializers and the rest carries inferred shapes.

    Folding a shape computation can make more shapes known, so it goes on until nothing changes. Raises UsageError,
    naming the node, where constants become larger than MAX_ELEMENTS each or MAX_WEIGHTS together.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    # What an exporter wrote down may be wrong once the batch is fixed; inference alone is believed.
    del proto.graph.value_info[:]
    made = 0
    for _ in range(_MAX_ROUNDS):
        proto = infer_shapes(proto)
        computed = _fold_once(proto, made)
        if computed is None:
            break
        made = computed
    GraphEditor(proto).remove_unused()
    return proto


def _fold_once(proto: onnx.ModelProto, made: int) -> int | None:
    """Fold all that is constant now. `made`: values computed so far; returned with the new ones, or None: nothing."""
    graph = proto.graph
    infos = [*graph.input, *graph.value_info, *graph.output]
    shapes = {i.name: shape for i in infos if (shape := static_shape(i)) is not None and _countable(shape)}
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    numeric = {i.name for i in infos if i.type.tensor_type.elem_type not in (0, onnx.TensorProto.STRING)}
    constants = {t.name for t in graph.initializer} | {""}
    results: dict[str, Array] = {}
    to_run: list[onnx.NodeProto] = []
    folded: list[int] = []
    for at, node in enumerate(graph.node):
        if node.op_type in ("Shape", "Size") and not node.domain and node.input[0] in shapes and len(node.input) == 1:
            results[node.output[0]] = _shape_result(node, shapes[node.input[0]])
        elif _is_constant(node, constants) and (size := _size(node, shapes, numeric)) is not None:
            made += size
            if made > MAX_WEIGHTS:
                raise UsageError(
                    f"up to {node_label(node)} it computes {made:,} constant values, at most {MAX_WEIGHTS:,} are "
                    "possible; export it with smaller constants"
                )
            to_run.append(node)
        else:
            continue
        folded.append(at)
        constants.update(node.output)
    if not folded:
        return None
    results |= _run(proto, to_run, results)
    for at in reversed(folded):
        del graph.node[at]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in results.items())
    return made


def _countable(shape: tuple[int, ...]) -> bool:
    return min(shape, default=0) >= 0


def _size(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], numeric: set[str]) -> int | None:
    """How many values a constant node makes; None where that shows only once its inputs are computed, or never."""
    if node.op_type in _AT_MOST_INPUT:
        inputs = [shapes.get(name) for name in node.input if name]
        return sum(4 * len(s) * elements(s) for s in inputs if s is not None) if None not in inputs else None
    size = 0
    for name in filter(None, node.output):
        shape = shapes.get(name)
        if shape is None or name not in numeric:
            return None
        if elements(shape) > MAX_ELEMENTS:
            raise UsageError(
                f"{node_label(node)} makes a constant of shape {spelled(shape)}, at most {MAX_ELEMENTS:,} values are "
                "possible; export it with smaller constants"
            )
        size += elements(shape)
    return size


def _is_constant(node: onnx.NodeProto, constants: set[str]) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _KEEP or not onnx.defs.has(node.op_type):
        return False
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return False
    return all(name in constants for name in node.input)


def _shape_result(node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Size":
        return np.array(min(elements(shape), np.iinfo(np.int64).max), dtype=np.int64)
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end")], dtype=np.int64)


def _run(proto: onnx.ModelProto, nodes: list[onnx.NodeProto], known: dict[str, Array]) -> dict[str, Array]:
    """The outputs of constant nodes that the rest of the graph reads, computed by onnxruntime."""
    made = {name for node in nodes for name in node.output if name}
    inside = {node.output[0] for node in nodes}
    wanted = {name for node in proto.graph.node if node.output[0] not in inside for name in node.input} & made
    wanted |= {o.name for o in proto.graph.output} & made
    if not wanted:
        return {}
    read = {name for node in nodes for name in node.input}
    initializers = [t for t in proto.graph.initializer if t.name in read]
    initializers += [numpy_helper.from_array(value, name) for name, value in known.items() if name in read]
    names = sorted(wanted)
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    unnamed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for node in unnamed:
        node.name = ""  # onnxruntime refuses two nodes of one name, which exporters do write
    graph = onnx.helper.make_graph(unnamed, "constants", [], outputs, initializers)
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    try:
        values = new_session(model).run(None, {})
    except Exception as e:  # onnxruntime's exceptions share no base class of their own
        raise UsageError(f"its constants cannot be computed: {first_line(e)}; export it again") from e
    return dict(zip(names, values, strict=True))
