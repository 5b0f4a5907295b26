"""Policies that train: the generated C on this machine, compiled for each policy from the same quantised graph."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..codegen.emit import ModelInfo
from ..compile import emit, lower, write_files
from ..compiled import CompiledModel
from ..ops import Int8
from ..targets.host import HostModel
from ..training.policies import scheme_for
from ..training.trainer import DEFAULT_RATE
from .learner import LearnerOptions, Progress, Sample, TrainStats


class TrainedLearner:
    """One policy's session. The arena, the kernels and the updates are what the board would run."""

    def __init__(self, model: CompiledModel, options: LearnerOptions, policy: str) -> None:
        rate = options.learning_rate
        self._rate = DEFAULT_RATE if rate is None else rate
        self._classes = int(model.report["model"]["classes"])
        scheme = scheme_for(model.graph, policy, options.scheme if policy == "sparse-update" else None)
        lowered = lower(model.graph, model.board, model.name, self._classes, scheme, options.formats)
        sources = emit(lowered, ModelInfo(model.name, model.report["model"]["sha256"], "", self._classes, None))
        self._folder = tempfile.TemporaryDirectory(prefix="tinytrain-policy-")
        directory = Path(self._folder.name) / "model"
        write_files(directory, {path: text.encode() for path, text in sources.items()})
        layout = model.layout
        self._host = HostModel(directory, type(layout)(
            model.name, lowered.plan.region_bytes, layout.input_bytes, layout.output_bytes, layout.features
        ))  # fmt: skip
        self._sram = lowered.sram.total

    @property
    def classes(self) -> int:
        return self._classes

    @property
    def sram_bytes(self) -> int:
        return self._sram

    @property
    def instructions_per_step(self) -> int | None:
        return None

    def forget(self) -> None:
        self._host.unlearn()

    def enroll(self, x: Int8, label: int) -> None:
        self._host.enroll(x, label)

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        trained = self._host.train(sample, labels, epochs, self._rate, seed & 0xFFFFFFFF)
        progress(epochs, epochs)
        return TrainStats(trained.errors, trained.saturated)

    def infer(self, x: Int8) -> int:
        return self._host.infer(x).label

    def close(self) -> None:
        self._host.close()
        self._folder.cleanup()


def last_layer(model: CompiledModel, options: LearnerOptions) -> TrainedLearner:
    return TrainedLearner(model, options, "last-layer")


def bias(model: CompiledModel, options: LearnerOptions) -> TrainedLearner:
    return TrainedLearner(model, options, "bias")


def sparse_update(model: CompiledModel, options: LearnerOptions) -> TrainedLearner:
    return TrainedLearner(model, options, "sparse-update")
