"""A whole personalisation on an emulated core: enrol, select, train. Every instruction, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..boards import Board
from ..errors import TinyTrainError
from ..ops import Int8
from ..training.heads import HeadKind
from ..training.trainer import TrainOptions
from .firmware import Firmware
from .qemu import Progress, execute
from .qemu_training import Visit, pack_training, selection_visits, training_visits


class Pass(NamedTuple):
    """One sample through the network, and back where it teaches; what the runtime does until it asks for the next."""

    visit: Visit
    instructions: int


@dataclass(frozen=True)
class Personalisation:
    """Instructions of the three calls, without what the application does to deliver samples and to keep features."""

    enroll: list[int]  # one a sample
    select: list[Pass]  # none where the samples are not looked at
    choice: (
        int  # which channels learn, after the last Fisher pass where there is one; 0 where the model does not choose
    )
    train: list[Pass]
    rest: int  # of selecting and training, in front of the first sample
    learnt: bytes  # as QemuTraining's


def personalise_on_qemu(
    firmware: Firmware, machine: Board, sample: Callable[[int, int], Int8], labels: Sequence[int],
    options: TrainOptions, head: HeadKind, fisher_passes: int | None, copies: int, workdir: Path,
    timeout_s: float = 300.0, *, progress: Progress | None = None,
) -> Personalisation:  # fmt: skip
    """Run `train` firmware: enrol, select as compiled, train. fisher_passes: None where the model does not choose, 0
    where it does without looking at the samples. copies: of the feature cache; 0: no cache.

    Raises TinyTrainError unless it reached its verdict and counted every pass.
    """
    count = len(labels)
    select = [*selection_visits(count, fisher_passes)] if fisher_passes else []
    train = [*training_visits(count, options, head, copies)]
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "learnt.bin").unlink(missing_ok=True)
    data = pack_training(sample, labels, options, head, fisher_passes or 0, copies=copies, whole=True)
    (workdir / "train.bin").write_bytes(data)
    expected = 2 * count + (fisher_passes is not None) + 1 + sum(_STRETCHES[visit.what] for visit in (*select, *train))
    run = execute(firmware.elf, machine, workdir, timeout_s, progress=progress, total=expected)
    steps = count * options.epochs
    if f"tinytrain: done {steps} records" not in run.console or len(run.instructions) != expected:
        raise TinyTrainError(f"{firmware.elf.name}: {len(run.instructions)} of {expected} stretches:\n{run.console}")
    counts = iter(run.instructions)
    enroll = [next(counts) + next(counts) for _ in range(count)]
    rest = choice = 0
    selected: list[Pass] = []
    if select:
        rest += next(counts)
        selected = [*_passes(select[:-1], counts)]
        forward, backward, choice = next(counts), next(counts), next(counts)
        selected.append(Pass(select[-1], forward + backward))
    elif fisher_passes is not None:
        choice = next(counts)
    rest += next(counts)
    return Personalisation(
        enroll, selected, choice, [*_passes(train, counts)], rest, (workdir / "learnt.bin").read_bytes()
    )


# Forward pass and loss, backward pass, what follows; a forward pass alone is one piece.
_STRETCHES = {"prototype": 1, "fisher": 3, "step": 3}


def _passes(visits: Sequence[Visit], counts: Iterator[int]) -> Iterator[Pass]:
    for visit in visits:
        yield Pass(visit, sum(next(counts) for _ in range(_STRETCHES[visit.what])))
