"""Which ONNX operators can be compiled: all nodes against the rules, and one run of the whole model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from ...errors import Problem, UnsupportedModelError, UsageError, first_line
from . import operators  # noqa: F401  (registers them)
from .alternatives import ALTERNATIVES, DYNAMIC, FOUR_BITS, GENERIC_FIX, STATIC
from .file import input_shape, is_quantized
from .float_passes.edit import GraphEditor, default_opset
from .float_passes.fold_constants import fold_constants
from .float_passes.layer_norm import recognize_layer_norm
from .float_passes.reshapes import RESHAPES
from .float_passes.runtime import new_session
from .float_passes.windows import explicit_windows
from .qdq_importer import BUILDERS
from .rule import Complaint, Context, Findings, Rule, registered_rules
from .segments import ACTIVATIONS, COMBINATIONS, lonely

_ANY_RANK = frozenset(
    {
        *RESHAPES, "Transpose", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear", "MatMul", "Softmax",
        "LayerNormalization", "Add", "Sub", "Mul", "Div", "Relu", "Clip", "ReduceMean", "ReduceMax", *ACTIVATIONS,
        *COMBINATIONS,
        "Concat", "Slice", "Split", "Gather", "Pad",
    }
)  # fmt: skip


def support_table() -> list[tuple[str, str]]:
    """(operator, what of it is supported), by name."""
    return [(op, _doc(rule)) for op, rule in sorted(registered_rules().items())]


def check_supported(proto: onnx.ModelProto) -> None:
    """Raise UnsupportedModelError with every node that cannot be compiled; return where there is none.

    proto: from load_model. Constant subgraphs are folded first, so they may use any operator. Raises UsageError where
    onnxruntime cannot run the model.
    """
    proto = fold_constants(proto)
    editor = GraphEditor(onnx.ModelProto.FromString(proto.SerializeToString()))
    recognize_layer_norm(editor)
    editor.remove_unused()
    quantized = is_quantized(proto)
    problems = []
    for node in _to_judge(editor):
        for reason, fix in _findings(Context(node, editor, quantized), default_opset(proto)):
            problems.append(Problem(node.name or node.output[0], _spelled(node), reason, fix))
    problems += [_combines(node) for node in lonely(editor, BUILDERS)]
    if not problems and (output := proto.graph.output[0].name) not in editor.shapes:
        problems.append(Problem(output, "output", "its shape cannot be inferred", "export the model with fixed shapes"))
    if problems:
        raise UnsupportedModelError(problems)
    _dry_run(proto)


def _combines(node: onnx.NodeProto) -> Problem:
    """Of an element-wise node that no table can compute."""
    reason = "it combines several computed tensors, or constants of several values"
    return Problem(
        node.name or node.output[0], node.op_type, reason, f"supported: {_doc(registered_rules()[node.op_type])}"
    )


def _spelled(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _doc(rule: Rule) -> str:
    return " ".join((rule.__doc__ or "").split())


def _to_judge(editor: GraphEditor) -> Iterator[onnx.NodeProto]:
    """All nodes but the arithmetic on scales in a dynamically quantised model, which would repeat the complaint."""
    dynamic: set[str] = set()
    for node in editor.nodes():
        if node.op_type in DYNAMIC:
            dynamic.update(node.output)
        elif node.op_type in ("Add", "Cast", "Mul") and dynamic.intersection(node.input):
            dynamic.update(node.output)
            continue
        yield node


def _unknown(node: onnx.NodeProto, opset: int) -> Complaint:
    """What to say about an operator without a rule."""
    if node.op_type in DYNAMIC:
        return "it is quantised dynamically, with scales computed while the model runs", STATIC
    if node.op_type in FOUR_BITS:
        return "its weights have 4 bits or come in blocks", "quantise to 8 bits, or pass the float model"
    if node.op_type.startswith(("QLinear", "QGemm")):
        return "it lacks a zero point, or its scales are computed by the model", "quantise in QDQ format"
    fix = ALTERNATIVES.get(node.op_type, GENERIC_FIX)
    if node.domain not in ("", "ai.onnx"):
        return f"operators of the domain '{node.domain}' are not supported", fix
    known = onnx.defs.has(node.op_type, opset, "")
    return "the operator is not supported" if known else "there is no such operator in ONNX", fix


def _findings(c: Context, opset: int) -> Findings:
    standard = c.node.domain in ("", "ai.onnx")
    rule = registered_rules().get(c.node.op_type) if standard else None
    if rule is None:
        yield _unknown(c.node, opset)
        return
    found = list(rule(c))
    for reason, fix in found:
        supported = f"supported: {_doc(rule)}"
        yield reason, f"{fix}; {supported}" if fix else supported
    shapes = [c.shape(i) for i in range(len(c.node.input)) if c.has(i)]
    if not found and c.output_shape() is None and None not in shapes:
        yield f"its inputs of shapes {', '.join(map(str, shapes))} don't fit together", "export the model again"
    shape = next((c.shape(i) for i in range(len(c.node.input)) if c.has(i) and not c.is_constant(i)), None)
    if c.node.op_type not in _ANY_RANK and shape is not None and len(shape) not in (2, 3, 4):
        yield f"its input has {len(shape)} dimensions {shape}", "reshape it to (1, C, H, W), (1, C, L) or (1, F)"


def _dry_run(proto: onnx.ModelProto) -> None:
    """Run the model on zeros: shapes of weights and scales that don't fit show nowhere else. Raises UsageError."""
    editor = GraphEditor(onnx.ModelProto.FromString(proto.SerializeToString()))
    explicit_windows(editor)  # onnxruntime refuses some of ONNX's spellings of padding
    editor.commit()
    try:
        session = new_session(editor.proto)
        session.run(None, {proto.graph.input[0].name: np.zeros(input_shape(proto), dtype=np.float32)})
    except Exception as e:  # onnxruntime's exceptions share no base class of their own
        raise UsageError(
            f"the model cannot be run, its layers don't fit together: {first_line(e)}; export it again"
        ) from e
