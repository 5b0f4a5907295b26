"""Does it run on the core? The board's firmware on an emulated machine with the same core."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .boards import Board, emulation_board
from .compiled import CompiledModel
from .errors import TinyTrainError
from .ops import Int8
from .reference import run
from .targets.firmware import build_firmware
from .targets.qemu import INFER, encode_records, run_on_qemu


@dataclass(frozen=True)
class Record:
    """What one call on the device returned."""

    status: int
    label: int
    score: int
    output: Int8
    features: Int8


def decode_outputs(data: bytes, output_bytes: int, features: int) -> list[Record]:
    """Split the harness's output file into records."""
    kind = np.dtype(
        [("status", "<i4"), ("label", "<i4"), ("score", "<i4"), ("output", "i1", output_bytes), ("features", "i1", features)]
    )
    return [
        Record(int(r["status"]), int(r["label"]), int(r["score"]), np.atleast_1d(r["output"]), np.atleast_1d(r["features"]))
        for r in np.frombuffer(data, kind)
    ]


def emulate(
    model: CompiledModel, count: int | None = None, core_of: Board | None = None, profile: bool = False, timeout_s: float = 300
) -> dict[str, Any]:
    """Run test inputs on QEMU and compare every output and embedding byte with the NumPy reference.

    core_of: another board whose core (and kernel variant) runs the same sources; None for the model's own.
    Returns runner, core, inputs, mismatched_bytes, instructions_per_inference (mean), flash_bytes and
    sram_bytes of the linked board image, and, with `profile`, instructions per function.
    """
    board = core_of or model.board
    machine = emulation_board(board)
    inputs = model.inputs(count)
    layout = model.layout
    with tempfile.TemporaryDirectory(prefix="tinytrain-emulate-") as folder:
        # The image that is flashed is linked for the board's own memory map; it is what the sizes are of.
        banks = model.region_banks if board.name == model.board.name else [board.banks[0].name] * len(model.region_banks)
        image = build_firmware(model.directory, model.name, board, banks, "selftest", Path(folder) / "board")
        harness_banks = [machine.banks[0].name] * len(layout.region_bytes)
        harness = build_firmware(
            model.directory, model.name, machine, harness_banks, "harness", Path(folder) / "emulated", core_of=board
        )
        records = encode_records([(INFER, x.tobytes()) for x in inputs])
        ran = run_on_qemu(harness, machine, records, Path(folder) / "run", timeout_s, profile=profile)
    mismatched = 0
    for x, record in zip(inputs, decode_outputs(ran.outputs, layout.output_bytes, layout.features), strict=True):
        if record.status != 0:
            raise TinyTrainError(f"{model.name}_infer() returned status {record.status} on {machine.name}")
        output, features = run(model.graph, x)
        mismatched += int((output != record.output).sum() + (features != record.features).sum())
    found = {
        "runner": f"qemu {machine.qemu_machine}",
        "core": board.core,
        "board": board.name,
        "inputs": len(inputs),
        "mismatched_bytes": mismatched,
        "instructions_per_inference": round(sum(ran.instructions) / len(inputs)),
        "flash_bytes": image.flash_bytes,
        "sram_bytes": image.sram_bytes,
    }
    if profile:
        found["profile"] = {symbol: n // len(inputs) for symbol, n in sorted(ran.profile.items(), key=lambda kv: -kv[1])}
    return found
