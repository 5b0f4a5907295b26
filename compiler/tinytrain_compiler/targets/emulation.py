"""Which runner has a board's core, and in which memories an image goes there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..boards import Board, load_board
from ..errors import UsageError
from .qemu import QemuRunner
from .runner import Job, Run, Runner

RUNNERS: tuple[Runner, ...] = (QemuRunner(),)  # the first that has a board's machine runs it


def emulation_board(board: Board) -> Board:
    """The board that runs in place of ``board``: its memories and UART, with ``board``'s core and attributes.

    Raises UsageError where no emulated machine has that core.
    """
    if board.machines:
        return board
    if board.emulated_by is None:
        raise UsageError(
            f"board '{board.name}' cannot be emulated: its file has no [emulation] table that names a machine"
        )
    machine = load_board(board.emulated_by)
    if not machine.machines:
        raise UsageError(f"board '{board.name}' is emulated by '{machine.name}', whose file names no machine either")
    return dataclasses.replace(machine, core=board.core, dsp=board.dsp, fpu=board.fpu, mve=board.mve)


def emulation_banks(machine: Board, region_banks: Sequence[str]) -> list[str]:
    """Where the regions of a plan for another board go on an emulated one: all into its first bank."""
    own = {bank.name for bank in machine.banks}
    return list(region_banks) if own.issuperset(region_banks) else [machine.banks[0].name] * len(region_banks)


def runner_of(machine: Board) -> Runner:
    """The runner of this very machine; UsageError where there is none."""
    for runner in RUNNERS:
        if runner.name in machine.machines:
            return runner
    known = ", ".join(runner.name for runner in RUNNERS)
    raise UsageError(f"board '{machine.name}' is no machine of {known}; pass emulation_board(board)")


def machine_name(machine: Board) -> str:
    """Runner and machine, as reports name them: "qemu mps2-an500"."""
    runner = runner_of(machine)
    return f"{runner.name} {machine.machines[runner.name]}"


def execute(job: Job) -> Run:
    """Run an image on its board's machine; errors as Runner.run, and UsageError where no runner has it."""
    return runner_of(job.board).run(job)
