"""Results that a quantised model leaves in float, at its end or between two layers, are quantised here.

PyTorch's quantiser leaves the Add behind a convolution and a mean so, and most leave the last layer. A result whose
range is known by itself, a Softmax's, takes that range; what chooses or averages values takes the scale of its input;
any other takes the range it has on the calibration samples. Element-wise functions of one quantised tensor stay float:
they become tables. Weights in float are left to the importer, which refuses them by name.
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
_ELEMENTWISE = (
    *_FUSED, "Abs", "Add", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max",
    "Min", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub",
    "Swish", "Tanh",
)  # fmt: skip
_SMALLEST = 1e-6  # a range of zeros has a scale too


def quantize_float_results(proto: onnx.ModelProto, samples: Calibration) -> list[str]:
    """Rewrite a QDQ model in place; returns notes. samples: as the model's input takes them."""
    editor = GraphEditor(proto)
    sources = _sources(editor)
    found = [node for node in editor.nodes() if _is_left(node, sources, editor)]
    measured = [n.output[0] for n in found if n.op_type not in _KNOWN and not _parameters(n, editor)]
    beside = [n.output[0] for n in found if any(r.op_type == "QuantizeLinear" for r in editor.consumers(n.output[0]))]
    ranges = _ranges(proto, measured, samples)
    for node in found:
        result = node.output[0]
        p = _parameters(node, editor)
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
        for other in [n for n in editor.consumers(result) if n.op_type == "QuantizeLinear"]:
            editor.remove([other])  # of the same scale
            editor.replace_uses(other.output[0], integers.output[0])
    editor.refresh()
    notes = [f"the file also reads '{shown(name)}' in float: it is read as quantised" for name in beside]
    return notes + _notes(measured, ranges, samples)


def _sources(editor: GraphEditor) -> dict[str, str]:
    """For each float result that is an element-wise function of one dequantised tensor alone: of which."""
    found = {node.output[0]: node.output[0] for node in editor.nodes("DequantizeLinear")}
    weights = {n.output[0] for n in editor.nodes("DequantizeLinear") if n.input[0] in editor.constants}
    for node in editor.nodes(*_ELEMENTWISE):
        read = {found.get(name, "") for name in node.input if name and name not in editor.constants} - weights
        if len(read) == 1 and "" not in read:
            found[node.output[0]] = read.pop()
    return found


def _is_left(node: onnx.NodeProto, sources: dict[str, str], editor: GraphEditor) -> bool:
    """Whether somebody reads a node's result as a float that could not be computed in integers."""
    if node.op_type in _PAIR or len(node.output) != 1:
        return False
    result = node.output[0]
    readers = editor.consumers(result)
    if result in editor.output_names:
        return True
    if node.op_type not in _FUSED and len(readers) == 1 and readers[0].op_type in _FUSED:
        return False  # becomes its limits

    def takes_floats(reader: onnx.NodeProto) -> bool:
        source = sources.get(result)
        return reader.op_type == "QuantizeLinear" or (source is not None and sources.get(reader.output[0]) == source)

    return not all(takes_floats(reader) for reader in readers)


def _parameters(node: onnx.NodeProto, editor: GraphEditor) -> Parameters | None:
    """Those with which its result is quantised elsewhere, or those of what it reads; None where neither is there."""
    readers = editor.consumers(node.output[0])
    while len(readers) == 1 and readers[0].op_type in MOVES:
        readers = editor.consumers(readers[0].output[0])
    quantizers = [n for n in readers if n.op_type == "QuantizeLinear"]
    return parameters_of(quantizers[0]) if quantizers else _in_front(node, editor)


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
