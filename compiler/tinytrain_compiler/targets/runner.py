"""What can run firmware: an emulator today, a board on a debugger's lead the same way.

A runner takes an image, the files that it may read, and gives back what it printed, the files that it wrote, and the
instructions between its marks. What firmware and host say to each other is harness.py's; which runner has a board's
core is emulation.py's. Adding one: a module with a `Runner`, its line in emulation.py, its key in boards/keys.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..boards import Board

Progress = Callable[[int, int], None]  # stretches done, stretches expected


@dataclass(frozen=True)
class Job:
    """One run of an image."""

    elf: Path
    board: Board  # whose machine it was linked for
    workdir: Path  # where its files and the runner's own lie; made where it is missing
    files: Mapping[str, bytes] = field(default_factory=dict)  # what the image may read, by name
    wanted: Sequence[str] = ()  # files that it writes
    timeout_s: float = 300.0
    profile: bool = False  # also count by function
    total: int = 0  # stretches between marks that are expected, for progress and messages
    progress: Progress | None = None  # told about ten times a second


@dataclass(frozen=True)
class Run:
    """An image that ran and exited with 0; whether it did what it should is the caller's to check."""

    console: str
    messages: str  # the runner's own
    counts: list[int]  # instructions of each stretch between marks, the marks not counted
    profile: dict[str, int] | None  # function -> instructions over all stretches, largest first
    files: dict[str, bytes]  # those wanted; empty bytes for one that was not written


class Runner(Protocol):
    """One way to run images."""

    @property
    def name(self) -> str:
        """As in Board.machines, and in a board file's [emulation] before `_machine`."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Programs of the system that it calls."""

    def run(self, job: Job) -> Run:
        """Run to the end. Raises TinyTrainError unless the image exits with 0 in time, ToolMissingError."""
