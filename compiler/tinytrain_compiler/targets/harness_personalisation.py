"""A whole personalisation on an emulated core: enrol, then train, which selects. Every instruction, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..boards import Board
from ..errors import TinyTrainError
from ..ops import Int8
from ..training.heads import HeadKind
from ..training.visits import TrainOptions
from .emulation import execute
from .firmware import Firmware
from .harness_training import Visit, pack_training, training_visits
from .runner import Job, Progress


class Pass(NamedTuple):
    """One sample through the network, and back where it teaches; what the runtime does until it asks for the next."""

    visit: Visit
    instructions: int
    frozen: int  # of these, in frozen layers; 0 where their features are kept already


@dataclass(frozen=True)
class Personalisation:
    """Instructions of all, without what the application does to deliver samples and to keep features."""

    enroll: list[int]  # one a sample
    select: list[Pass]  # Fisher passes; none where the samples are not looked at
    choice: (
        int  # which channels learn, after the last Fisher pass where there is one; 0 where the model does not choose
    )
    train: list[Pass]  # all others
    rest: int  # of training, in front of the first sample
    training_state: bytes  # as HarnessTraining's


def run_personalisation(
    firmware: Firmware, machine: Board, sample: Callable[[int, int], Int8], labels: Sequence[int],
    options: TrainOptions, head: HeadKind, fisher_passes: int | None, copies: int, workdir: Path,
    timeout_s: float = 300.0, *, progress: Progress | None = None,
) -> Personalisation:  # fmt: skip
    """Run `train` firmware: enrol, train, which selects as compiled. fisher_passes: None where the model does not
    choose, 0 where it does without looking at the samples. copies: of the feature cache; 0: no cache.

    Raises TinyTrainError unless it reached its verdict and counted every pass.
    """
    count = len(labels)
    visits = [*training_visits(count, options, head, copies, fisher_passes or 0)]
    data = pack_training(sample, labels, options, head, fisher_passes or 0, copies=copies, whole=True)
    expected = 2 * count + (fisher_passes == 0) + 1 + sum(_STRETCHES[v.what] + (not v.cached) for v in visits)
    run = execute(
        Job(
            firmware.elf, machine, workdir, {"train.bin": data}, ("state.bin",), timeout_s, False, expected, progress
        )
    )  # fmt: skip
    steps = count * options.epochs
    if f"tinytrain: done {steps} records" not in run.console or len(run.counts) != expected:
        raise TinyTrainError(f"{firmware.elf.name}: {len(run.counts)} of {expected} stretches:\n{run.console}")
    counts = iter(run.counts)
    enroll = [next(counts) + next(counts) for _ in range(count)]
    choice = next(counts) if fisher_passes == 0 else 0
    rest = next(counts)
    pieces = [[next(counts) for _ in range(_STRETCHES[v.what] + (not v.cached))] for v in visits]
    if fisher_passes:
        choice = pieces[max(i for i, v in enumerate(visits) if v.what == "fisher")].pop()
    passes = [Pass(v, sum(p), 0 if v.cached else p[0]) for v, p in zip(visits, pieces, strict=True)]
    select, train = ([p for p in passes if (p.visit.what == "fisher") is chooses] for chooses in (True, False))
    return Personalisation(enroll, select, choice, train, rest, run.files["state.bin"])


# What a pass is counted in, the frozen layers' part left out: forward pass and loss, backward pass, what follows; a
# forward pass alone is one piece.
_STRETCHES = {"prototype": 1, "fisher": 3, "step": 3}
