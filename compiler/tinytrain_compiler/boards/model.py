"""What a board is: frozen records. Addresses are absolute, sizes are bytes, clocks are hertz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import UsageError
from .cores import CORES, Core, cpu_flags


@dataclass(frozen=True)
class Sectors:
    """Erase units of one size, one behind the other."""

    count: int
    bytes: int  # of each


@dataclass(frozen=True)
class MemoryRegion:
    """One memory as the data sheet names it: [origin, origin + size)."""

    name: str
    origin: int
    bytes: int
    fast: bool = False  # reached without wait states (tightly coupled, or the core's own SRAM)
    sectors: tuple[Sectors, ...] = ()  # what is erased at once, by address; () for RAM, and where it is not known

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.origin + self.bytes


@dataclass(frozen=True)
class Bank:
    """RAM regions at adjacent addresses: one buffer may cross from one into the next."""

    name: str
    origin: int
    bytes: int
    regions: tuple[MemoryRegion, ...]

    @property
    def fast(self) -> bool:
        """True where it begins with fast memory."""
        return self.regions[0].fast


def banks_of(ram: Sequence[MemoryRegion]) -> tuple[Bank, ...]:
    """Adjacent regions merged, fast banks first, then by address."""
    groups: list[list[MemoryRegion]] = []
    for region in sorted(ram, key=lambda r: r.origin):
        if groups and groups[-1][-1].end == region.origin:
            groups[-1].append(region)
        else:
            groups.append([region])
    banks = [Bank("_".join(r.name for r in g), g[0].origin, sum(r.bytes for r in g), tuple(g)) for g in groups]
    return tuple(sorted(banks, key=lambda bank: (not bank.fast, bank.origin)))


@dataclass(frozen=True)
class RegisterStep:
    """One 32-bit register access of a peripheral's set-up. ``wait`` spins until all bits of value are 1."""

    at: int
    op: str  # write, set, clear or wait
    value: int
    why: str


@dataclass(frozen=True)
class Uart:
    """The port that the bring-up firmware prints on; clock_hz is the clock that reaches it after start-up."""

    kind: str
    base: int
    clock_hz: int
    baud: int
    divider: int  # the value of its baud-rate register(s)
    terminal: str  # where a computer receives it; "" where the file does not say
    setup: tuple[RegisterStep, ...]


@dataclass(frozen=True)
class Flashing:
    """A program that writes an image; {elf}, {bin}, {hex} and {address} in its command line are the image's."""

    tool: str
    command: str


@dataclass(frozen=True)
class BootStage:
    """Code in front of the vector table that the part's boot ROM demands; ``bytes`` includes its CRC."""

    bytes: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class Board:
    """One board: core, memories, and what the generated firmware needs to start and print on it."""

    name: str
    description: str
    core: str
    dsp: bool
    fpu: str
    mve: bool
    clock_hz: int  # the part's rated clock, not the one the bring-up firmware runs at
    stack_bytes: int
    flash: MemoryRegion
    ram: tuple[MemoryRegion, ...]
    uart: Uart
    flashing: tuple[Flashing, ...]
    boot_stage: BootStage | None
    emulated_by: str | None  # name of the emulated board with the same core
    machines: Mapping[str, str]  # runner -> its name of this very board
    toml: str = field(default="", compare=False, repr=False)  # the file it was read from, word for word

    @property
    def flash_bytes(self) -> int:
        """Size of the flash in bytes."""
        return self.flash.bytes

    @property
    def ram_bytes(self) -> int:
        """Size of all RAM in bytes."""
        return sum(region.bytes for region in self.ram)

    @property
    def core_info(self) -> Core:
        """What its core can do."""
        return CORES[self.core]

    @cached_property
    def banks(self) -> tuple[Bank, ...]:
        """RAM as buffers see it: adjacent regions merged, fast banks first, then by address."""
        return banks_of(self.ram)

    def bank(self, name: str) -> Bank:
        """The bank of that name; an unknown name is a UsageError."""
        for bank in self.banks:
            if bank.name == name:
                return bank
        known = ", ".join(b.name for b in self.banks)
        raise UsageError(f"board '{self.name}' has no memory bank '{name}'; it has {known}")

    @property
    def cpu_flags(self) -> tuple[str, ...]:
        """Flags for GCC and Clang that select exactly this core."""
        return cpu_flags(self.core, self.fpu, {"dsp": self.dsp, "mve": self.mve})
