"""Is the generated C right? Host C against the NumPy reference, byte for byte, and against the model's oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import CompiledModel
from .frontends import float_outputs
from .ops import Int8
from .oracle import STEPS, Oracle, distances, operator_distances
from .quantize.calibration import load_samples
from .quantize.input_bytes import quantize_samples
from .reference import run
from .targets.host import HostModel

Progress = Callable[[int, int], None]  # inputs done, inputs in all
Histogram = NDArray[np.int64]  # elements by distance


def verify(
    model: CompiledModel, count: int | None = None, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Run `count` test inputs (None: the stored ones) through the C, the reference and, where there is one, the oracle.

    Returns {"host": {inputs, mismatched_bytes}} and, under the oracle's name, {within_one_step, top1_agreement, ...}.
    within_one_step: share of the elements of all operators' outputs that differ by at most 1 when each
    operator is given the oracle's own inputs. end_to_end_within_one_step is of the network's output
    alone, where one early rounding may grow through the layers; onnxruntime_against_itself is the same
    share between onnxruntime with and without graph optimisation, the yardstick for it.
    """
    inputs = model.inputs(count)
    outputs = []
    mismatched = 0
    with HostModel(model.directory, model.layout) as host:
        for i, x in enumerate(inputs):
            progress(i, len(inputs))
            output, features = run(model.graph, x)
            result = host.infer(x)
            mismatched += int((output != result.output).sum() + (features != result.features).sum())
            outputs.append(result.output)
    found: dict[str, Any] = {"host": {"inputs": len(inputs), "mismatched_bytes": mismatched}}
    oracle = model.oracle()
    if oracle is not None:
        found[oracle.name] = _against(oracle, model, inputs, np.stack(outputs))
    return found


def _against(oracle: Oracle, model: CompiledModel, inputs: Int8, outputs: Int8) -> dict[str, Any]:
    """outputs: int8 (n, bytes), the C's."""
    values = oracle.tensors(model.graph, inputs)
    expected = values[model.graph.output].reshape(len(inputs), -1)
    steps = np.zeros(STEPS, np.int64)
    for i in range(len(inputs)):
        for each in operator_distances(model.graph, values, i):
            steps += each.steps
    end_to_end = distances(outputs, expected)
    return {
        "inputs": len(inputs),
        "elements": int(steps.sum()),
        "within_one_step": _within_one(steps),
        "identical": float(steps[0] / steps.sum()),
        "largest_step": int(np.flatnonzero(steps).max(initial=0)),
        "top1_agreement": float(np.mean(outputs.argmax(1) == expected.argmax(1))),
        "end_to_end_within_one_step": _within_one(end_to_end),
        "end_to_end_largest_step": int(np.flatnonzero(end_to_end).max()),
        f"{oracle.name}_against_itself": _within_one(
            distances(expected, oracle.optimised_outputs(model.graph, inputs))
        ),
    }


def _within_one(histogram: Histogram) -> float:
    return float(histogram[:2].sum() / histogram.sum())


def verify_on_data(
    model: CompiledModel,
    data: Path,
    float_model: Path | None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """The host C on a whole data file: accuracy where it has labels, top-1 agreement with a float model.

    Pixels are normalised as the model was compiled.
    """
    tensor, layout = model.graph.tensors[model.graph.input], model.graph.sample_layout
    samples = load_samples(data, layout, model.mean, model.std, limit=2**31).samples
    found: dict[str, Any] = {"inputs": len(samples)}
    labels = _labels(data)
    inputs = quantize_samples(samples, tensor, layout)
    answers = np.empty(len(inputs), np.int64)
    with HostModel(model.directory, model.layout) as host:
        for i, x in enumerate(inputs):
            progress(i, len(inputs))
            answers[i] = host.infer(x).output.argmax()
    if labels is not None and len(labels) == len(answers):
        found["accuracy"] = float((answers == labels).mean())
    if float_model is not None:
        floats = float_outputs(float_model, samples).argmax(1)
        found["float_top1_agreement"] = float((answers == floats).mean())
        if labels is not None and len(labels) == len(answers):
            found["float_accuracy"] = float((floats == labels).mean())
    return found


def _labels(data: Path) -> NDArray[np.int64] | None:
    if data.suffix != ".npz":
        return None
    with np.load(data, allow_pickle=False) as pack:
        return pack["labels"].astype(np.int64) if "labels" in pack else None
