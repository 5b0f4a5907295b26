"""Train on an emulated core: the generated backward pass, its state afterwards, and exact instruction counts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..boards import Board
from ..errors import TinyTrainError
from ..ops import Int8
from ..runtime_abi import CLEAN, FISHER_SAMPLES
from ..training.heads import PROTOTYPE, HeadKind
from ..training.visits import TrainOptions, measured_samples, visiting_order
from .emulation import execute
from .firmware import Firmware
from .harness import stack_used
from .runner import Job, Progress


class StepInstructions(NamedTuple):
    """Of one training step, by part; the updates belong to the backward pass."""

    forward: int
    loss: int
    backward: int

    @property
    def total(self) -> int:
        return self.forward + self.loss + self.backward


class Visit(NamedTuple):
    """One sample that the runtime asks for."""

    what: str  # "prototype", "fisher" or "step"
    sample: int
    epoch: int
    cached: bool = False  # its features are kept already: the label alone is asked for


@dataclass(frozen=True)
class HarnessTraining:
    """The training state on the core, byte for byte, and what it took."""

    training_state: bytes  # deltas and running means, prototype sums, shots
    steps: list[StepInstructions]
    fisher: list[StepInstructions]  # of the samples that Fisher information was measured on; without updates
    stack_bytes: int
    profile: dict[str, int] | None  # function -> instructions over all steps, largest first

    @property
    def per_step(self) -> StepInstructions:
        """Mean over the steps that update: the first one of a session only begins the running means."""
        updating = self.steps[1:] or self.steps
        return StepInstructions(*(round(sum(part) / len(updating)) for part in zip(*updating, strict=True)))


def training_visits(
    count: int, options: TrainOptions, head: HeadKind, copies: int = 0, fisher_passes: int = 0
) -> Iterator[Visit]:
    """What tt_train() asks for, in order, where nothing was selected before.

    copies: of its feature cache; 0: there is none. fisher_passes: over at most FISHER_SAMPLES each; 0: the model does
    not choose what learns, or without looking at samples.
    """
    yield from (Visit("prototype", index, CLEAN) for index in range(count))
    measured = measured_samples(FISHER_SAMPLES, count) if fisher_passes else []
    for fisher_pass in range(fisher_passes):
        yield from (Visit("fisher", index, 0, copies > 0 and fisher_pass > 0) for index in measured)
    for epoch in range(options.epochs):
        if epoch and head.recomputes:
            yield from (Visit("prototype", index, CLEAN, copies > 0) for index in range(count))
        for index in visiting_order(count, epoch, options.seed):
            cached = epoch >= copies or (epoch == 0 and index in measured)
            yield Visit("step", index, epoch, copies > 0 and cached)
    if head.recomputes:
        yield from (Visit("prototype", index, CLEAN, copies > 0) for index in range(count))


def pack_training(
    sample: Callable[[int, int], Int8], labels: Sequence[int], options: TrainOptions, head: HeadKind = PROTOTYPE,
    fisher_passes: int = 0, *, copies: int = 0, whole: bool = False,
) -> bytes:  # fmt: skip
    """train.bin: every sample in the order in which the runtime asks for it.

    fisher_passes, copies: as in training_visits. whole: enrol first, and count all instructions; see
    harness_personalisation.py.
    """
    count = len(labels)
    parts = [
        struct.pack("<IIIfII", count, options.epochs, options.seed, options.rate, copies, whole),
        struct.pack(f"<{count}i", *labels),
    ]
    visits = [*training_visits(count, options, head, copies, fisher_passes)]
    if whole:
        visits[:0] = (Visit("prototype", index, CLEAN) for index in range(count))
    for visit in visits:
        if not visit.cached:
            parts.append(struct.pack("<ii", visit.sample, visit.epoch) + sample(visit.sample, visit.epoch).tobytes())
    return b"".join(parts)


def run_training(
    firmware: Firmware, machine: Board, data: bytes, steps: int, workdir: Path, timeout_s: float = 300.0,
    *, profile: bool = False, progress: Progress | None = None,
) -> HarnessTraining:  # fmt: skip
    """Run `train` firmware on pack_training's data. Raises TinyTrainError unless it reached its verdict."""
    run = execute(
        Job(
            firmware.elf, machine, workdir, {"train.bin": data}, ("state.bin",), timeout_s, profile, 3 * steps,
            progress,
        )
    )  # fmt: skip
    counts = run.counts
    if f"tinytrain: done {steps} records" not in run.console or len(counts) < 3 * steps:
        raise TinyTrainError(f"{firmware.elf.name} trained {len(counts) // 3} of {steps} steps:\n{run.console}")
    parts = [StepInstructions(*counts[i : i + 3]) for i in range(0, len(counts), 3)]
    first = len(parts) - steps
    return HarnessTraining(run.files["state.bin"], parts[first:], parts[:first], stack_used(run), run.profile)
