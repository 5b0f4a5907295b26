"""Does it run on the core? The board's firmware on an emulated machine with the same core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .boards import Board
from .compiled import CompiledModel
from .errors import TinyTrainError
from .ops import Int8
from .reference import run
from .targets.firmware import build_firmware
from .targets.qemu import INFER, emulation_banks, emulation_board, pack_records, run_on_qemu


def emulate(
    model: CompiledModel,
    count: int | None = None,
    *,
    core_of: Board | None = None,
    profile: bool = False,
    timeout_s: float = 300,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Run `count` test inputs on QEMU and compare every output and embedding byte with the NumPy reference.

    core_of: another board on whose core (and kernel variant) the same sources run; None for the model's own.
    Returns runner, core, inputs, mismatched_bytes, instructions_per_inference (mean), stack_bytes, flash_bytes
    and sram_bytes (stack included) of the linked board image and, with `profile`, instructions per function.
    """
    board = core_of or model.board
    machine = emulation_board(board)
    inputs = model.inputs(count)
    banks = emulation_banks(board, model.region_banks)
    with tempfile.TemporaryDirectory(prefix="tinytrain-emulate-") as folder:
        # What is flashed is linked for the board's own memory map: the sizes are its sizes.
        image = build_firmware(model.directory, model.name, board, banks, "selftest", Path(folder) / "board")
        harness = build_firmware(
            model.directory, model.name, machine, emulation_banks(machine, model.region_banks), "harness",
            Path(folder) / "emulated",
        )  # fmt: skip
        records = pack_records([(INFER, x.tobytes()) for x in inputs])
        ran = run_on_qemu(
            harness, machine, records, Path(folder) / "run", timeout_s, profile=profile, progress=progress
        )
    mismatched = 0
    for x, record in zip(inputs, ran.records, strict=True):
        if record.status != 0:
            raise TinyTrainError(f"{model.name}_infer() returned status {record.status} on {machine.name}")
        output, features = run(model.graph, x)
        mismatched += int((output != _int8(record.output)).sum() + (features != _int8(record.features)).sum())
    found = {
        "runner": f"qemu {machine.qemu_machine}",
        "core": board.core,
        "board": board.name,
        "inputs": len(inputs),
        "mismatched_bytes": mismatched,
        "instructions_per_inference": round(sum(ran.instructions) / len(inputs)),
        "stack_bytes": ran.stack_bytes,
        "flash_bytes": image.flash_bytes,
        "code_bytes": image.code_bytes,
        "sram_bytes": image.sram_bytes,
    }
    if ran.profile is not None:
        found["profile"] = {symbol: n // len(inputs) for symbol, n in ran.profile.items()}
    return found


def _int8(data: bytes) -> Int8:
    return np.frombuffer(data, np.int8)
