"""ONNX's own tests of its operators (onnx.backend.test.case.node) through the compiler.

Such a test is a model of one node, its inputs and expected outputs. All inputs but one become constants, and each
output is a test of its own. The device takes one sample at a time: where the first axis is a batch, which shows in the
expected output, its first sample is kept; where it is not, a Squeeze stands in front of the node.

A test is right if the compiled integers are as close to ONNX's definition as int8 allows: the float model is run on
the device's own input, which is the test's rounded to 256 steps calibrated on it, and no output may differ by more
than one step of the output for every layer of the compiled graph, besides what the rounding of 8-bit weights explains.
The output saturates at the ends of its range, which is that of the test's own outputs: an input that was rounded up may
lie a little beyond.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.graph import Quantization
from tinytrain_compiler.quantize.input_bytes import quantize_samples
from tinytrain_compiler.reference import run

RIGHT, REFUSED, WRONG, NOT_TRIED = "right", "refused", "wrong", "not tried"
BOARD = "mps2_an500"
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Mul")  # as their second input
_SLACK = 1.02  # float32 against real numbers, in steps

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    name: str
    op: str
    verdict: str
    detail: str = ""  # why, or the largest difference in steps


def cases(modules: Sequence[str] | None = None) -> list[Any]:
    """The tests (name, model, data_sets) of these modules of onnx.backend.test.case.node, or of all of them."""
    package = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for module in modules or [found.name for found in pkgutil.iter_modules(package.__path__)]:
            importlib.import_module(f"{package.__name__}.{module}")
    return sorted(package._NodeTestCases, key=lambda case: case.name)


def operator_of(case: Any) -> str:
    """A test of what an operator's definition expands to counts as the operator's."""
    name = case.name.removeprefix("test_")
    return case.model.graph.node[0].op_type if "_expanded" not in name else "(expanded definitions)"


def outcomes(case: Any, folder: Path) -> Iterator[Outcome]:
    """One for each output of a test; raises what is no TinyTrainError."""
    op, several = operator_of(case), len(case.model.graph.output) > 1
    for i, info in enumerate(case.model.graph.output):
        name = f"{case.name}, {info.name}" if several else case.name
        adapted = _adapt(case, i)
        if isinstance(adapted, str):
            yield Outcome(name, op, NOT_TRIED, adapted)
        else:
            yield _try(name, op, *adapted, folder)


def _try(name: str, op: str, model: onnx.ModelProto, x: Floats, folder: Path) -> Outcome:
    path, samples = folder / "node.onnx", folder / "samples.npy"
    onnx.save(model, path)
    np.save(samples, x)
    try:
        graph = compile_model(path, BOARD, calibration=samples, name="node").graph
    except TinyTrainError as error:
        verdict = REFUSED if error.exit_code in (2, 3) else WRONG
        return Outcome(name, op, verdict, " ".join(str(error).split()))
    tensor, output = graph.tensors[graph.input], graph.tensors[graph.output]
    integers, _ = run(graph, quantize_samples(x, tensor, graph.sample_layout)[0])
    got = (integers.astype(np.float64) - output.quantization.zero_point) * output.quantization.scale
    rounded = _rounded(x, tensor.quantization)
    exact, y = evaluate(model, x), evaluate(model, rounded)
    if got.size != y.size:
        return Outcome(name, op, WRONG, f"{got.size} values instead of {y.size}")

    def on_device(values: NDArray[Any]) -> NDArray[np.float64]:
        return graph.answer_layout.to_device(np.broadcast_to(values, y.shape)).astype(np.float64).reshape(-1)

    y = np.clip(y, exact.min(), exact.max())
    steps = np.abs(got.reshape(-1) - on_device(y)) / output.quantization.scale
    allowed = _SLACK * len(graph.nodes) + on_device(_of_weights(model, rounded)) / output.quantization.scale
    farthest = int(np.argmax(steps - allowed))
    detail = f"{steps[farthest]:.2f} steps where {allowed[farthest]:.2f} can be explained"
    return Outcome(name, op, RIGHT if (steps <= allowed).all() else WRONG, detail)


def _rounded(x: Floats, q: Quantization) -> Floats:
    """x as the device sees it."""
    steps = np.clip(np.rint(x / np.float32(q.scale)) + q.zero_point, -128, 127)
    return ((steps - q.zero_point) * np.float32(q.scale)).astype(np.float32)


def _of_weights(model: onnx.ModelProto, x: Floats) -> NDArray[Any]:
    """How far half a step of every 8-bit weight, all in the worst direction, moves each output."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    if not any(each.op_type in _WITH_WEIGHTS for each in model.graph.node):
        return np.zeros(())
    (node,) = (each for each in changed.graph.node if each.op_type in _WITH_WEIGHTS)
    for tensor in changed.graph.initializer:
        if tensor.name in list(node.input)[1:]:
            values = numpy_helper.to_array(tensor)
            at = list(node.input).index(tensor.name)
            if at == 1:
                half = np.full_like(values, np.abs(values).max(initial=0) / 254)
            elif node.op_type == "BatchNormalization" and at == 4:
                continue
            else:
                half = np.zeros_like(values)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    return np.abs(evaluate(changed, np.abs(x)))


# -- the model that is compiled ----------------------------------------------------------------------


def evaluate(model: onnx.ModelProto, x: Floats) -> NDArray[Any]:
    """ONNX's own reference of the model's output."""
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    return np.asarray(y)


def _adapt(case: Any, output: int) -> tuple[onnx.ModelProto, Floats] | str:
    """(a model of one input and one output, its input), or why there is none."""
    if not case.data_sets:
        return "it comes without data"
    inputs, outputs = case.data_sets[0]
    expected, graph = outputs[output], case.model.graph
    if not all(isinstance(value, np.ndarray | np.generic) for value in (*inputs, expected)):
        return "its inputs or outputs are no tensors"
    inputs = [np.asarray(value) for value in inputs]
    named = dict(zip((info.name for info in graph.input), inputs, strict=False))
    data = next((name for name, value in named.items() if value.dtype == np.float32 and value.ndim), None)
    if data is None:
        return "it has no input of float32"
    x = named[data]
    if expected.dtype != np.float32:
        return f"its output is {expected.dtype}"
    if 0 in x.shape or 0 in expected.shape:
        return "its tensors are empty"
    for same_batch in (False, True):
        constants = {name: value for name, value in named.items() if name != data}
        if same_batch:
            constants = {n: v[:1] if v.ndim == x.ndim and len(v) == len(x) else v for n, v in constants.items()}
        model = _model(case.model, data, x[:1].shape, constants, output)
        with contextlib.suppress(Exception):
            y = evaluate(model, x[:1])
            if y.shape[:1] == (1,) and np.allclose(y, expected[:1], 1e-3, 1e-5):
                return model, x[:1]
    constants = {name: value for name, value in named.items() if name != data}
    lifted = _model(case.model, data, x.shape, constants, output, lift=True)
    with contextlib.suppress(Exception):
        if np.allclose(evaluate(lifted, x[None]), expected[None], 1e-3, 1e-5):
            return lifted, x[None]
    return "ONNX's reference does not give what it expects"


def _model(
    proto: onnx.ModelProto,
    data: str,
    shape: Sequence[int],
    constants: Mapping[str, NDArray[Any]],
    output: int,
    lift: bool = False,
) -> onnx.ModelProto:
    """The test's model with one input of this shape and one output; lift: with a batch axis of its own around both."""
    model = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = model.graph
    result = graph.output[output].name
    del graph.input[:], graph.output[:]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    name = data
    if lift:
        shape, name, end = (1, *shape), "lifted_input", "lifted_output"
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "lifted_axis"))
        graph.node.insert(0, helper.make_node("Squeeze", [name, "lifted_axis"], [data]))
        graph.node.append(helper.make_node("Unsqueeze", [result, "lifted_axis"], [end]))
        result = end
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))
    return model
