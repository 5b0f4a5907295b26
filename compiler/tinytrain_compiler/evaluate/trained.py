"""Policies that train: the generated C on this machine, compiled for each policy from the same quantised graph."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..compiled import CompiledModel
from ..ops import Int8
from ..targets.host import HostModel
from .learner import Learner, LearnerOptions, Progress, PrototypeLearner, Sample, TrainStats
from .policy_model import head_of, write_policy


class TrainedLearner:
    """One policy's session. The arena, the kernels and the updates are what the board would run."""

    def __init__(self, model: CompiledModel, options: LearnerOptions, policy: str) -> None:
        self._rate = options.learning_rate or 0.0  # 0: the policy's
        self._classes = int(model.report["model"]["classes"])
        self._copies = options.copies
        self._folder = tempfile.TemporaryDirectory(prefix="tinytrain-policy-")
        directory = Path(self._folder.name) / "model"
        lowered = write_policy(model, options, policy, directory)
        layout = model.layout
        self._host = HostModel(directory, type(layout)(
            model.name, lowered.plan.region_bytes, layout.input_bytes, layout.output_bytes, layout.features
        ))  # fmt: skip
        self._sram = lowered.sram.total
        self._learns = lowered.training is not None

    @property
    def classes(self) -> int:
        return self._classes

    @property
    def sram_bytes(self) -> int:
        return self._sram

    def forget(self) -> None:
        self._host.unlearn()

    def enroll(self, x: Int8, label: int) -> None:
        self._host.enroll(x, label)

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        if not self._learns:
            return TrainStats()
        trained = self._host.train(sample, labels, epochs, self._rate, seed & 0xFFFFFFFF, self._copies)
        progress(epochs, epochs)
        return TrainStats(trained.errors, trained.saturated)

    def infer(self, x: Int8) -> int:
        return self._host.infer(x).label

    def close(self) -> None:
        self._host.close()
        self._folder.cleanup()


def none(model: CompiledModel, options: LearnerOptions) -> Learner:
    """No layer learns. The folder itself serves where its head is the one asked for and does not learn either."""
    head = head_of(model, options)
    if head == head_of(model, LearnerOptions()) and not head.learns:
        return PrototypeLearner(model, options)
    return TrainedLearner(model, options, "none")
