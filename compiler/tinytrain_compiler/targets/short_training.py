"""A few training steps on a model's own test inputs, on an emulated core: what a step costs, and the training state."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..boards import Board
from ..ops import Int8
from ..training.heads import HEADS
from ..training.visits import TrainOptions
from .emulation import emulation_banks, emulation_board
from .firmware import build_firmware
from .harness_training import HarnessTraining, pack_training, run_training
from .runner import Progress
from .stack import StackGraph

SAMPLES, EPOCHS = 4, 2
CLASSES = 5  # at most; classes of the support set
NOISE = 20  # steps of the input, either way, in each epoch after its own


@dataclass(frozen=True)
class ShortTraining:
    """The task: inputs (n, bytes), their labels, and noise in place of an application's augmentation."""

    inputs: Int8
    noisy: Int8  # (epochs, n, bytes)
    labels: Sequence[int]
    options: TrainOptions

    @property
    def steps(self) -> int:
        return len(self.labels) * self.options.epochs

    def sample(self, index: int, epoch: int) -> Int8:
        found: Int8 = self.inputs[index] if epoch < 0 else self.noisy[epoch, index]
        return found


def short_training(inputs: Int8, classes: int, epochs: int = EPOCHS) -> ShortTraining:
    """classes: room for them in the model."""
    noise = np.random.default_rng(0).integers(-NOISE, NOISE + 1, (epochs, *inputs.shape))
    noisy = np.clip(inputs.astype(int) + noise, -128, 127).astype(np.int8)
    labels = [i % min(CLASSES, classes) for i in range(len(inputs))]
    return ShortTraining(inputs, noisy, labels, TrainOptions(epochs))


@dataclass(frozen=True)
class MeasuredTraining:
    """What a core did."""

    ran: HarnessTraining
    stack_bound: int  # of the emulator's whole image, so at least ran.stack_bytes


def measure_training(
    directory: Path, name: str, board: Board, region_banks: Sequence[str], task: ShortTraining,
    *, head: str, fisher_passes: int, profile: bool = False, timeout_s: float = 300.0, progress: Progress | None = None,
) -> MeasuredTraining:  # fmt: skip
    """Build the model in `directory` for the emulated core of `board` and train it. head, fisher_passes: the model's.

    Raises UsageError where nothing emulates the board, DoesNotFitError where the machine is too small,
    ToolMissingError, TinyTrainError where the run failed.
    """
    machine = emulation_board(board)
    banks = emulation_banks(machine, region_banks)
    data = pack_training(task.sample, task.labels, task.options, HEADS[head], fisher_passes)
    with tempfile.TemporaryDirectory(prefix="tinytrain-train-") as folder:
        build = Path(folder)
        firmware = build_firmware(directory, name, machine, banks, "train", build / "build")
        ran = run_training(
            firmware, machine, data, task.steps, build / "run", timeout_s, profile=profile, progress=progress
        )
        return MeasuredTraining(ran, StackGraph(firmware).worst_of_image().bytes)
