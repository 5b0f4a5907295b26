"""Element-wise sub-graphs of one tensor and constants: Sigmoid, HardSwish, x * Sigmoid(x), Gelu as exporters spell it.

Whatever one does, it is a function of one number, on the device of one byte: a table of 256, computed while compiling
by running the sub-graph itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...graph import Quantization
from .float_passes.edit import Array, GraphEditor
from .float_passes.runtime import new_session
from .scales import scales_of

LIMITS = ("Relu", "Clip")  # alone they are clip limits of the operator in front
ARITHMETIC = ("Add", "Sub", "Mul", "Div")  # of two tensors they have kernels
ACTIVATIONS = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Round", "Selu",
    "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
)  # fmt: skip
COMBINATIONS = (
    "And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Not", "Or",
    "PRelu", "Pow", "Sum", "Where", "Xor",
)  # fmt: skip
_ELEMENTWISE = frozenset((*LIMITS, *ARITHMETIC, *ACTIVATIONS, *COMBINATIONS))
DOMAIN = "tinytrain"
STEPS_BACK = 24  # that two activations are followed to a tensor of which both may be functions


@dataclass(frozen=True)
class Segment:
    """`output` is a function of each element of `root`; `nodes` compute it, in order, with these constants."""

    root: str
    output: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, Array]  # scalars

    def renamed(self, root: str, output: str, prefix: str) -> list[onnx.NodeProto]:
        """Copies of the nodes between two other tensors; what lies between them and constants get a prefix."""
        names = {self.root: root, self.output: output, "": ""}
        found = []
        for node in self.nodes:
            copy = onnx.NodeProto.FromString(node.SerializeToString())
            for field in (copy.input, copy.output):
                field[:] = [names.setdefault(name, f"{prefix}{name}") for name in field]
            if node.output[0] != self.output:
                copy.name = f"{prefix}{node.name or node.output[0]}"
            found.append(copy)
        return found


def scalar(editor: GraphEditor, name: str) -> Array | None:
    """A constant that has one value everywhere, also a quantised one, as a scalar; None for all else."""
    value = editor.constants.get(name)
    producer = editor.producer(name)
    if value is None and producer is not None and producer.op_type == "DequantizeLinear":
        integers = editor.constants.get(producer.input[0])
        if integers is None or integers.size == 0 or (integers != integers.flat[0]).any():
            return None
        scales = scales_of(producer, editor.constants, integers.dtype)
        if scales.scale.size == 1:
            real = np.float32(int(integers.flat[0]) - scales.zero[0]) * np.float32(scales.scale[0])
            value = np.array(real, np.float32)
    if value is None or value.size == 0 or (value != value.flat[0]).any():
        return None
    return value.reshape(-1)[:1].reshape(())


def find_segments(editor: GraphEditor, builders: Collection[str]) -> list[Segment]:
    """The largest ones, in execution order: each begins and ends where others read or write. Relus alone are none.

    builders: operators that have a kernel of their own; but for arithmetic and limits they are in no segment.
    """
    chains = _chains(editor, frozenset(), builders)
    shown = {
        name
        for name in chains
        if name in editor.output_names or any(node.output[0] not in chains for node in editor.consumers(name))
    }
    chains = _chains(editor, frozenset(shown), builders)
    nodes = [node for node in editor.nodes() if node.output[0] in chains]
    found = []
    for node in nodes:
        name = node.output[0]
        if name in shown:
            segment = _segment(editor, nodes, chains[name][1], name)
            if any(each.op_type not in LIMITS for each in segment.nodes):
                found.append(segment)
    return found


def lonely(editor: GraphEditor, builders: Collection[str]) -> list[onnx.NodeProto]:
    """Nodes that only a table can compute, and that more than one tensor goes into."""
    chains = _chains(editor, frozenset(), builders)
    only = {*ACTIVATIONS, *COMBINATIONS}.difference(builders)
    return [node for node in editor.nodes(*only) if not node.domain and node.output[0] not in chains]


def _chains(editor: GraphEditor, shown: frozenset[str], builders: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Tensors that element-wise nodes compute from one -> the tensors of which they are functions, nearest first.

    A tensor that is shown to others is the nearest to itself, so that what reads it begins there.
    """
    found: dict[str, tuple[str, ...]] = {}
    members = _ELEMENTWISE.difference(builders) | {*LIMITS, *ARITHMETIC}
    limits = _limits(editor)
    for node in editor.nodes():
        if node.op_type not in members or node.domain or len(node.output) != 1 or node.output[0] in limits:
            continue
        if _is_factor(editor, node):
            continue
        sources = [name for name in node.input if name and scalar(editor, name) is None]
        chains = [found.get(name, (name,)) for name in sources]
        common = [name for name in chains[0] if all(name in chain for chain in chains)] if chains else []
        output = node.output[0]
        same = [name for name in common if editor.shapes.get(name) == editor.shapes.get(output) is not None]
        if same and not any(name in editor.constants for name in same):
            found[output] = (output, *same) if output in shown else tuple(same)
    return found


def _is_factor(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    """The one factor of a product of two activations, whose requantisation takes it in."""
    if node.op_type != "Mul" or scalar(editor, node.input[1]) is None:
        return False
    product = editor.private_producer(node.input[0])
    return product is not None and product.op_type == "MatMul" and float(scalar(editor, node.input[1]) or 0) > 0


def _limits(editor: GraphEditor) -> set[str]:
    """Outputs of each Relu or Clip right behind an operator that clips, or behind nothing but such."""
    found: set[str] = set()
    for node in editor.nodes(*LIMITS):
        before = editor.private_producer(node.input[0])
        if before is None or before.op_type == "DequantizeLinear":
            continue
        if before.op_type in LIMITS:
            clips = before.output[0] in found
        elif before.op_type in ARITHMETIC:
            clips = _is_of_two(editor, before)
        else:
            clips = before.op_type not in _ELEMENTWISE
        if clips:
            found.add(node.output[0])
    return found


def _is_of_two(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    """Arithmetic of two activations that are not functions of one."""
    constant = any(scalar(editor, name) is not None for name in node.input)
    return not constant and len(set(node.input)) == 2 and not _same_root(editor, node)


def _same_root(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    """Whether a few steps back both inputs come from one tensor element by element."""

    def origins(name: str) -> set[str]:
        found, front = {name}, {name}
        for _ in range(STEPS_BACK):
            producers = [p for p in map(editor.producer, front) if p is not None and p.op_type in _ELEMENTWISE]
            names = {source for p in producers for source in p.input if source and scalar(editor, source) is None}
            front = names - found
            found |= front
        return found

    first, second = (origins(name) for name in node.input[:2])
    return bool(first & second)


def _segment(editor: GraphEditor, nodes: Sequence[onnx.NodeProto], root: str, output: str) -> Segment:
    wanted, members = {output}, []
    for node in reversed(nodes):
        if node.output[0] in wanted and node.output[0] != root:
            members.append(node)
            wanted.update(node.input)
    values = {
        name: value for node in members for name in node.input if name and (value := scalar(editor, name)) is not None
    }
    return Segment(root, output, tuple(reversed(members)), values)


# -- tables ----------------------------------------------------------------------------------------


class NotFiniteError(ValueError):
    """The function has no finite value where the input may be."""

    def __init__(self, at: float, value: float) -> None:
        super().__init__(f"its value at {at:.6g}, which its input can be, is {value}")


def table_of(
    segment: Segment, opsets: Sequence[onnx.OperatorSetIdProto], x: Quantization, y: Quantization
) -> dict[str, Array]:
    """Constants of a lookup: `table`, int8 (256,), what onnxruntime makes of each input byte (read as unsigned), and
    `slopes`, float64 (256,), how much the real function rises over that byte's step.

    Raises NotFiniteError.
    """
    steps = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32) - np.float32(x.zero_point)
    scale = np.float32(x.scale)
    points = np.concatenate([steps, steps - np.float32(0.5), steps + np.float32(0.5)]) * scale
    with np.errstate(all="ignore"):
        middle, low, high = np.split(run(segment, opsets, points), 3)
    bad = np.flatnonzero(~np.isfinite(middle))
    if bad.size:
        raise NotFiniteError(float(points[bad[0]]), float(middle[bad[0]]))
    low, high = (np.where(np.isfinite(side), side, middle).astype(np.float64) for side in (low, high))
    table = np.clip(np.rint(middle / np.float32(y.scale)) + y.zero_point, -128, 127).astype(np.int8)
    return {"table": table, "slopes": (high - low) / x.scale}


def run(segment: Segment, opsets: Sequence[onnx.OperatorSetIdProto], points: Array) -> Array:
    """The function's values at float32 points (n,), as onnxruntime computes them."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(points)]) for name in ("x", "y")]
    nodes = segment.renamed("x", "y", "inner/")
    constants = [numpy_helper.from_array(value, f"inner/{name}") for name, value in segment.constants.items()]
    graph = helper.make_graph(nodes, "table", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found: Array = new_session(model).run(None, {"x": points})[0]
    return found


# -- while a model is quantised ---------------------------------------------------------------------


def wrap(proto: onnx.ModelProto, builders: Collection[str]) -> tuple[onnx.ModelProto, dict[str, Segment]]:
    """A copy in which each segment is one call of a function, and the segments by the functions' names."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    editor = GraphEditor(proto)
    segments = {f"Table{i}": segment for i, segment in enumerate(find_segments(editor, builders))}
    for name, segment in segments.items():
        last = segment.nodes[-1]
        call = helper.make_node(name, [segment.root], [segment.output], name=last.name, domain=DOMAIN)
        writer = editor.producer(segment.output)
        assert writer is not None
        editor.replace(writer, [call])
        constants = [
            helper.make_node("Constant", [], [f"inner/{key}"], value=numpy_helper.from_array(value))
            for key, value in segment.constants.items()
        ]
        body = [*constants, *segment.renamed("x", "y", "inner/")]
        imports = [opset for opset in proto.opset_import if opset.domain in ("", "ai.onnx")]
        proto.functions.append(helper.make_function(DOMAIN, name, ["x"], ["y"], body, imports))
    if segments:
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        shapes = {segment.output: editor.shapes[segment.output] for segment in segments.values()}
        editor.remove_unused()
        known = {info.name for info in (*proto.graph.value_info, *proto.graph.output)}
        proto.graph.value_info.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items() if name not in known
        )  # fmt: skip
    return proto, segments


def unwrap(proto: onnx.ModelProto, segments: dict[str, Segment]) -> None:
    """Put the nodes back where the functions are called, in place."""
    if not segments:
        return
    editor = GraphEditor(proto)
    for call in editor.nodes(*segments):
        segment, prefix = segments[call.op_type], f"{call.name}/"
        names = {key: editor.add_constant(f"{prefix}{key}", value) for key, value in segment.constants.items()}
        nodes = segment.renamed(call.input[0], call.output[0], prefix)
        for node in nodes:
            node.input[:] = [names.get(name.removeprefix(prefix), name) for name in node.input]
        nodes[-1].name = call.name
        editor.replace(call, nodes)
    editor.commit()
    del proto.functions[:]
    kept = [opset for opset in proto.opset_import if opset.domain != DOMAIN]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
