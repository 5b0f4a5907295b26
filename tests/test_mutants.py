"""No model ends in a traceback: thousands of broken ones compile, or are refused in one clear message."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import pytest
from mutants import mutant, originals
from tinytrain_compiler import compile_model
from tinytrain_compiler.errors import EXIT_DOES_NOT_FIT, EXIT_UNSUPPORTED, TinyTrainError

USUAL, MANY = 300, 10_000
SECONDS, MEBIBYTES = 5.0, 1024  # of one mutant: CPU time, and growth of the largest memory of the process


def outcome(seed: int, folder: Path) -> str:
    """Compile one mutant: "compiled", or the message; raises what is no TinyTrainError of exit code 2 or 3."""
    proto = mutant(seed, originals())
    path = folder / "mutant.onnx"
    path.write_bytes(proto.SerializeToString())
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] if proto.graph.input else []
    samples = folder / "samples.npy"
    small = bool(dims) and all(1 <= d <= 64 for d in dims[1:])
    np.save(samples, np.random.default_rng(0).standard_normal((2, *(dims[1:] if small else (1,)))).astype(np.float32))
    try:
        compile_model(path, "stm32f746", calibration=samples)
    except TinyTrainError as error:
        if error.exit_code not in (EXIT_UNSUPPORTED, EXIT_DOES_NOT_FIT):
            raise
        return str(error)
    return "compiled"


def check(seeds: range, folder: Path) -> None:
    failures, compiled = [], 0
    for seed in seeds:
        begin, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            message = outcome(seed, folder)
        except Exception as error:
            failures.append(f"{seed}: {type(error).__name__}: {str(error)[:200]}")
            continue
        compiled += message == "compiled"
        if not message or len(message) > 4000 or not message.replace("\n", "").isprintable():
            failures.append(f"{seed}: a message that cannot be shown: {message[:200]!r}")
        if (seconds := time.process_time() - begin) > SECONDS:
            failures.append(f"{seed}: {seconds:.1f} s")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024
        if grown > MEBIBYTES:
            failures.append(f"{seed}: {grown} MiB")
    assert not failures, "\n".join(failures)
    assert 0.05 * len(seeds) < compiled < 0.8 * len(seeds), "mutations are too wild or too tame"


def test_mutants(tmp_path: Path) -> None:
    check(range(USUAL), tmp_path)


@pytest.mark.slow
def test_many_mutants(tmp_path: Path) -> None:
    check(range(USUAL, MANY), tmp_path)
