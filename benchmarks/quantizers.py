"""Which models of onnxruntime's quantisers compile, and whether what compiles is right.

    python benchmarks/quantizers.py [MODEL.onnx ...] [--only TEXT] [--samples N]

Every setting quantises a small network that is made here, and each given float model. What the quantiser makes is
compiled, and the integers of the reference, which are those of the generated C, are compared with the same file in
onnxruntime. Prints one row a setting, and a last line that counts. Exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import TinyTrainError, UnsupportedModelError
from tinytrain_compiler.frontends.onnx.float_passes.runtime import new_session
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.reference import run

BOARD = "stm32f746"
CLASSES = 10
OPSET = 17

Quantizer = Callable[[Path, Path, "Samples"], None]  # float model, where to write the quantised one


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Calibration data as the quantiser asks for it: again and again from the front."""

    def __init__(self, name: str, values: NDArray[np.float32]) -> None:
        self._name, self.values = name, values
        self.rewind()

    def rewind(self) -> None:
        self._rest = iter(self.values)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        sample = next(self._rest, None)
        return None if sample is None else {self._name: sample[None]}


# -- the settings ----------------------------------------------------------------------------------

_TYPES = {
    "s8": QuantType.QInt8, "u8": QuantType.QUInt8, "s16": QuantType.QInt16, "u16": QuantType.QUInt16,
    "s4": QuantType.QInt4, "u4": QuantType.QUInt4,
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Arguments of onnxruntime's static quantiser."""

    form: str = "QDQ"  # or QOperator
    activations: str = "s8"
    weights: str = "s8"
    per_channel: bool = False
    reduce_range: bool = False
    method: str = "MinMax"
    extra: dict[str, Any] = field(default_factory=dict)
    opset: int = OPSET  # of the float model
    prepared: bool = False  # through onnxruntime's own preparation, as its guide advises

    @property
    def name(self) -> str:
        words = [self.form, f"activations {self.activations}", f"weights {self.weights}"]
        words += ["per channel"] * self.per_channel + ["reduce_range"] * self.reduce_range
        words += [self.method] * (self.method != "MinMax")
        words += [
            f"{key}={value}" if not isinstance(value, bool) or not value else key for key, value in self.extra.items()
        ]
        words += [f"opset {self.opset}"] * (self.opset != OPSET) + ["prepared"] * self.prepared
        return ", ".join(words)

    def __call__(self, source: Path, target: Path, samples: Samples) -> None:
        if self.prepared:
            prepared = source.with_name("prepared.onnx")
            quant_pre_process(source, prepared)
            source = prepared
        quantize_static(
            source,
            target,
            samples,
            quant_format=QuantFormat.QDQ if self.form == "QDQ" else QuantFormat.QOperator,
            activation_type=_TYPES[self.activations],
            weight_type=_TYPES[self.weights],
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            calibrate_method=CalibrationMethod[self.method],
            extra_options=dict(self.extra),
        )


def _settings() -> Iterator[Setting]:
    for form in ("QDQ", "QOperator"):
        for activations in ("s8", "u8"):
            for weights in ("s8", "u8"):
                for per_channel in (False, True):
                    yield Setting(form, activations, weights, per_channel)
    for form in ("QDQ", "QOperator"):
        for reduced in ("s8", "u8"):
            yield Setting(form, "u8", reduced, reduce_range=True)
        for method in ("Entropy", "Percentile"):
            yield Setting(form, "u8", "s8", method=method)
        for option in ("ActivationSymmetric", "WeightSymmetric"):
            for value in (True, False):
                yield Setting(form, "u8", "u8", extra={option: value})
                yield Setting(form, "s8", "s8", extra={option: value})
        yield Setting(form, "s8", "s8", True, extra={"WeightSymmetric": False})
        yield Setting(form, extra={"ForceQuantizeNoInputCheck": True})
        yield Setting(form, "u8", "u8", True, prepared=True)
    for option in (
        "AddQDQPairToWeight", "DedicatedQDQPair", "QDQKeepRemovableActivations", "UseQDQContribOps",
        "QuantizeBias", "QDQDisableWeightAdjustForInt32Bias", "CalibMovingAverage", "MatMulConstBOnly",
        "EnableSubgraph",
    ):  # fmt: skip
        yield Setting(extra={option: option != "QuantizeBias"}, per_channel=True)
    yield Setting("QDQ", "u8", "u8", extra={"UseQDQContribOps": True, "AddQDQPairToWeight": True})
    yield Setting(extra={"CalibTensorRangeSymmetric": True})
    yield Setting(extra={"SmoothQuant": False, "MinimumRealRange": 0.0001})
    yield Setting(extra={"OpTypesToExcludeOutputQuantization": ["Conv"]})
    yield Setting(extra={"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1, "Gemm": 0}}, per_channel=True)
    for opset in (11, 13, 15, 19, 21, 22, 23):
        yield Setting("QDQ", "u8", "s8", opset >= 13, opset=opset)
    yield Setting("QOperator", "u8", "s8", opset=11)
    yield Setting("QOperator", "u8", "s8", opset=21)
    for activations, weights in (("s16", "s8"), ("u16", "u8"), ("s8", "s16"), ("s8", "s4"), ("u8", "u4")):
        yield Setting("QDQ", activations, weights)
        yield Setting("QDQ", activations, weights, opset=21)


def _dynamic(source: Path, target: Path, samples: Samples) -> None:
    quantize_dynamic(source, target, weight_type=QuantType.QUInt8)


def _float16(source: Path, target: Path, samples: Samples) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def _four_bits(source: Path, target: Path, samples: Samples) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16)
    quantizer.process()
    onnx.save(quantizer.model.model, target)


def settings() -> dict[str, Quantizer]:
    """By name; those of the static quantiser first."""
    others: dict[str, Quantizer] = {"dynamic": _dynamic, "float16": _float16, "MatMulNBits": _four_bits}
    return {setting.name: setting for setting in _settings()} | others


# -- the network ------------------------------------------------------------------------------------


def network(opset: int = OPSET, side: int = 16) -> onnx.ModelProto:
    """Convolution, depthwise convolution, residual Add, pools, Gemm, Softmax; weights that are not symmetric."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(values: NDArray[Any], name: str) -> str:
        constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(op: str, x: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(op, [x, *inputs], [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def weights(*shape: int) -> NDArray[Any]:
        return (rng.standard_normal(shape) + rng.uniform(0, 0.6)) * np.prod(shape[1:]) ** -0.5

    def conv(x: str, inputs: int, outputs: int, kernel: int, group: int = 1, **attributes: Any) -> str:
        w = constant(weights(outputs, inputs // group, kernel, kernel), f"w{len(nodes)}")
        b = constant(rng.standard_normal(outputs) * 0.2, f"b{len(nodes)}")
        return node("Conv", x, w, b, group=group, pads=[kernel // 2] * 4, **attributes)

    limits = constant(np.float32(0), "low"), constant(np.float32(6), "high")
    x = node("Relu", conv("input", 3, 8, 3, strides=[2, 2]))
    y = node("Clip", conv(x, 8, 8, 3, group=8), *limits)
    x = node("Add", conv(y, 8, 8, 1), x)
    x = node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("Relu", conv(x, 8, 16, 3))
    x = node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = node("Flatten", node("GlobalAveragePool", x))
    x = node("Gemm", x, constant(weights(CLASSES, 16), "w"), constant(rng.standard_normal(CLASSES), "b"), transB=1)
    x = node("Softmax", x, axis=1)
    nodes[-1].output[0] = "output"
    ends = [("input", (1, 3, side, side)), ("output", (1, CLASSES))]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "network", infos[:1], infos[1:], constants)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


# -- one row ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What became of one setting."""

    setting: str
    result: str  # accepted, refused, wrong, or: not made, where the quantiser itself refuses
    reason: str = ""
    beyond: int = 0  # output bytes that are more than one step from onnxruntime's
    of: int = 0
    largest: int = 0  # steps
    agreement: float = 0.0  # top-1

    @property
    def figures(self) -> str:
        if not self.of:
            return self.reason
        return (
            f"{self.beyond:3} of {self.of} bytes beyond one step (largest {self.largest}), top-1 {self.agreement:.1%}"
        )


def quantised_row(name: str, quantizer: Quantizer, proto: onnx.ModelProto, samples: NDArray[np.float32]) -> Row:
    """Quantise a float model, compile it and compare it; what raises becomes the row's reason."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "quantised.onnx"
        onnx.save(proto, source)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
                quantizer(source, target, Samples(proto.graph.input[0].name, samples))
        except Exception as error:  # the quantiser's exceptions share no base class
            return Row(name, "not made", " ".join(str(error).split()))
        return compiled_row(name, target, samples)


def compiled_row(name: str, path: Path, samples: NDArray[np.float32]) -> Row:
    """Compile a quantised file and compare it with the same file in onnxruntime."""
    try:
        graph = compile_model(path, BOARD, name="net").graph
    except UnsupportedModelError as error:
        return Row(name, "refused", "; ".join(dict.fromkeys(f"{p.op}: {p.reason}" for p in error.problems)))
    except TinyTrainError as error:
        return Row(name, "wrong" if error.exit_code == 1 else "refused", str(error))
    session = new_session(onnx.load(path))
    (entry,) = session.get_inputs()
    q = graph.tensors[graph.output].quantization
    inputs = quantize_samples(samples, graph.tensors[graph.input], graph.sample_layout)
    ours = np.stack([run(graph, x)[0] for x in inputs]).astype(np.int64)
    floats = np.concatenate([session.run(None, {entry.name: x[None]})[0] for x in samples])
    floats = graph.answer_layout.to_device(floats).reshape(len(samples), -1)
    theirs = np.clip(np.rint(floats / q.scale).astype(np.int64) + q.zero_point, -128, 127)
    steps = np.abs(ours - theirs)
    # Compiling compared every operator with onnxruntime; end to end, an early rounding may grow to a few steps.
    agreement = float(np.mean(ours.max(1) == np.take_along_axis(ours, floats.argmax(1)[:, None], 1)[:, 0]))
    wrong = agreement < 0.9 or float(np.mean(steps > 4)) > 0.01
    result = "wrong" if wrong else "accepted"
    return Row(name, result, "", int((steps > 1).sum()), steps.size, int(steps.max()), agreement)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="float models to quantise besides the network made here")
    parser.add_argument("--only", default="", metavar="TEXT", help="only settings whose name holds this")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="calibration samples (default: 32)")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    wrong = 0
    for path in [None, *given.models]:
        wrong += _table(path, given.only, given.samples)
    return 1 if wrong else 0


def _table(path: Path | None, only: str, count: int) -> int:
    """Print the rows of one model; returns how many are wrong."""
    print(f"\n{path.name if path else 'the network made here'}\n")
    counts: Counter[str] = Counter()
    for name, quantizer in settings().items():
        opset = quantizer.opset if isinstance(quantizer, Setting) else OPSET
        if only not in name or (path is not None and opset != OPSET):  # a file has the opset it has
            continue
        proto = network(opset) if path is None else onnx.load(path)
        shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
        samples = np.random.default_rng(1).uniform(-1, 1, (count, *shape)).astype(np.float32)
        row = quantised_row(name, quantizer, proto, samples)
        counts[row.result] += 1
        print(f"{row.setting:<75}  {row.result:<8}  {row.figures}".rstrip())
    print("\n" + ", ".join(f"{n} {result}" for result, n in sorted(counts.items())))
    return counts["wrong"]


if __name__ == "__main__":
    sys.exit(main())
