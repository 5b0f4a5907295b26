"""A policy's own C, written from the quantised graph of a compiled model."""

from __future__ import annotations

from pathlib import Path

from ..codegen.emit import ModelInfo
from ..compile import Lowered, emit, lower, write_files
from ..compiled import CompiledModel
from ..training.policies import scheme_for
from .learner import LearnerOptions


def write_policy(model: CompiledModel, options: LearnerOptions, policy: str, directory: Path) -> Lowered:
    """Write the model as it is with this policy. Whether it fits the board is not asked."""
    classes = int(model.report["model"]["classes"])
    scheme = scheme_for(model.graph, policy, options.scheme if policy in ("sparse-update", "tinytrain") else None)
    lowered = lower(model.graph, model.board, model.name, classes, scheme, pool=options.pool)
    sources = emit(lowered, ModelInfo(model.name, model.report["model"]["sha256"], "", classes, None))
    write_files(directory, {path: text.encode() for path, text in sources.items()})
    return lowered
