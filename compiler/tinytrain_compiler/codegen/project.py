"""Everything around a compiled model that makes it firmware: start-up, linker script, UART, build files.

The compiler flags stand here once: the CMake project of the user and our own builds read the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Literal

from ..boards import Board
from ..errors import UsageError
from .render import render

App = Literal["selftest", "harness", "train"]

# Contraction would round float arithmetic differently from the host.
C_FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-common", "-ffunction-sections", "-fdata-sections")
WARNING_FLAGS = ("-Wall", "-Wextra", "-Wconversion")
LINK_FLAGS = ("-nostartfiles", "-static", "-Wl,--gc-sections", "-Wl,--fatal-warnings")

# A C statement per register operation of a board file; {0} is the address, {1} the value.
_REGISTER_ACCESS = {
    "write": "REGISTER({0}) = {1};",
    "set": "REGISTER({0}) |= {1};",
    "clear": "REGISTER({0}) &= ~{1};",
    "wait": "while ((REGISTER({0}) & {1}) != {1}) {{}}",
}


def model_sources(name: str, trains: bool) -> tuple[str, ...]:
    """The C files of a compiled model, relative to its directory; the runtime is runtime/*.c."""
    sources = (f"{name}.c", f"{name}_weights.c", f"{name}_kernels.c")
    return (*sources, f"{name}_train.c") if trains else sources


def host_kernels(name: str) -> str:
    """The C file that only builds for this machine add to these, with TT_HOST_KERNELS defined for all."""
    return f"{name}_kernels_host.c"


def linker_script(board: Board) -> str:
    """Path of the linker script, relative to the model's directory."""
    return f"firmware/{board.name}.ld"


def render_project(
    board: Board, name: str, region_banks: Sequence[str], app: App, trains: bool = False
) -> dict[str, str]:
    """The firmware around model ``name``: relative path -> text. Same arguments, same text.

    region_banks: for each memory region of the plan, the name of the board's bank it is placed in.
    ``selftest`` is what users flash, with CMake files; ``harness`` runs records under an emulator,
    ``train`` trains there.
    Raises UsageError for a bank that the board does not have.
    """
    for bank in region_banks:
        board.bank(bank)
    core = board.core_info
    divide_by_zero, unaligned = 0x10, 0x08
    context: dict[str, Any] = {
        "board": board,
        "name": name,
        "NAME": name.upper(),
        "region_banks": tuple(region_banks),
        "region_arguments": "".join(f", region{i}, {name.upper()}_REGION{i}_BYTES" for i in range(len(region_banks))),
        "system": board.banks[0].name,
        "boot_bytes": board.boot_stage.bytes if board.boot_stage else 0,
        "v6m": core.v6m,
        "vtor": core.vtor,
        "fpu": board.fpu != "none",
        # A v6-M core always faults on unaligned access; an M3 that emulates it has to be told.
        "ccr_traps": f"{unaligned if core.v6m else divide_by_zero:#04x}u",
        "ccr_why": "unaligned access faults" if core.v6m else "division by zero faults instead of giving 0",
    }
    files = {
        "firmware/startup.h": "startup.h",
        "firmware/startup.c": "startup.c",
        linker_script(board): "link.ld",
        "firmware/text.h": "text.h",
        "firmware/main.c": f"main_{app}.c",
    }
    if board.boot_stage:
        files["firmware/boot_stage.c"] = "boot_stage.c"
        context["words"] = boot_stage_words(board)
    if app == "train":
        files |= {"firmware/ram_flash.h": "ram_flash.h", "firmware/support_set.h": "support_set.h"}
    if app != "selftest":
        files |= {"firmware/semihosting.h": "semihosting.h", "firmware/harness.h": "harness.h"}
        if app == "train":
            files |= {"firmware/marks.h": "marks.h", "firmware/personalise.h": "personalise.h"}
    else:
        files |= {
            "firmware/uart.h": "uart.h",
            "firmware/uart.c": "uart.c",
            "CMakeLists.txt": "CMakeLists.txt",
            "cmake/arm-none-eabi.cmake": "cmake/arm-none-eabi.cmake",
        }
        context |= {
            "uart_template": f"project/uart/{board.uart.kind}.c.j2",
            "divider": uart_divider(board),
            "access": _REGISTER_ACCESS,
            "c_flags": C_FLAGS,
            "warning_flags": WARNING_FLAGS,
            "link_flags": LINK_FLAGS,
            "model_sources": model_sources(name, trains),
            "firmware_sources": sorted(path for path in files if path.endswith(".c")),
            "linker_script": linker_script(board),
        }
    return {path: render(f"project/{template}.j2", **context) for path, template in files.items()}


def uart_divider(board: Board) -> int:
    """The value of the port's baud-rate register(s) for its clock and baud rate.

    Raises UsageError where the rate cannot be reached within 2 %.
    """
    uart = board.uart
    clocks = uart.clock_hz / uart.baud
    exact, step = {
        "cmsdk": (clocks, 1),
        "stm32-usart-v2": (clocks, 1),
        "pl011": (clocks * 64 / 16, 1),  # 64ths of 16 clocks
        "nrf-uarte": (2**32 / clocks, 0x1000),
    }[uart.kind]
    value = step * round(exact / step)
    if not value or abs(value / exact - 1) > 0.02:
        raise UsageError(f"board '{board.name}': {uart.baud} baud cannot be made from a {uart.clock_hz} Hz clock")
    return value


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
