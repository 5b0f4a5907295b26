"""What can learn an episode: the interface, the policies by name, and the one that only keeps prototypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..compiled import CompiledModel
from ..errors import UsageError
from ..ops import Int8
from ..runtime_abi import CLEAN as CLEAN
from ..targets.host import HostModel
from ..training.formats import DEFAULT, Formats
from ..training.pool import DEFAULT_POOL
from ..training.selection import UNLIMITED

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
    scheme: Path | None = None  # of sparse-update, and the candidates of policies that choose on the device
    head: str | None = None  # prototype or linear; None: the folder's own
    formats: Formats = DEFAULT
    pool: int = DEFAULT_POOL  # bytes for what policies learn that choose on the device
    macs: int = UNLIMITED  # of weight gradients a step, that these may take
    copies: int = 0  # augmented copies of a sample whose frozen features are kept; 0: every epoch a fresh one


class Learner(Protocol):
    """One session of one policy. It is used for many episodes: forget() leaves nothing of the last one."""

    @property
    def classes(self) -> int:
        """Room for classes."""

    @property
    def sram_bytes(self) -> int:
        """All of the model's SRAM on its board, except the stack."""

    def forget(self) -> None:
        """Back to the pretrained weights, without prototypes."""

    def enroll(self, x: Int8, label: int) -> None:
        """Add a sample, int8 of the input's shape, to a class."""

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        """Learn from the enrolled samples; labels[i] belongs to sample(i, ...). Told the epochs done."""

    def infer(self, x: Int8) -> int:
        """The label of a sample."""

    def close(self) -> None:
        """Release the session and its files."""


class PrototypeLearner:
    """Policy `none` where the head does not learn: the generated C on this machine, class prototypes, no training."""

    def __init__(self, model: CompiledModel, options: LearnerOptions) -> None:
        self._host = HostModel(model.directory, model.layout)
        self._report = model.report

    @property
    def classes(self) -> int:
        return int(self._report["model"]["classes"])

    @property
    def sram_bytes(self) -> int:
        return int(self._report["memory"]["sram"]["total_bytes"])

    def forget(self) -> None:
        self._host.forget()

    def enroll(self, x: Int8, label: int) -> None:
        self._host.enroll(x, label)

    def train(self, sample: Sample, labels: Sequence[int], epochs: int, seed: int, progress: Progress) -> TrainStats:
        return TrainStats()

    def infer(self, x: Int8) -> int:
        return self._host.infer(x).label

    def close(self) -> None:
        self._host.close()


Factory = Callable[[CompiledModel, LearnerOptions], Learner]

# A factory is a function or class at the top level of its module, or a partial one of these, so that worker processes
# can find it.
POLICIES: dict[str, Factory] = {"none": PrototypeLearner}


def factories(names: Sequence[str]) -> dict[str, Factory]:
    """The policies of these names, in their order. Raises UsageError for an unknown or repeated one."""
    from difflib import get_close_matches

    if not names:
        raise UsageError(f"no policy given; choose from {', '.join(POLICIES)}")
    for name in names:
        if name not in POLICIES:
            near = get_close_matches(name, POLICIES, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise UsageError(f"policy '{name}' does not exist{hint}; choose from {', '.join(POLICIES)}")
    if len(set(names)) != len(names):
        raise UsageError(f"a policy is named twice: {', '.join(names)}")
    return {name: POLICIES[name] for name in names}
