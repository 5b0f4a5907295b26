"""Is the generated C right? Host C against the NumPy reference, byte for byte, and against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import CompiledModel
from .errors import UsageError
from .frontends.onnx.quantizer import OrtSession
from .ops import Int8, operator_of
from .quantize.calibration import load_calibration
from .quantize.input_bytes import quantize_samples
from .reference import run
from .targets.host import HostModel


def verify(
    model: CompiledModel, count: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Run `count` test inputs (None: the stored ones) through all three.

    Returns {"host": {inputs, mismatched_bytes}, "onnxruntime": {within_one_step, top1_agreement, ...}}.
    within_one_step: share of the elements of all operators' outputs that differ by at most 1 when each
    operator is given onnxruntime's own inputs. end_to_end_within_one_step is of the network's output
    alone, where one early rounding may grow through the layers; onnxruntime_against_itself is the same
    share between onnxruntime with and without graph optimisation, the yardstick for it.
    """
    inputs = model.inputs(count)
    floats = _as_floats(model, inputs)
    oracle = OracleTensors(model, floats)
    outputs = oracle.device_values(model.graph.output).reshape(len(inputs), -1).astype(np.int64)
    mismatched = agree = 0
    steps = np.zeros(256, np.int64)  # elements of all operators, by distance
    end_to_end = np.zeros(256, np.int64)
    with HostModel(model.directory, model.layout) as host:
        for i, x in enumerate(inputs):
            progress(i, len(inputs))
            output, features = run(model.graph, x)
            result = host.infer(x)
            mismatched += int((output != result.output).sum() + (features != result.features).sum())
            agree += int(result.output.argmax() == outputs[i].argmax())
            end_to_end += _distances(result.output, outputs[i])
            steps += oracle.operator_distances(i)
    itself = _distances(outputs, oracle.optimised_outputs(floats))
    return {
        "host": {"inputs": len(inputs), "mismatched_bytes": mismatched},
        "onnxruntime": {
            "inputs": len(inputs),
            "elements": int(steps.sum()),
            "within_one_step": _within_one(steps),
            "identical": float(steps[0] / steps.sum()),
            "largest_step": int(np.flatnonzero(steps).max()),
            "top1_agreement": agree / len(inputs),
            "end_to_end_within_one_step": _within_one(end_to_end),
            "end_to_end_largest_step": int(np.flatnonzero(end_to_end).max()),
            "onnxruntime_against_itself": _within_one(itself),
        },
    }


class OracleTensors:
    """Every quantised tensor as onnxruntime computes it, in the device's layout."""

    def __init__(self, model: CompiledModel, samples: NDArray[np.float32]) -> None:
        self._model, self._graph = model, model.graph
        origins = self._graph.origins
        values = OrtSession(model.qdq, list(origins.values())).run(samples)
        self._values = {name: _int8(value) for name, value in zip(origins, values, strict=True)}

    def device_values(self, tensor: str) -> Int8:
        """int8 (n, *device shape)."""
        value, shape = self._values[tensor], self._graph.tensors[tensor].shape
        picture = shape if len(shape) == 3 else self._flattened(tensor)
        if picture is not None:  # NCHW order in the file, NHWC on the device
            h, w, c = picture
            value = value.reshape(-1, c, h, w).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(value).reshape(-1, *shape)

    def _flattened(self, tensor: str) -> tuple[int, ...] | None:
        """(H, W, C) of the picture that a vector is the flattened form of."""
        node = self._graph.producer(tensor)
        if node is None or not operator_of(node).keeps_order:
            return None
        shape = self._graph.tensors[node.inputs[0]].shape
        return shape if len(shape) == 3 else self._flattened(node.inputs[0])

    def operator_distances(self, sample: int) -> NDArray[np.int64]:
        """How many output elements of all operators are 0, 1, 2, ... steps away, on onnxruntime's inputs."""
        found = np.zeros(256, np.int64)
        for node in self._graph.nodes:
            if all(name in self._values for name in (*node.inputs, node.output)):
                inputs = [self.device_values(name)[sample] for name in node.inputs]
                y = operator_of(node).forward(node, self._graph.tensors, inputs)
                found += _distances(y, self.device_values(node.output)[sample])
        return found

    def optimised_outputs(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        """The network's output from onnxruntime's own integer kernels, as (n, elements) steps in device order."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            self._model.qdq.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        floats = np.concatenate([session.run(None, {name: sample[None]})[0] for sample in samples])
        tensor = self._graph.tensors[self._graph.output]
        q = tensor.quantization
        if len(tensor.shape) == 3:
            floats = floats.transpose(0, 2, 3, 1)
        steps = np.rint(floats / np.float32(q.scale)).astype(np.int64) + q.zero_point
        return steps.reshape(len(samples), -1)


def _int8(values: NDArray[Any]) -> Int8:
    """A uint8 model counts the same steps from 0 instead of -128."""
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values


def _distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Histogram (256,) of |a - b|."""
    difference = np.abs(a.astype(np.int64) - b.astype(np.int64)).reshape(-1)
    return np.bincount(difference, minlength=256)


def _within_one(histogram: NDArray[np.int64]) -> float:
    return float(histogram[:2].sum() / histogram.sum())


def verify_on_data(
    model: CompiledModel,
    data: Path,
    float_model: Path | None,
    mean: Sequence[float],
    std: Sequence[float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The host C on a whole data file: accuracy where it has labels, top-1 agreement with a float model."""
    import onnx

    shape = [d.dim_value for d in model.qdq.graph.input[0].type.tensor_type.shape.dim]
    samples = load_calibration(data, shape, mean, std, limit=2**31).samples
    found: dict[str, Any] = {"inputs": len(samples)}
    labels = _labels(data)
    inputs = quantize_samples(samples, model.graph.tensors[model.graph.input])
    answers = np.empty(len(inputs), np.int64)
    with HostModel(model.directory, model.layout) as host:
        for i, x in enumerate(inputs):
            progress(i, len(inputs))
            answers[i] = host.infer(x).output.argmax()
    if labels is not None and len(labels) == len(answers):
        found["accuracy"] = float((answers == labels).mean())
    if float_model is not None:
        floats = OrtSession(onnx.load(str(float_model))).run(samples)[0].reshape(len(samples), -1).argmax(1)
        found["float_top1_agreement"] = float((answers == floats).mean())
        if labels is not None and len(labels) == len(answers):
            found["float_accuracy"] = float((floats == labels).mean())
    return found


def _labels(data: Path) -> NDArray[np.int64] | None:
    if data.suffix != ".npz":
        return None
    with np.load(data, allow_pickle=False) as pack:
        return pack["labels"].astype(np.int64) if "labels" in pack else None


def _as_floats(model: CompiledModel, inputs: Int8) -> NDArray[np.float32]:
    """Input bytes (n, bytes) as the float samples (n, C, H, W) or (n, F) that quantise to them."""
    tensor = model.graph.tensors[model.graph.input]
    q = tensor.quantization
    x = ((inputs.astype(np.float32) - q.zero_point) * np.float32(q.scale)).reshape(-1, *tensor.shape)
    dims = [d.dim_value for d in model.qdq.graph.input[0].type.tensor_type.shape.dim]
    if len(tensor.shape) == 3:
        x = x.transpose(0, 3, 1, 2)
    if int(np.prod(dims)) != x[0].size:
        raise UsageError(f"{model.directory}: report and model disagree about the input; compile the model again")
    return np.ascontiguousarray(x.reshape(len(x), *dims[1:]), np.float32)
