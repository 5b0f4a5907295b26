"""Run firmware on an emulated core with the same instruction set, and count its instructions exactly.

QEMU has no clock model: what is reported are instructions, never cycles. A run that did not reach its verdict, or
whose results are suspicious, raises TinyTrainError; nothing is returned that was not checked.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

from ..boards import Board, load_board
from ..errors import TinyTrainError, UsageError
from .firmware import Firmware, read_symbols
from .tools import require_tool

QEMU = "qemu-system-arm"
PLUGIN_SOURCE = Path(__file__).with_name("count_instructions.c")
INFER = -1  # label of a record that asks for an inference; others enrol under the label
_HEAD = struct.Struct("<iii")  # status, label, score
_POLL_S = 0.1

Progress = Callable[[int, int], None]


class Record(NamedTuple):
    """What the firmware answered to one record."""

    status: int  # 0, or a negative tt_status
    label: int
    score: int
    output: bytes  # zeros after an enrolment
    features: bytes


@dataclass(frozen=True)
class QemuRun:
    """A run that reached its verdict."""

    console: str
    outputs: bytes  # output.bin as written; see `records`
    records: tuple[Record, ...]
    instructions: list[int]  # of each record's call, the markers not counted
    stack_bytes: int  # deepest use of the stack, over all records and initialisation
    profile: dict[str, int] | None  # function -> instructions over all records, largest first


def emulation_board(board: Board) -> Board:
    """The board that QEMU runs in place of ``board``: its memories and UART, with ``board``'s core and attributes.

    Raises UsageError where no emulated machine has that core.
    """
    if board.qemu_machine is not None:
        return board
    if board.emulated_by is None:
        raise UsageError(
            f"board '{board.name}' cannot be emulated: its file has no [emulation] table that names a machine"
        )
    machine = load_board(board.emulated_by)
    if machine.qemu_machine is None:
        raise UsageError(f"board '{board.name}' is emulated by '{machine.name}', which has no emulation.qemu_machine")
    return dataclasses.replace(machine, core=board.core, dsp=board.dsp, fpu=board.fpu, mve=board.mve)


def emulation_banks(machine: Board, region_banks: Sequence[str]) -> list[str]:
    """Where the regions of a plan for another board go on an emulated one: all into its first bank."""
    own = {bank.name for bank in machine.banks}
    return list(region_banks) if own.issuperset(region_banks) else [machine.banks[0].name] * len(region_banks)


def pack_records(records: Iterable[tuple[int, bytes]]) -> bytes:
    """input.bin for (label, input bytes) pairs; label INFER (-1) asks for an inference, others enrol."""
    packed = [struct.pack("<i", label) + bytes(data) for label, data in records]
    return struct.pack("<I", len(packed)) + b"".join(packed)


def run_on_qemu(
    firmware: Firmware,
    board: Board,
    records: bytes | bytearray | memoryview,
    workdir: Path,
    timeout_s: float = 300.0,
    *,
    profile: bool = False,
    progress: Progress | None = None,
) -> QemuRun:
    """Run harness ``firmware`` on the machine of ``board`` with input.bin = ``records`` (see pack_records).

    Files go to ``workdir``. progress(done, total) is called about ten times a second.
    Raises TinyTrainError unless the firmware ended with its verdict and every file has the size it must have.
    """
    labels = _labels(firmware, bytes(records))
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "output.bin").unlink(missing_ok=True)
    (workdir / "input.bin").write_bytes(records)
    run = execute(firmware.elf, board, workdir, timeout_s, profile=profile, progress=progress, total=len(labels))
    _check_verdict(run, len(labels))
    outputs = (workdir / "output.bin").read_bytes() if (workdir / "output.bin").exists() else b""
    results = _parse_outputs(firmware, outputs, labels)
    if len(run.instructions) != len(labels):
        raise TinyTrainError(f"the plugin counted {len(run.instructions)} calls, there were {len(labels)} records")
    stack = re.search(r"^tinytrain: stack (\d+) bytes$", run.console, re.MULTILINE)
    stack_bytes = int(stack[1]) if stack else 0
    return QemuRun(run.console, outputs, results, run.instructions, stack_bytes, run.profile)


@dataclass(frozen=True)
class Execution:
    """An image that ran and exited with 0; whether it did what it should is the caller's to check."""

    console: str
    messages: str  # QEMU's own
    instructions: list[int]  # of each stretch between markers
    profile: dict[str, int] | None


def execute(
    elf: Path,
    board: Board,
    workdir: Path,
    timeout_s: float,
    *,
    profile: bool = False,
    progress: Progress | None = None,
    total: int = 0,
) -> Execution:
    """Run any image with semihosting on the machine of ``board``, counting between markers; ``workdir`` is its cwd.

    total: marked stretches expected, for progress and messages. Raises TinyTrainError unless it exits with 0 in time.
    """
    if board.qemu_machine is None:
        raise UsageError(f"board '{board.name}' is not a QEMU machine; pass emulation_board(board)")
    qemu = require_tool(QEMU)
    plugin = build_plugin(elf.parent / "qemu-plugin", qemu)
    workdir.mkdir(parents=True, exist_ok=True)
    for name in ("console.txt", "instructions.txt", "profile.txt"):
        (workdir / name).unlink(missing_ok=True)
    command = [
        *(qemu, "-M", board.qemu_machine, "-display", "none", "-monitor", "none", "-serial", "null"),
        *("-chardev", "file,id=console,path=console.txt"),
        *("-semihosting-config", "enable=on,target=native,chardev=console"),
        *("-kernel", str(elf.resolve())),
        *("-plugin", f"file={_escaped(plugin)},out=instructions.txt{',profile=profile.txt' if profile else ''}"),
    ]
    code, messages = _wait(command, workdir, timeout_s, total, progress)
    console = _text(workdir / "console.txt")
    if code:
        raise TinyTrainError(_failure(code, console, messages, elf, board))
    counts = [int(line) for line in _text(workdir / "instructions.txt").split()]
    functions = read_profile(workdir / "profile.txt", elf) if profile else None
    if functions is not None and sum(functions.values()) != sum(counts):
        raise TinyTrainError(f"the profile adds up to {sum(functions.values())}, the count is {sum(counts)}")
    return Execution(console, messages, counts, functions)


def plugin_api(qemu: str) -> int:
    """Version of the plugin interface that this QEMU program speaks."""
    result = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\d+)\.(\d+)", result.stdout)
    if result.returncode or version is None:
        raise TinyTrainError(f"'{qemu} --version' does not say its version: {result.stdout}{result.stderr}")
    release = (int(version[1]), int(version[2]))
    return 1 if release < (9, 0) else 2 if release < (9, 1) else 3


def build_plugin(cache: Path, qemu: str) -> Path:
    """Compile the counting plugin for this machine and QEMU; a changed source gets a file of its own."""
    api = plugin_api(qemu)
    digest = hashlib.sha256(PLUGIN_SOURCE.read_bytes()).hexdigest()[:16]
    library = (cache / f"count_instructions-api{api}-{digest}.so").resolve()
    if library.exists():
        return library
    compiler = require_tool("cc")
    cache.mkdir(parents=True, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}")  # two runs may build at once
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", f"-DTT_PLUGIN_API={api}"]
    command = [compiler, *flags, str(PLUGIN_SOURCE), "-o", str(partial)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TinyTrainError(f"{' '.join(command)}\nfailed:\n{result.stderr.strip()}")
    partial.replace(library)
    return library


def read_profile(path: Path, elf: Path) -> dict[str, int]:
    """Counts by address, as the plugin writes them, summed by function, largest first."""
    lookup = _FunctionLookup(elf)
    functions: dict[str, int] = {}
    for line in path.read_text().splitlines():
        address, count = map(int, line.split())
        name = lookup.name(address)
        functions[name] = functions.get(name, 0) + count
    return dict(sorted(functions.items(), key=lambda item: (-item[1], item[0])))


class _FunctionLookup:
    """Function names by code address."""

    def __init__(self, elf: Path) -> None:
        self._functions = [symbol for symbol in read_symbols(elf) if symbol.is_function]
        self._starts = [function.address for function in self._functions]

    def name(self, address: int) -> str:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return "(no function)"
        function = self._functions[index]
        inside = function.size == 0 or address < function.address + function.size
        return function.name if inside else "(no function)"


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # how QEMU's option syntax spells a comma


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _layout(firmware: Firmware) -> tuple[int, int, int]:
    """Bytes of the harness's input, output and features, as compiled into the image."""
    address = next((s.address for s in read_symbols(firmware.elf) if s.name == "tt_harness_layout"), None)
    if address is None:
        raise UsageError(f"{firmware.elf.name} is not harness firmware; build it with app='harness'")
    with firmware.elf.open("rb") as file:
        for segment in ELFFile(file).iter_segments():
            offset = address - segment["p_vaddr"]
            if 0 <= offset < segment["p_filesz"]:
                values: tuple[int, int, int] = struct.unpack_from("<3I", segment.data(), offset)
                return values
    raise TinyTrainError(f"{firmware.elf.name}: tt_harness_layout lies in no segment")


def _labels(firmware: Firmware, records: bytes) -> list[int]:
    """The records' labels, after checking that the records are what this firmware reads."""
    input_bytes, _, _ = _layout(firmware)
    count = struct.unpack_from("<I", records)[0] if len(records) >= 4 else 0
    size = 4 + input_bytes
    if count == 0 or len(records) != 4 + count * size:
        raise UsageError(f"{len(records)} bytes are not {count} records of a label and {input_bytes} input bytes")
    return [struct.unpack_from("<i", records, 4 + i * size)[0] for i in range(count)]


def _wait(
    command: Sequence[str], workdir: Path, timeout_s: float, total: int, progress: Progress | None
) -> tuple[int, str]:
    """Run QEMU to its end: exit code and messages. TinyTrainError where it takes longer than timeout_s."""
    deadline = time.monotonic() + timeout_s
    with (
        (workdir / "qemu.txt").open("w+", encoding="utf-8", errors="replace") as messages,
        subprocess.Popen(command, cwd=workdir, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages) as process,
    ):
        try:
            while process.poll() is None:
                done = _text(workdir / "instructions.txt").count("\n")
                if progress:
                    progress(done, total)
                if time.monotonic() > deadline:
                    raise TinyTrainError(
                        f"the emulation was stopped after {timeout_s:g} s with {done} of {total} records done. "
                        f"Raise the time limit or use fewer inputs; if none is done, the firmware hangs: "
                        f"see {workdir / 'console.txt'}"
                    )
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
        messages.seek(0)
        said = messages.read().strip()
    if progress and not process.returncode:
        progress(total, total)
    return process.returncode, said


def _failure(code: int, console: str, messages: str, elf: Path, board: Board) -> str:
    """Why a run ended with an exit code other than 0, in the user's words."""
    said = [line for line in console.splitlines() if line.startswith("tinytrain: error:")]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    message = f"the emulated firmware failed ({how}): {said[-1] if said else 'it said nothing'}"
    fault = re.search(r"fault at pc 0x([0-9a-f]+)", console)
    if fault:
        message += f" in {_FunctionLookup(elf).name(int(fault[1], 16))}"
    if "stack overflow" in console or "Lockup" in messages:
        message += f"; the stack has {board.stack_bytes} bytes (stack_bytes in the board's file)"
    return message + (f"\nQEMU: {messages}" if messages else "")


def _check_verdict(run: Execution, count: int) -> None:
    verdict = re.search(r"^tinytrain: done (\d+) records$", run.console, re.MULTILINE)
    if verdict is None:
        raise TinyTrainError(f"the firmware ended without its verdict. It said {run.console!r}, QEMU {run.messages!r}")
    if int(verdict[1]) != count:
        raise TinyTrainError(f"the firmware ran {verdict[1]} records, not {count}")


def _parse_outputs(firmware: Firmware, outputs: bytes, labels: Sequence[int]) -> tuple[Record, ...]:
    _, output_bytes, features = _layout(firmware)
    size = _HEAD.size + output_bytes + features
    if len(outputs) != len(labels) * size:
        raise TinyTrainError(f"output.bin has {len(outputs)} bytes, {len(labels)} records make {len(labels) * size}")
    records = []
    for offset in range(0, len(outputs), size):
        status, label, score = _HEAD.unpack_from(outputs, offset)
        output = outputs[offset + _HEAD.size : offset + _HEAD.size + output_bytes]
        records.append(Record(status, label, score, output, outputs[offset + size - features : offset + size]))
    inferred = [r for r, label in zip(records, labels, strict=True) if label < 0 and r.status == 0]
    # Memory that is not there reads 0 on these machines, without a fault.
    if inferred and not any(any(record.output) or any(record.features) for record in inferred):
        raise TinyTrainError("every output of the emulated firmware is 0: its memory is not where the board file says")
    return tuple(records)
