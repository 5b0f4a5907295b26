"""Whether a graph is one: nodes in order, every tensor written once, attributes as their operators want them."""

from __future__ import annotations

from collections import Counter

import onnx

from ...errors import UsageError, first_line, listed, shown
from .float_passes.edit import default_opset
from .limits import MAX_NODES

Writers = dict[str, str]  # tensor -> what writes it, in words


def check_structure(proto: onnx.ModelProto) -> None:
    """Raise UsageError, naming the node. Operators ONNX doesn't know are left to the rules, which list them all."""
    graph = proto.graph
    if graph.sparse_initializer:
        names = listed(t.values.name for t in graph.sparse_initializer)
        raise UsageError(f"it has sparse weights ({names}); export them dense")
    if len(graph.node) > MAX_NODES:
        raise UsageError(f"it has {len(graph.node):,} nodes, at most {MAX_NODES:,} can be compiled")
    writers = _ends(graph)
    for node in graph.node:
        _check_wiring(node, writers)
        known = not node.domain and onnx.defs.has(node.op_type, default_opset(proto), "")
        if known and not any(a.HasField("g") or a.graphs for a in node.attribute):  # those read names from around them
            _check_node(node, proto)
    for output in graph.output:
        if output.name not in writers:
            raise UsageError(f"output '{shown(output.name)}' is written by no node; export it again")
    _check_model(proto)


def node_label(node: onnx.NodeProto) -> str:
    """A node as messages call it: its operator and its name, or its output's where it has none."""
    return f"{shown(node.op_type)} '{shown(node.name or next(iter(node.output), ''))}'"


def _ends(graph: onnx.GraphProto) -> Writers:
    """What is there before the first node. A constant may be listed as an input too."""
    writers: Writers = {"": "nothing"}
    for role, infos in (("input", graph.input), ("constant", graph.initializer)):
        names = Counter(info.name for info in infos)
        double = sorted(name for name, count in names.items() if count > 1)
        if double:
            raise UsageError(f"it has more than one {role} called {listed(double)}; export it again")
        writers |= {name: f"{role} '{shown(name)}'" for name in names}
    return writers


def _check_wiring(node: onnx.NodeProto, writers: Writers) -> None:
    for name in node.input:
        if name not in writers:
            raise UsageError(
                f"not a valid ONNX model: {node_label(node)} reads '{shown(name)}', which nothing in front of it "
                "writes (a cycle, or nodes out of order); export it again"
            )
    if not node.output or not node.output[0]:
        raise UsageError(f"not a valid ONNX model: {node_label(node)} writes nothing; export it again")
    for name in filter(None, node.output):
        if name in writers:
            raise UsageError(
                f"not a valid ONNX model: {node_label(node)} writes '{shown(name)}', which {writers[name]} is already; "
                "export it again"
            )
        writers[name] = f"an output of {node_label(node)}"


def _check_node(node: onnx.NodeProto, proto: onnx.ModelProto) -> None:
    """Numbers of inputs and outputs, names and types of attributes."""
    context = type(onnx.checker.DEFAULT_CONTEXT)()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {o.domain: o.version for o in proto.opset_import}
    try:
        onnx.checker.check_node(node, context)
    except Exception as e:  # damage shows as whatever the checker makes of it
        raise UsageError(f"not a valid ONNX model: {node_label(node)}: {first_line(e)}; export it again") from e


def _check_model(proto: onnx.ModelProto) -> None:
    """The ONNX checker's view of the rest."""
    graph = proto.graph
    imported = {o.domain: o.version for o in proto.opset_import}
    if any(n.domain not in imported or not onnx.defs.has(n.op_type, imported[n.domain], n.domain) for n in graph.node):
        return
    shapeless = [o.type.tensor_type for o in graph.output if not o.type.tensor_type.HasField("shape")]
    try:
        for each in shapeless:  # the checker insists on a shape, which inference finds anyway
            each.shape.SetInParent()
        onnx.checker.check_model(proto)
    except Exception as e:
        raise UsageError(f"not a valid ONNX model: {first_line(e)}; export it again") from e
    finally:
        for each in shapeless:
            each.ClearField("shape")
