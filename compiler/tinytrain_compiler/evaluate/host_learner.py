"""Policies on this machine: the generated C, with the arena, the kernels and the updates that the board would run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..compiled import CompiledModel
from ..ops import Int8
from ..targets.host import HostModel
from ..training.policies import NoPolicy
from ..training.policy import Policy
from .learner import LearnerOptions, Progress, Sample, TrainStats
from .policy_model import head_of, takes_steps, write_policy


class HostLearner:
    """One policy's session, compiled from the model's quantised graph, or the folder's own C where that is the same."""

    def __init__(self, model: CompiledModel, options: LearnerOptions, policy: Policy) -> None:
        self._rate = options.learning_rate or 0.0  # 0: the policy's
        self._copies = options.copies
        self._trains = takes_steps(model, options, policy)
        self.classes = int(model.report["model"]["classes"])
        self._folder = tempfile.TemporaryDirectory(prefix="tinytrain-policy-")
        if _is_folder(model, options, policy):
            self._host = HostModel(model.directory, model.layout)
            self.sram_bytes = int(model.report["memory"]["sram"]["total_bytes"])
            return
        directory, layout = Path(self._folder.name) / "model", model.layout
        lowered = write_policy(model, options, policy, directory)
        self._host = HostModel(directory, type(layout)(
            model.name, lowered.plan.region_bytes, layout.input_bytes, layout.output_bytes, layout.features
        ))  # fmt: skip
        self.sram_bytes = lowered.sram.total + int(model.report["memory"]["sram"]["audio_bytes"])

    def forget(self, classes: Sequence[int] = ()) -> None:
        if self._trains:
            self._host.unlearn()
        else:
            self._host.forget()

    def enroll(self, x: Int8, label: int) -> None:
        self._host.enroll(x, label)

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        if not self._trains:
            return TrainStats()
        trained = self._host.train(sample, labels, epochs, self._rate, seed & 0xFFFFFFFF, self._copies)
        progress(epochs, epochs)
        return TrainStats(trained.errors, trained.saturated)

    def infer(self, x: Int8) -> int:
        return self._host.infer(x).label

    def close(self) -> None:
        self._host.close()
        self._folder.cleanup()


def _is_folder(model: CompiledModel, options: LearnerOptions, policy: Policy) -> bool:
    """Whether the compiled folder's own C is what the policy needs: neither trains, and both have the same head."""
    same_head = head_of(model, options) == head_of(model, LearnerOptions())
    return policy == NoPolicy() and model.report["policy"] == policy.name and same_head
