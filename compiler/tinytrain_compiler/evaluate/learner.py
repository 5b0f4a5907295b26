"""What can learn an episode: the interface, and what every policy is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..compiled import CompiledModel
from ..ops import Int8
from ..training.formats import DEFAULT, Formats

Sample = Callable[[int, int], Int8]  # (position in the support set, epoch or CLEAN) -> int8 input
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class TrainStats:
    losses: tuple[float, ...] = ()  # mean loss of each epoch
    saturations: int = 0  # deltas that an update could not move as far as it wanted


@dataclass(frozen=True)
class LearnerOptions:
    """What every policy is told. None: the policy's own value."""

    learning_rate: float | None = None
    head: str | None = None  # of training/heads.py; None: the folder's own
    formats: Formats = DEFAULT
    copies: int = 0  # augmented copies of a sample whose frozen features are kept; 0: every epoch a fresh one


class Learner(Protocol):
    """One session of one policy. It is used for many episodes: forget() leaves nothing of the last one."""

    @property
    def classes(self) -> int:
        """The most classes it can tell apart."""

    @property
    def sram_bytes(self) -> int:
        """All of the model's SRAM on its board, except the stack."""

    def forget(self, classes: Sequence[int] = ()) -> None:
        """Back to the pretrained weights, without prototypes. classes: the pack's that the next labels stand for."""

    def enroll(self, x: Int8, label: int) -> None:
        """Add a sample, int8 of the input's shape, to a class."""

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        """Learn from the enrolled samples; labels[i] belongs to sample(i, ...). Told the epochs done."""

    def infer(self, x: Int8) -> int:
        """The label of a sample."""

    def close(self) -> None:
        """Release the session and its files."""


# Functions and classes at the top level of a module, or partial ones of these, so that worker processes find them.
Factory = Callable[[CompiledModel, LearnerOptions], Learner]
