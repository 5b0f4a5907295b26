"""The fuzz target: a model file's bytes in, "compiled" or the message of its refusal out; anything else is a finding.

Also for coverage-guided fuzzers: `target(data)` takes the bytes of an ONNX file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import EXIT_DOES_NOT_FIT, EXIT_UNSUPPORTED, TinyTrainError

BOARD = "stm32f746"
COMPILED = "compiled"
_LONGEST = 4000  # characters of a message


class UnclearError(Exception):
    """A refusal that a user cannot work with: of the wrong exit code, too long, or with characters of control."""


def outcome(path: Path) -> str:
    """Compile a model file, calibrated on two samples in its input's shape where it is small.

    Returns COMPILED or the message. Raises what is no TinyTrainError, and UnclearError.
    """
    samples = path.parent / "samples.npy"
    np.save(samples, np.random.default_rng(0).standard_normal((2, *_sample_shape(path))).astype(np.float32))
    try:
        compile_model(path, BOARD, calibration=samples, name="fuzzed")
    except TinyTrainError as error:
        message = str(error)
        if error.exit_code not in (EXIT_UNSUPPORTED, EXIT_DOES_NOT_FIT):
            raise UnclearError(f"exit code {error.exit_code}: {message}") from error
        if len(message) > _LONGEST or not message.replace("\n", "").isprintable():
            raise UnclearError(f"{len(message)} characters: {message!r}") from error
        return message
    return COMPILED


def target(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="tinytrain-fuzz-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        outcome(path)


def _sample_shape(path: Path) -> tuple[int, ...]:
    """Of the file's first input, without the batch; (1,) where that is unknown or large."""
    if path.suffix != ".onnx":
        return (1,)
    try:
        graph = onnx.ModelProto.FromString(path.read_bytes()).graph
    except Exception:  # no protobuf
        return (1,)
    dims = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:]] if graph.input else []
    return tuple(dims) if dims and all(1 <= d <= 64 for d in dims) and np.prod(dims) < 1 << 16 else (1,)
