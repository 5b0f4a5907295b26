"""Post-training quantisation by onnxruntime: int8 asymmetric activations, int8 symmetric weights per channel.

The result is a QDQ model: every layer stands between DequantizeLinear and QuantizeLinear, and that is
verified here, because onnxruntime leaves a layer in float where it sees no use in quantising it.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...errors import Problem, UnsupportedModelError, UsageError, first_line
from ...quantize.calibration import Calibration
from . import operators  # noqa: F401  (registers the builders, which say what is quantised)
from .float_passes.activations import clip_limits
from .float_passes.edit import GraphEditor
from .float_passes.runtime import FATAL
from .qdq_importer import BUILDERS
from .segments import unwrap, wrap

Progress = Callable[[int, int], None]  # samples done, samples in all

# The smallest range a tensor or weight channel is given. Without it a channel of zeros gets scale 1 and a dead
# Relu scale 1 with zero point 0, which no longer clips; and a channel of 1e-20s gets a scale of no use to 32 bits.
MIN_REAL_RANGE = 1e-4

MAX_LAYERS = 1000  # its time grows with their square: a minute for so many


def quantize(proto: onnx.ModelProto, calibration: Calibration, progress: Progress | None = None) -> onnx.ModelProto:
    """The QDQ model of a canonical float model, its ranges the smallest and largest values over the samples.

    proto: from canonicalize; calibration.samples: float32 (n, *input shape without batch). Raises
    UnsupportedModelError naming the nodes that stay float, UsageError where the quantiser cannot cope.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    options = {
        # Else pools and reshapes at the input would stay float.
        "ForceQuantizeNoInputCheck": True,
        "MinimumRealRange": MIN_REAL_RANGE,
        # A removed Clip is done by saturation, which can't do it where 0 (always representable) is outside.
        "QDQKeepRemovableActivations": _has_clip_without_zero(proto),
    }
    proto, segments = wrap(proto, BUILDERS)
    if len(proto.graph.node) > MAX_LAYERS:
        raise UsageError(
            f"the network has {len(proto.graph.node):,} layers, at most {MAX_LAYERS:,} can be quantised here; "
            "pass a model that is quantised already (QDQ)"
        )
    reader = _Reader(proto.graph.input[0].name, calibration.samples, progress)
    with tempfile.TemporaryDirectory(prefix="tinytrain-") as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "qdq.onnx"
        onnx.save(proto, source)
        try:
            quantize_static(
                source,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*sorted(BUILDERS), *segments],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        except Exception as e:  # numbers beyond float32 show as whatever the quantiser stumbles over
            raise UsageError(
                f"onnxruntime cannot quantise the model: {first_line(e)}; look for weights or samples of huge values"
            ) from e
        result = onnx.load(target)
    _quantize_input_activation(result)
    _verify(result)
    _keep_float(proto, result)
    unwrap(result, segments)
    return result


class _Reader:
    """Calibration samples one by one, as onnxruntime asks for them."""

    def __init__(self, name: str, samples: NDArray[np.float32], progress: Progress | None) -> None:
        self._name = name
        self._samples = samples
        self._progress = progress
        self._at = 0

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        if self._progress is not None:
            self._progress(self._at, len(self._samples))
        if self._at == len(self._samples):
            return None
        self._at += 1
        return {self._name: self._samples[self._at - 1 : self._at]}

    def __len__(self) -> int:
        return len(self._samples)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's advice about pre-processing is for other users than ours."""
    import onnxruntime as ort

    ort.set_default_logger_severity(FATAL)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _has_clip_without_zero(proto: onnx.ModelProto) -> bool:
    editor = GraphEditor(proto)
    limits = [clip_limits(node, editor) for node in editor.nodes("Clip")]
    return any(each is not None and (each[0] > 0 or each[1] < 0) for each in limits)


def _quantize_input_activation(proto: onnx.ModelProto) -> None:
    """Quantise the input in front of a Relu or Clip, which onnxruntime leaves float there, with its output's scale.

    That loses nothing: what saturates is what the Relu or Clip removes.
    """
    editor = GraphEditor(proto)
    source = proto.graph.input[0].name
    for node in editor.consumers(source):
        if node.op_type not in ("Relu", "Clip"):
            continue
        after = next((n for n in editor.consumers(node.output[0]) if n.op_type == "QuantizeLinear"), None)
        if after is None:
            continue  # the quantiser left this one in float too, which _verify reports
        integers, back = editor.fresh(f"{source}_quantized"), editor.fresh(f"{source}_dequantized")
        parameters = list(after.input[1:])
        pair = [
            helper.make_node("QuantizeLinear", [source, *parameters], [integers], name=editor.fresh(f"{source}_q")),
            helper.make_node("DequantizeLinear", [integers, *parameters], [back], name=editor.fresh(f"{source}_dq")),
        ]
        editor.replace(node, [*pair, node])
        editor.set_input(node, 0, back)
    editor.commit()


def _keep_float(proto: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """What is better left in float between two scales: parameters of LayerNormalization, and products in front of their
    factors, which one requantisation takes in together."""
    editor = GraphEditor(result)
    given = GraphEditor(proto)
    parameters = {node.name: list(node.input[1:]) for node in given.nodes("LayerNormalization")}
    for node in editor.nodes("LayerNormalization"):
        names = [editor.add_constant(f"{name}_float", given.constants[name]) for name in parameters[node.name]]
        editor.set_inputs(node, [node.input[0], *names])
    for node in editor.nodes("MatMul"):
        steps = [node.output[0]]
        for op in ("QuantizeLinear", "DequantizeLinear", "Mul"):
            after = editor.only_consumer(steps[-1])
            if after is None or after.op_type != op:
                break
            steps.append(after.output[0])
        else:
            assert after is not None
            factor = editor.producer(after.input[1])
            if factor is not None and factor.input[0] in editor.constants:
                editor.set_input(after, 0, node.output[0])
    editor.remove_unused()
    editor.commit()


def _verify(proto: onnx.ModelProto) -> None:
    """Raise UnsupportedModelError where a layer is not between scales, or its scales are no positive numbers."""
    graph = proto.graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    constants = {t.name: t for t in graph.initializer}
    outputs = {o.name for o in graph.output}
    problems = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = numpy_helper.to_array(constants[node.input[1]])
            if not np.all(np.isfinite(scale) & (scale > 0)):
                problems.append(Problem(node.input[0], "tensor", f"its range gives the scale {scale.max()}", _RANGE))
            continue
        floats = {
            name for name in node.input if name not in constants or constants[name].data_type == TensorProto.FLOAT
        }
        loose = floats - dequantized - {""} - (set(node.input[1:]) if node.op_type in ("Clip", "Resize") else set())
        if loose or any(n in outputs or any(r != "QuantizeLinear" for r in readers.get(n, [])) for n in node.output):
            problems.append(Problem(node.name, node.op_type, "onnxruntime's quantiser leaves it in float", _LONELY))
    if problems:
        raise UnsupportedModelError(problems)


_RANGE = "look for weights or samples of huge values"
_LONELY = "let it follow a layer with weights, an Add or a pool: alone it is nothing to compile"
