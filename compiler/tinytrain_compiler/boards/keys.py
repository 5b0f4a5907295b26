"""The keys of a board file: one table, from which the reader checks a file and docs/reference/boards.md is printed.

A new key is a row here and, where it means something new, a field of model.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .cores import CORES
from .uart import UARTS

REQUIRED: Any = object()
UINT32 = 0xFFFFFFFF
STORAGE_BLOCK = 32  # TT_STORAGE_BLOCK: what the runtime programs at once
REGISTER_OPS = ("write", "set", "clear", "wait")


class Kind(Protocol):
    """What a value must be."""

    @property
    def words(self) -> str:
        """As the documentation says it."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, after "'key' "; None where nothing is."""


@dataclass(frozen=True)
class Flag:
    words: str = "true or false"

    def problem(self, value: Any) -> str | None:
        return None if type(value) is bool else f"must be true or false, not {value!r}"


@dataclass(frozen=True)
class Number:
    """A whole number, low <= n <= high."""

    low: int = 0
    high: int = UINT32
    words: str = "number"

    def problem(self, value: Any) -> str | None:
        if type(value) is not int:
            return f"must be a whole number, not {value!r}"
        return (
            None if self.low <= value <= self.high else f"must lie between {self.low} and {self.high:#x}, not {value}"
        )


@dataclass(frozen=True)
class Line:
    """Text that goes into comments and documents: one line of printable characters."""

    words: str = "one line of text"

    def problem(self, value: Any) -> str | None:
        if type(value) is not str:
            return f"must be a string, not {value!r}"
        return None if value.isprintable() else f"must be one line of printable characters, not {value!r}"


@dataclass(frozen=True)
class Identifier:
    words: str = "identifier"

    def problem(self, value: Any) -> str | None:
        if type(value) is not str:
            return f"must be a string, not {value!r}"
        fine = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)
        return None if fine else f"must be letters, digits and underscores, not '{value}'"


@dataclass(frozen=True)
class Choice:
    names: Sequence[str]

    @property
    def words(self) -> str:
        return " or ".join(f"`{name}`" for name in self.names)

    def problem(self, value: Any) -> str | None:
        if type(value) is not str:
            return f"must be a string, not {value!r}"
        return None if value in self.names else f"must be one of {', '.join(self.names)}, not '{value}'"


@dataclass(frozen=True)
class Words:
    words: str = "array of 32-bit numbers"

    def problem(self, value: Any) -> str | None:
        fine = type(value) is list and all(type(word) is int and 0 <= word <= UINT32 for word in value)
        return None if fine else "must be an array of 32-bit numbers"


@dataclass(frozen=True)
class Table:
    words: str = "table"

    def problem(self, value: Any) -> str | None:
        return None if type(value) is dict else "must be a table"


@dataclass(frozen=True)
class Tables:
    words: str = "array of tables"

    def problem(self, value: Any) -> str | None:
        fine = type(value) is list and all(type(row) is dict for row in value)
        return None if fine else f"must be an array of tables, not {value!r}"


@dataclass(frozen=True)
class Key:
    """One key. path: dots between tables, [] behind an array of them. default: None where it may be left out."""

    path: str
    kind: Kind
    meaning: str
    unit: str = ""
    default: Any = REQUIRED

    @property
    def table(self) -> str:
        """The path of the table it stands in; "" for the file itself."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2].removesuffix("[]")


_ADDRESS = Number()
_SIZE = Number(low=1)

KEYS: tuple[Key, ...] = (
    Key("name", Identifier(), "the board's name; its linker script is called after it"),
    Key("description", Line(), "one line for lists, reports and comments"),
    Key("core", Choice(sorted(CORES)), "the processor"),
    Key("dsp", Flag(), "whether it has the DSP extension"),
    Key("fpu", Choice(("none", "sp", "dp")), "its floating-point unit: none, single or double precision"),
    Key("mve", Flag(), "whether it has the vector extension (Helium)"),
    Key("clock_hz", Number(low=1), "the part's rated clock, not the one that the bring-up firmware runs at", "Hz"),
    Key("stack_bytes", Number(low=256), "room for the stack, a multiple of 8", "bytes", 4096),
    Key("flash[]", Tables(), "the flash that code runs from; several must be adjacent"),
    Key("flash[].name", Identifier(), "as the data sheet calls it"),
    Key("flash[].origin", _ADDRESS, "its first address"),
    Key("flash[].bytes", _SIZE, "its size", "bytes"),
    Key("flash[].sectors[]", Tables(), "what is erased at once, from the first address; without it nothing can be "
        "saved in this flash", default=()),
    Key("flash[].sectors[].count", _SIZE, "how many of one size follow each other"),
    Key("flash[].sectors[].bytes", Number(low=STORAGE_BLOCK), f"size of each, a multiple of {STORAGE_BLOCK}", "bytes"),
    Key("ram[]", Tables(), "memories for data; adjacent ones are used as one"),
    Key("ram[].name", Identifier(), "as the data sheet calls it"),
    Key("ram[].origin", _ADDRESS, "its first address"),
    Key("ram[].bytes", _SIZE, "its size", "bytes"),
    Key("ram[].fast", Flag(), "reached without wait states; such memory is filled first", default=False),
    Key("uart", Table(), "the port that the bring-up firmware prints on"),
    Key("uart.kind", Choice(tuple(UARTS)), "its driver"),
    Key("uart.base", _ADDRESS, "address of its registers"),
    Key("uart.clock_hz", Number(low=1), "the clock that reaches it as the bring-up firmware runs", "Hz"),
    Key("uart.baud", Number(low=1), "its rate; must fit the driver's register and be met within 2 %", "baud", 115_200),
    Key("uart.terminal", Line(), "where a computer receives it, for the folder's README", default=""),
    Key("uart.setup[]", Tables(), "32-bit register accesses that give it its clock and pins, in order", default=()),
    Key("uart.setup[].at", _ADDRESS, "the register's address"),
    Key("uart.setup[].write", _ADDRESS, "the value it gets; each access has one of write, set, clear and wait",
        default=None),
    Key("uart.setup[].set", _ADDRESS, "bits that become 1", default=None),
    Key("uart.setup[].clear", _ADDRESS, "bits that become 0", default=None),
    Key("uart.setup[].wait", _ADDRESS, "bits that are waited for until all are 1", default=None),
    Key("uart.setup[].why", Line(), "the comment beside it"),
    Key("flashing[]", Tables(), "ways to write an image to the board, for the folder's README", default=()),
    Key("flashing[].tool", Line(), "the program"),
    Key("flashing[].command", Line(), "its command line; {elf}, {bin} and {hex} stand for the image, {address} for the "
        "flash's first address"),
    Key("boot_stage", Table(), "code in front of the vector table that the boot ROM demands", default=None),
    Key("boot_stage.bytes", Number(low=8), "its size with the CRC-32/MPEG-2 that ends it, a multiple of 4", "bytes"),
    Key("boot_stage.words", Words(), "its code"),
    Key("emulation", Table(), "what runs in its place without hardware; one of the keys below", default=None),
    Key("emulation.board", Line(), "the board with the same core that an emulator has", default=None),
    Key("emulation.qemu_machine", Line(), "QEMU's name of this very board", default=None),
)  # fmt: skip
MACHINE = "_machine"  # ends a key of [emulation] that names a runner's machine
