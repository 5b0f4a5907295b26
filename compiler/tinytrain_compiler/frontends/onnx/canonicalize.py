"""Bring a supported float model into the few forms the quantiser and the importer know.

Out: Conv, Gemm (transB=1, bias (N,)), MatMul of two activations, LayerNormalization, Relu, Clip, Add of two
activations, GlobalAveragePool, AveragePool, MaxPool, Reshape with a constant shape, Transpose, Slice, Softmax. Same
outputs, opset 17 or newer, every node named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ...errors import Problem, UnsupportedModelError
from .file import is_quantized
from .float_passes.activations import hoist_activations, merge_activations
from .float_passes.affine import fold_affine, fold_into_rows, reciprocal_constants
from .float_passes.cleanup import name_nodes, remove_no_ops
from .float_passes.concat import pad_for_constants
from .float_passes.conv_transpose import conv_transpose_to_conv
from .float_passes.edit import Array, GraphEditor, default_opset
from .float_passes.fold_constants import fold_constants
from .float_passes.layer_norm import recognize_layer_norm
from .float_passes.matmul import matmul_to_gemm, normalize_gemm, scale_behind_matmul
from .float_passes.pooling import reduce_mean_to_pool
from .float_passes.reshapes import unify_reshapes
from .float_passes.runtime import optimize
from .float_passes.windows import explicit_windows

TARGET_OPSET = 17

Pass = Callable[[GraphEditor], None]

_PASSES: tuple[Pass, ...] = (
    name_nodes,
    remove_no_ops,
    pad_for_constants,
    conv_transpose_to_conv,
    reduce_mean_to_pool,
    scale_behind_matmul,
    matmul_to_gemm,
    normalize_gemm,
    fold_into_rows,
    fold_affine,
    reciprocal_constants,
    unify_reshapes,
    hoist_activations,
    merge_activations,
    explicit_windows,
    name_nodes,
)


def canonicalize(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The canonical form of a loaded and supported model (load_model, check_supported), as a new proto.

    A quantised model (QDQ) only gets its windows and names spelled out. Raises UnsupportedModelError, naming the
    layers, where folding makes weights infinite or no numbers.
    """
    quantized = is_quantized(proto)
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    # onnxruntime refuses two nodes of one name, and some of ONNX's spellings of padding.
    _apply((name_nodes, explicit_windows), proto)
    if not quantized:
        if default_opset(proto) < TARGET_OPSET:
            from onnx import version_converter

            proto = version_converter.convert_version(proto, TARGET_OPSET)
        proto = fold_constants(proto)
        _apply((recognize_layer_norm,), proto)  # onnxruntime moves Transposes in between its nodes
        proto = fold_constants(optimize(proto))
        with np.errstate(all="ignore"):
            _apply(_PASSES, proto)
        _check_weights(proto)
    return proto


def _check_weights(proto: onnx.ModelProto) -> None:
    editor = GraphEditor(proto)
    bad = {name for name, values in editor.constants.items() if values.dtype.kind == "f" and not _finite(values)}
    reason = "folding the layers around it makes its weights infinite or no numbers"
    fix = "look for a BatchNormalization with variance 0, or for huge values"
    problems = [
        Problem(node.name, node.op_type, reason, fix)
        for node in editor.nodes()
        if node.op_type != "Clip" and bad.intersection(node.input)
    ]
    if problems:
        raise UnsupportedModelError(problems)


def _finite(values: Array) -> bool:
    return bool(np.isfinite(values).all())


def _apply(passes: Sequence[Pass], proto: onnx.ModelProto) -> None:
    """Run passes in place, with shapes inferred and the graph verified after each."""
    for each in passes:
        editor = GraphEditor(proto)
        each(editor)
        editor.remove_unused()
        editor.refresh()
        _verify(proto, each.__name__)


def _verify(proto: onnx.ModelProto, after: str) -> None:
    """Raise AssertionError, naming the pass, where the graph is no longer valid: a bug of ours."""
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as e:
        raise AssertionError(f"after {after}: {e}") from e
