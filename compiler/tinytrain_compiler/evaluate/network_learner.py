"""The network as it was trained, without a head: what training on the device is to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiled import CompiledModel
from ..errors import UsageError
from ..ops import Int8
from ..targets.host import HostModel
from .learner import LearnerOptions, Progress, Sample, TrainStats
from .packs import Pack

NETWORK = "network"  # its name among policies


def check_outputs(model: CompiledModel, pack: Pack) -> None:
    """UsageError where the network's outputs cannot be the pack's classes."""
    outputs = model.layout.output_bytes
    if outputs != len(pack.class_names):
        raise UsageError(
            f"{pack.source}: has {len(pack.class_names)} classes, the network {outputs} outputs; "
            "--network needs a pack whose classes are the network's own, in their order"
        )


class NetworkLearner:
    """Enrols and trains nothing: of an episode's classes, the one with the largest output of the network."""

    def __init__(self, model: CompiledModel, options: LearnerOptions) -> None:
        self._host = HostModel(model.directory, model.layout)
        self._classes: Sequence[int] = ()
        self.classes = model.layout.output_bytes
        self.sram_bytes = int(model.report["memory"]["sram"]["total_bytes"])

    def forget(self, classes: Sequence[int] = ()) -> None:
        self._classes = classes

    def enroll(self, x: Int8, label: int) -> None:
        pass

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        return TrainStats()

    def infer(self, x: Int8) -> int:
        return int(self._host.infer(x).output[list(self._classes)].argmax())

    def close(self) -> None:
        self._host.close()
