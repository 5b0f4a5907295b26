"""Train on an emulated core: the generated backward pass, its state afterwards, and exact instruction counts."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..boards import Board
from ..errors import TinyTrainError
from ..ops import Int8
from ..training.heads import PROTOTYPE, HeadKind
from ..training.trainer import CLEAN, TrainOptions, visiting_order
from .firmware import Firmware
from .qemu import execute


@dataclass(frozen=True)
class QemuTraining:
    """What the core learnt, byte for byte, and what it took."""

    learnt: bytes  # deltas and running means, prototype sums, shots
    instructions: list[int]  # per step: forward, loss, backward, update
    stack_bytes: int
    profile: dict[str, int] | None


def pack_training(
    sample: Callable[[int, int], Int8], labels: Sequence[int], options: TrainOptions, head: HeadKind = PROTOTYPE
) -> bytes:
    """train.bin: every sample in the order in which the runtime asks for it."""
    count = len(labels)
    parts = [
        struct.pack("<IIIf", count, options.epochs, options.seed, options.rate),
        struct.pack(f"<{count}i", *labels),
    ]

    def add(index: int, epoch: int) -> None:
        parts.append(struct.pack("<ii", index, epoch) + sample(index, epoch).tobytes())

    def add_clean() -> None:
        for index in range(count):
            add(index, CLEAN)

    add_clean()
    for epoch in range(options.epochs):
        if epoch and head.recomputes:
            add_clean()
        for index in visiting_order(count, epoch, options.seed):
            add(index, epoch)
    if head.recomputes:
        add_clean()
    return b"".join(parts)


def train_on_qemu(
    firmware: Firmware, machine: Board, data: bytes, steps: int, workdir: Path, timeout_s: float = 300.0,
    *, profile: bool = False,
) -> QemuTraining:  # fmt: skip
    """Run `train` firmware on pack_training's data. Raises TinyTrainError unless it reached its verdict."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "learnt.bin").unlink(missing_ok=True)
    (workdir / "train.bin").write_bytes(data)
    run = execute(firmware.elf, machine, workdir, timeout_s, profile=profile, total=steps)
    if f"tinytrain: done {steps} records" not in run.console or len(run.instructions) != steps:
        raise TinyTrainError(f"{firmware.elf.name} trained {len(run.instructions)} of {steps} steps:\n{run.console}")
    stack = re.search(r"^tinytrain: stack (\d+) bytes$", run.console, re.MULTILINE)
    learnt = (workdir / "learnt.bin").read_bytes()
    return QemuTraining(learnt, run.instructions, int(stack[1]) if stack else 0, run.profile)
