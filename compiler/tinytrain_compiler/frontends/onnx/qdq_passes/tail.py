"""The end of a quantised model that is float: what its last quantiser leaves open is quantised here.

A result whose range is known by itself, a Softmax's, takes that range; what chooses or averages values takes the scale
of its input; any other, such as the last layer's, takes the range it has on the calibration samples.
"""

from __future__ import annotations

import numpy as np
import onnx

from ....errors import shown
from ....quantize.calibration import Calibration
from ..float_passes.edit import GraphEditor
from ..oracle import OrtSession
from .integers import MOVES
from .pairs import Parameters, dequantize, parameters_of, quantize

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_KNOWN = {"Softmax": (1 / 256, -128), "Sigmoid": (1 / 256, -128), "HardSigmoid": (1 / 256, -128), "Tanh": (1 / 128, 0)}
_WITHIN = MOVES | {"AveragePool", "GlobalAveragePool", "ReduceMean"}  # no result leaves the range of the input
_FUSED = ("Clip", "Relu")
_SMALLEST = 1e-6  # a range of zeros has a scale too


def quantize_tail(proto: onnx.ModelProto, samples: Calibration) -> list[str]:
    """Rewrite a QDQ model in place; returns notes.

    samples: as the model's input takes them. What stands between two quantisers is not touched.
    """
    editor = GraphEditor(proto)
    tail = [node for node in _tail(editor) if not _is_fused(node, editor)]
    measured = [node.output[0] for node in tail if node.op_type not in _KNOWN and not _in_front(node, editor)]
    ranges = _ranges(proto, measured, samples)
    for node in tail:
        result = node.output[0]
        p = _in_front(node, editor)
        if p is None:
            scale, zero = _KNOWN.get(node.op_type) or _scale(*ranges[result])
            p = Parameters(
                editor.add_constant(f"{result}_scale", np.array(scale, np.float32)),
                editor.add_constant(f"{result}_zero", np.array(zero, np.int8)),
            )
        real = editor.fresh(f"{result}_real")
        editor.set_output(node, 0, real)
        integers = quantize(editor, real, p)
        back = dequantize(editor, integers.output[0], p)
        back.output[0] = result
        editor.replace(node, [node, integers, back])
    editor.refresh()
    return _notes(measured, ranges, samples)


def _tail(editor: GraphEditor) -> list[onnx.NodeProto]:
    """Nodes behind which nothing is quantised any more, in order."""
    read_by_quantizer: set[str] = set()
    found = []
    for node in reversed(editor.nodes()):
        if node.op_type == "QuantizeLinear" or read_by_quantizer.intersection(node.output):
            read_by_quantizer.update(node.input)
        elif node.op_type != "DequantizeLinear" and len(node.output) == 1:
            found.append(node)
    return found[::-1]


def _is_fused(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Whether a Relu or Clip alone reads it, which becomes its limits."""
    after = editor.only_consumer(node.output[0])
    return after is not None and after.op_type in _FUSED and node.op_type not in _FUSED


def _in_front(node: onnx.NodeProto, editor: GraphEditor) -> Parameters | None:
    """Scale and zero point of what a node reads, where its results stay within that range."""
    if node.op_type not in (*_WITHIN, *_FUSED):
        return None
    source = editor.producer(node.input[0])
    while source is not None and source.op_type in (*_WITHIN, *_FUSED):  # gets those of its own input
        source = editor.producer(source.input[0])
    return parameters_of(source) if source is not None and source.op_type == "DequantizeLinear" else None


def _ranges(proto: onnx.ModelProto, names: list[str], samples: Calibration) -> dict[str, tuple[float, float]]:
    if not names:
        return {}
    values = OrtSession(proto, names).run(samples.samples)
    return {name: (min(float(v.min()), 0.0), max(float(v.max()), 0.0)) for name, v in zip(names, values, strict=True)}


def _scale(low: float, high: float) -> tuple[float, int]:
    """Of int8; the real zero is one of its steps."""
    scale = max(high - low, _SMALLEST) / 255
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))


def _notes(measured: list[str], ranges: dict[str, tuple[float, float]], samples: Calibration) -> list[str]:
    where = "generated noise: pass --calibration" if samples.is_generated else "the calibration samples"
    return [
        f"the file leaves '{shown(name)}' in float: quantised to int8 from {ranges[name][0]:.4g} to "
        f"{ranges[name][1]:.4g}, its range on {where}"
        for name in measured
    ]
