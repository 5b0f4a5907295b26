"""The most stack that a firmware's functions can take, proven from the linked image.

Frames come from the call frame information that the compiler leaves for debuggers: the largest distance between the
stack pointer and where it was on entry. Calls come from the disassembly, so library code counts too. What is called
through a pointer is read from the model's descriptor; there the graph ends at the user's own callbacks.
"""

from __future__ import annotations

import bisect
import re
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from ..errors import TinyTrainError
from ..training.heads import HEADS
from .firmware import Firmware
from .tools import require_tool

OBJDUMP = "arm-none-eabi-objdump"
STACK_POINTER = 13  # DWARF's number
RESET = "Reset_Handler"
# Of templates/harness/marks.h.j2: called in place of the model's functions.
MARKS = ("marked_run_frozen", "marked_run_trained", "marked_backward")
CALLBACKS = ("next_sample", "progress", "store_features", "load_features")  # of templates/harness/support_set.h.j2

DRIVEN = ("tt_stored_read",)  # calls the user's storage driver, none of the model's functions, which call it

_HEADING = re.compile(r"^([0-9a-f]+) <(.+)>:$")
_INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t([\w.]+)(?:\t(.*))?$")
_TARGET = re.compile(r"\b([0-9a-f]+) <")


class StackBound(NamedTuple):
    """A function's worst case."""

    bytes: int  # of it and all it calls, without interrupts and callbacks
    path: tuple[tuple[str, int], ...]  # the functions on the way there, with their frames


@dataclass
class _Function:
    name: str
    address: int
    frame: int = 0
    calls: set[int] = field(default_factory=set)  # addresses
    calls_pointers: bool = False


class StackGraph:
    """Frames and calls of one image."""

    def __init__(self, firmware: Firmware) -> None:
        self._elf = firmware.elf
        self._functions = _disassembled(firmware.elf)
        self._starts = sorted(self._functions)
        self._head = self._pointers_in({f"tt_{head}_learning" for head in HEADS})
        self._pointers = self._head | self._pointers_in({f"{firmware.name}_model", f"{firmware.name}_learning"})
        self._driven: dict[int, set[int]] = {f.address: set() for f in self._functions.values() if f.name in DRIVEN}

    def worst(self, entry: str) -> StackBound:
        """Of a function of the model's API; its user's callbacks and interrupts are not in it.

        Raises TinyTrainError for a recursion, naming its functions.
        """
        return self._worst(self._named(entry).address, self._pointers, self._driven, [])

    def worst_of_image(self) -> StackBound:
        """From reset, with the emulator's own program around the model: what painting the stack can find at most."""
        own = {f.address for f in self._functions.values() if f.name in (*MARKS, *CALLBACKS)}
        marks = {f.address for f in self._functions.values() if f.name in MARKS}
        around = (own | self._head if marks else self._pointers, marks)
        pointers_of = dict.fromkeys(around[1], self._pointers) | self._driven
        return self._worst(self._named(RESET).address, around[0], pointers_of, [])

    def _worst(
        self, address: int, pointers: set[int], pointers_of: Mapping[int, set[int]], above: list[int]
    ) -> StackBound:
        function = self._functions[address]
        if address in above:
            cycle = [self._functions[a].name for a in (*above[above.index(address) :], address)]
            raise TinyTrainError(f"{self._elf.name}: the stack has no bound, {' calls '.join(cycle)}")
        called = set(function.calls)
        if function.calls_pointers:
            called |= pointers_of.get(address, pointers)
        deepest = max(
            (self._worst(to, pointers, pointers_of, [*above, address]) for to in sorted(called)),
            key=lambda bound: bound.bytes,
            default=StackBound(0, ()),
        )
        return StackBound(function.frame + deepest.bytes, ((function.name, function.frame), *deepest.path))

    def _named(self, name: str) -> _Function:
        found = next((function for function in self._functions.values() if function.name == name), None)
        if found is None:
            raise TinyTrainError(f"{self._elf.name} has no function {name}")
        return found

    def _pointers_in(self, descriptors: set[str]) -> set[int]:
        """Functions whose addresses stand in these constants."""
        found = set()
        with self._elf.open("rb") as file:
            elf = ELFFile(file)
            table: Any = elf.get_section_by_name(".symtab")
            for symbol in table.iter_symbols():
                if symbol["st_info"]["type"] == "STT_OBJECT" and symbol.name in descriptors:
                    words = struct.iter_unpack("<I", _bytes_at(elf, symbol["st_value"], symbol["st_size"]))
                    found |= {word - 1 for (word,) in words if word & 1 and word - 1 in self._functions}
        return found


def stack_bounds(firmware: Firmware) -> dict[str, StackBound]:
    """Bounds of all functions of a model's API; the firmware must have been built with `whole_api`.

    Raises ToolMissingError, and TinyTrainError where a function calls itself or has a frame of variable size.
    """
    graph = StackGraph(firmware)
    return {entry: graph.worst(entry) for entry in firmware.api}


def _bytes_at(elf: Any, address: int, size: int) -> bytes:
    for segment in elf.iter_segments():
        offset = address - segment["p_vaddr"]
        if segment["p_type"] == "PT_LOAD" and offset >= 0 and offset + size <= segment["p_filesz"]:
            return bytes(segment.data()[offset : offset + size])
    return b""


def _disassembled(elf: Path) -> dict[int, _Function]:
    """All functions of the image by address."""
    command = [require_tool(OBJDUMP), "-d", "--no-show-raw-insn", str(elf)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TinyTrainError(f"{' '.join(command)}\nfailed:\n{result.stderr.strip()}")
    functions: dict[int, _Function] = {}
    listings: dict[int, list[tuple[str, str]]] = {}
    current = 0
    for line in result.stdout.splitlines():
        heading, instruction = _HEADING.match(line), _INSTRUCTION.match(line)
        if heading:
            current = int(heading[1], 16)
            functions[current] = _Function(heading[2], current)
            listings[current] = []
        elif instruction and not instruction[2].startswith("."):
            listings[current].append((instruction[2], instruction[3] or ""))
    frames = _Frames(elf)
    starts = sorted(functions)
    for index, (address, function) in enumerate(sorted(functions.items())):
        listing = listings[address]
        following = starts[index + 1] if index + 1 < len(starts) else None
        _read_calls(function, listing, starts, following)
        frame = frames.of(address, function.name)
        function.frame = _pushed(listing) if frame is None else frame
    return functions


def _read_calls(
    function: _Function, listing: Sequence[tuple[str, str]], starts: Sequence[int], following: int | None
) -> None:
    for index, (mnemonic, operands) in enumerate(listing):
        target = _TARGET.search(operands) if mnemonic.startswith(("b", "cb")) else None
        if target:
            where = int(target[1], 16)
            to = starts[bisect.bisect_right(starts, where) - 1]
            # v6-M jumps far inside a function with bl; only one to its start is a call.
            if to != function.address or (where == to and mnemonic in ("bl", "blx")):
                function.calls.add(to)
        elif mnemonic.startswith(("blx", "bx")) and not _returns(listing[: index + 1]):
            function.calls_pointers = True
    if listing and following is not None and not _leaves(*listing[-1]):
        function.calls.add(following)  # assembly that runs on into the next function


def _returns(listing: Sequence[tuple[str, str]]) -> bool:
    """Whether the last instruction is `bx lr`, or v6-M's `pop {r3}`, perhaps `add sp, #8`, `bx r3`."""
    *before, (mnemonic, operands) = listing
    if mnemonic.startswith("blx") or operands.strip() == "lr":
        return mnemonic.startswith("bx")
    if before and before[-1][0] == "add" and before[-1][1].startswith("sp, #"):
        before.pop()
    return bool(before) and before[-1] == ("pop", f"{{{operands.strip()}}}")


def _leaves(mnemonic: str, operands: str) -> bool:
    """Whether nothing runs after this instruction; a call may be of a function that does not return."""
    if mnemonic.split(".")[0] in ("b", "bx", "bl", "blx", "nop", "udf", "bkpt"):
        return True
    return "pc" in operands and mnemonic.startswith(("pop", "ldr", "ldm", "mov", "add", "tb"))


def _pushed(listing: Sequence[tuple[str, str]]) -> int:
    """All that a function without frame information pushes, as if nothing were taken off again."""
    total = 0
    for mnemonic, operands in listing:
        subtracted = re.match(r"(?:sp, )?sp, #(\d+)", operands)
        before = re.search(r"\[sp, #-(\d+)\]!", operands)
        if mnemonic.startswith("sub") and subtracted:
            total += int(subtracted[1])
        elif before:
            total += int(before[1])
        elif mnemonic.startswith(("push", "vpush")) or (mnemonic.startswith("stmdb") and operands.startswith("sp!")):
            total += (8 if "{d" in operands else 4) * _listed(operands[operands.index("{") + 1 : operands.index("}")])
    return total


def _listed(registers: str) -> int:
    """How many registers an assembler list such as "r4-r7, lr" names."""
    count = 0
    for part in registers.split(","):
        first, _, last = part.strip().partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count


class _Frames:
    """Largest frames by address, from .debug_frame."""

    def __init__(self, elf: Path) -> None:
        self._ranges: list[tuple[int, int, int | None]] = []  # first, behind, bytes (None: not a constant)
        with elf.open("rb") as file:
            information: Any = ELFFile(file).get_dwarf_info()
            entries = information.CFI_entries() if information and information.has_CFI() else []
            for entry in entries:
                if isinstance(entry, FDE):
                    start: int = entry["initial_location"] & ~1
                    rows: Any = entry.get_decoded().table
                    fixed = all(row["cfa"].reg == STACK_POINTER for row in rows)
                    frame = max((row["cfa"].offset for row in rows), default=0) if fixed else None
                    self._ranges.append((start, start + entry["address_range"], frame))
        self._ranges.sort(key=lambda item: item[:2])

    def of(self, address: int, name: str) -> int | None:
        """Bytes; None where the function has no information. TinyTrainError where its frame varies."""
        index = bisect.bisect_right(self._ranges, address, key=lambda item: item[0]) - 1
        if index < 0 or address >= self._ranges[index][1]:
            return None
        frame = self._ranges[index][2]
        if frame is None:
            raise TinyTrainError(f"the stack has no bound: {name} has a frame of variable size")
        return frame
