"""An ONNX file becomes an ImportedModel: as it is where it comes quantised, through onnxruntime's quantiser if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ...graph.outline import LayerOutline
from ...quantize.calibration import Calibration, CalibrationData
from ..imported import ImportedModel
from .canonicalize import canonicalize
from .file import LoadedModel, is_quantized, load_model
from .input_layout import input_layout
from .oracle import OnnxOracle, OrtSession
from .outline import outline
from .qdq import import_qdq
from .qdq_passes.float_results import quantize_float_results
from .quantizer import quantize
from .scales import with_scalar_scales
from .support import check_supported

Progress = Callable[[str], None]


def read_onnx(
    path: Path, calibration: CalibrationData, progress: Progress, check: Callable[[Sequence[LayerOutline]], None]
) -> ImportedModel:
    """See frontends.read."""
    progress("reading the model")
    return import_loaded(load_model(path), calibration, progress, check)


def import_loaded(
    loaded: LoadedModel,
    calibration: CalibrationData,
    progress: Progress,
    check: Callable[[Sequence[LayerOutline]], None],
) -> ImportedModel:
    """What every format that becomes ONNX shares, from the loaded model on; see frontends.read."""
    progress("checking operators")
    check_supported(loaded.proto)
    check(outline(loaded.proto))
    progress("reading calibration data")
    samples = calibration.load(input_layout(loaded.proto))
    notes = list(loaded.notes)
    if is_quantized(loaded.proto):
        qdq, agreement = with_scalar_scales(loaded.proto), None
        notes += quantize_float_results(qdq, samples)
    else:
        qdq, agreement = _quantized(loaded.proto, samples, progress)
    progress("importing the quantised graph")
    return ImportedModel(import_qdq(qdq), loaded.sha256, samples, OnnxOracle(qdq), agreement, tuple(notes))


def _quantized(
    proto: onnx.ModelProto, samples: Calibration, progress: Progress
) -> tuple[onnx.ModelProto, float | None]:
    """The QDQ model of a float one, and their top-1 agreement where the samples are somebody's data."""
    progress("folding constants and batch normalisation")
    canonical = canonicalize(proto)
    progress(f"quantising to int8 on {len(samples.samples)} samples")
    qdq = quantize(canonical, samples)
    if samples.is_generated:
        return qdq, None
    progress("comparing int8 with float")
    return qdq, top1_agreement(proto, qdq, samples.samples)


def top1_agreement(
    float_proto: onnx.ModelProto, qdq_proto: onnx.ModelProto, samples: NDArray[np.float32]
) -> float | None:
    """Share of samples (n, ...) for which both models have their largest output in the same place, 0 to 1.

    None where the largest output is no answer: a single one, an image, or what an autoencoder makes of its input.
    """
    first, second = (OrtSession(p).run(samples)[0] for p in (float_proto, qdq_proto))
    scores = first[0].size
    if first[0].squeeze().ndim != 1 or scores == samples[0].size:
        return None
    first, second = (values.reshape(len(samples), scores) for values in (first, second))
    return float(np.mean(first.argmax(1) == second.argmax(1)))


def float_outputs_of(loaded: LoadedModel, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """See frontends.float_outputs."""
    found: NDArray[np.float32] = OrtSession(loaded.proto).run(samples)[0].reshape(len(samples), -1)
    return found
