"""Bring-up firmware: vector table, initial memory, faults, linker script, serial port, and an application's main.

The application is the self-test that users flash first, or one of the harnesses of targets/apps.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..boards import Board
from ..codegen import selftest
from ..codegen.render import render
from ..memory import Slots

# A C statement per register operation of a board file; {0} is the address, {1} the value.
_REGISTER_ACCESS = {
    "write": "REGISTER({0}) = {1};",
    "set": "REGISTER({0}) |= {1};",
    "clear": "REGISTER({0}) &= ~{1};",
    "wait": "wait_for({0}, {1}, {1});",
}


def linker_script(board: Board) -> str:
    """Path of the linker script, relative to the model's directory."""
    return f"firmware/{board.name}.ld"


@dataclass(frozen=True)
class App:
    """A program around the model: what it adds to start-up code and linker script, path -> template."""

    name: str
    files: Mapping[str, str]
    keep: tuple[str, ...] = ()  # symbols that nothing in the image uses, but the host reads


SELFTEST = App(
    "selftest",
    {
        "firmware/main.c": "firmware/main_selftest.c",
        "firmware/uart.h": "firmware/uart.h",
        "firmware/uart.c": "firmware/uart.c",
    },
)


def firmware_templates(board: Board, app: App) -> dict[str, str]:
    """Path -> template of the firmware around any model."""
    files = {
        "firmware/startup.h": "firmware/startup.h",
        "firmware/startup.c": "firmware/startup.c",
        linker_script(board): "firmware/link.ld",
        "firmware/text.h": "firmware/text.h",
        **app.files,
    }
    if board.boot_stage:
        files["firmware/boot_stage.c"] = "firmware/boot_stage.c"
    return files


def render_firmware(
    board: Board,
    name: str,
    region_banks: Sequence[str],
    app: App,
    trains: bool = False,
    slots: Slots | None = None,
    audio: bool = False,
) -> dict[str, str]:
    """The firmware around model ``name``: relative path -> text. Same arguments, same text.

    region_banks: for each memory region of the plan, the name of the board's bank it is placed in. trains: the
    self-test does, too. slots: flash that is left out for saved states. audio: the self-test runs the model's
    front end for sound.
    Raises UsageError for a bank that the board does not have.
    """
    for bank in region_banks:
        board.bank(bank)
    files = firmware_templates(board, app)
    if slots:
        files[f"{name}_storage.h"] = "firmware/storage.h"
    context = _context(board, name, region_banks, slots) | {"trains": trains, "audio": audio}
    return {path: render(f"{template}.j2", **context) for path, template in files.items()}


def _context(board: Board, name: str, region_banks: Sequence[str], slots: Slots | None) -> dict[str, Any]:
    core = board.core_info
    divide_by_zero, unaligned = 0x10, 0x08
    return {
        "board": board,
        "name": name,
        "NAME": name.upper(),
        "region_banks": tuple(region_banks),
        "region_arguments": "".join(f", region{i}, {name.upper()}_REGION{i}_BYTES" for i in range(len(region_banks))),
        "system": board.banks[0].name,
        "selftest": selftest,
        "slots": slots,
        "image_room": (slots.origin if slots else board.flash.end) - board.flash.origin,
        "boot_bytes": board.boot_stage.bytes if board.boot_stage else 0,
        "boot_words": boot_stage_words(board) if board.boot_stage else (),
        "v6m": core.v6m,
        "vtor": core.vtor,
        "fpu": board.fpu != "none",
        # A v6-M core always faults on unaligned access; an M3 that emulates it has to be told.
        "ccr_traps": f"{unaligned if core.v6m else divide_by_zero:#04x}u",
        "ccr_why": "unaligned access faults" if core.v6m else "division by zero faults instead of giving 0",
        "uart_template": f"firmware/uart/{board.uart.kind}.c.j2",
        "access": _REGISTER_ACCESS,
    }


def boot_stage_words(board: Board) -> tuple[int, ...]:
    """The board's boot stage as 32-bit words, padded, its CRC last."""
    stage = board.boot_stage
    assert stage is not None
    padded = (*stage.words, *[0] * (stage.bytes // 4 - 1 - len(stage.words)))
    return (*padded, crc32_mpeg2(struct.pack(f"<{len(padded)}I", *padded)))


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2: polynomial 04C11DB7, initial value all ones, not reflected, not inverted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
            crc &= 0xFFFFFFFF
    return crc
