"""onnxruntime as a library of ours uses it: on the CPU, quiet, and the same on every run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

FATAL = 4  # onnxruntime's severity: its errors reach us as exceptions, and the terminal is the user's
_PROBE_IR, _FIRST_WITH_SCALES = 8, 10


def new_session(proto: onnx.ModelProto, optimized: Path | None = None) -> Any:
    """An InferenceSession that runs the graph as it is written.

    With `optimized`, onnxruntime's basic rewrites (the ones that stay within standard ONNX) run first and
    their result is saved there.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if optimized is None else level.ORT_ENABLE_BASIC
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def optimize(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model after onnxruntime's basic rewrites: BatchNorm in Convs, no Identity, no Dropout, MatMul+Add as Gemm.

    The operator sets it declares besides are dropped again.
    """
    with tempfile.TemporaryDirectory(prefix="tinytrain-") as folder:
        path = Path(folder) / "optimized.onnx"
        new_session(proto, optimized=path)
        result = onnx.load(path)
    used = {node.domain for node in result.graph.node}
    imports = [o for o in result.opset_import if o.domain in used]
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result


def runs_opset(version: int) -> bool:
    """Whether the installed onnxruntime runs quantised models of this standard operator set."""
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    constants = [
        onnx.helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [1.0]),
        onnx.helper.make_tensor("zero", onnx.TensorProto.INT8, [], [0]),
    ]
    graph = onnx.helper.make_graph(nodes, "probe", ends[:1], ends[1:], constants)
    opset = onnx.helper.make_opsetid("", max(version, _FIRST_WITH_SCALES))
    try:
        new_session(onnx.helper.make_model(graph, ir_version=_PROBE_IR, opset_imports=[opset]))
    except Exception:  # onnxruntime's exceptions share no base class of their own
        return False
    return True
