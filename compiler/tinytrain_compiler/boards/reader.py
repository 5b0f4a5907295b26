"""Board files: TOML read into a `Board`, every mistake named."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..resources import BOARDS
from .cores import CORES
from .model import REGISTER_OPS, UART_KINDS, Board, BootStage, MemoryRegion, RegisterStep, Uart


def list_boards() -> tuple[str, ...]:
    """Names of the boards that come with the compiler, sorted."""
    return tuple(sorted(path.stem for path in BOARDS.glob("*.toml")))


def load_board(name_or_path: str | os.PathLike[str]) -> Board:
    """Read a board by its name, or from a TOML file of the user's own (anything with a slash or ending in .toml).

    Raises UsageError naming the file and the key where the file is not a board, or the near names where the
    name is unknown.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml") or "/" in text or os.sep in text:
        return _read(Path(text))
    names = list_boards()
    if text not in names:
        near = difflib.get_close_matches(text.lower().replace("-", "_"), names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        known = f"Boards: {', '.join(names)}; a path to a TOML file works too."
        raise UsageError(f"unknown board '{text}'.{hint} {known}")
    return _read(BOARDS / f"{text}.toml")


def _read(path: Path) -> Board:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the board file {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the board file {path} is not valid TOML: {error}") from error
    return _board(_Table(path, "", data))


class _Table:
    """A TOML table whose every complaint names the file and the key; keys nobody asked for are typing errors."""

    def __init__(self, path: Path, prefix: str, data: object) -> None:
        if not isinstance(data, dict):
            raise UsageError(f"{path}: '{prefix.rstrip('.')}' must be a table")
        self._path, self._prefix, self._data = path, prefix, data
        self._asked: set[str] = set()

    def fail(self, key: str, problem: str) -> UsageError:
        return UsageError(f"{self._path}: '{self._prefix}{key}' {problem}")

    def has(self, key: str) -> bool:
        return key in self._data

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        self._asked.add(key)
        value = self._data.get(key, default)
        if value is None:
            raise self.fail(key, "is missing")
        if type(value) is not kind:
            words = {int: "a whole number", str: "a string", bool: "true or false", list: "an array", dict: "a table"}
            raise self.fail(key, f"must be {words[kind]}, not {value!r}")
        return value

    def number(self, key: str, default: int | None = None, low: int = 0, high: int = 0xFFFFFFFF) -> int:
        value: int = self.get(key, int, default)
        if not low <= value <= high:
            raise self.fail(key, f"must lie between {low} and {high:#x}, not {value}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value: str = self.get(key, str)
        if value not in choices:
            raise self.fail(key, f"must be one of {', '.join(choices)}, not '{value}'")
        return value

    def identifier(self, key: str) -> str:
        value: str = self.get(key, str)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise self.fail(key, f"must be letters, digits and underscores, not '{value}'")
        return value

    def table(self, key: str) -> _Table:
        return _Table(self._path, f"{self._prefix}{key}.", self.get(key, dict))

    def tables(self, key: str, default: list[object] | None = None) -> list[_Table]:
        rows = self.get(key, list, default)
        return [_Table(self._path, f"{self._prefix}{key}[{i}].", row) for i, row in enumerate(rows)]

    def done(self) -> None:
        for key in self._data:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                raise self.fail(key, "is not a key of a board file" + (f"; did you mean '{near[0]}'?" if near else ""))


def _regions(top: _Table, key: str) -> tuple[MemoryRegion, ...]:
    regions = []
    for row in top.tables(key):
        region = MemoryRegion(
            name=row.identifier("name"),
            origin=row.number("origin"),
            bytes=row.number("bytes", low=1),
            fast=row.get("fast", bool, False),
        )
        if region.end > 1 << 32:
            raise row.fail("bytes", "runs past the 4 GB address space")
        row.done()
        regions.append(region)
    if not regions:
        raise top.fail(key, "needs at least one region")
    return tuple(regions)


def _flash(top: _Table) -> MemoryRegion:
    regions = sorted(_regions(top, "flash"), key=lambda r: r.origin)
    for left, right in itertools.pairwise(regions):
        if left.end != right.origin:
            raise top.fail("flash", f"must be one piece: {left.name} and {right.name} are not adjacent")
    return MemoryRegion("FLASH", regions[0].origin, sum(r.bytes for r in regions))


def _uart(table: _Table) -> Uart:
    steps = []
    for row in table.tables("setup", []):
        ops = [op for op in REGISTER_OPS if row.has(op)]
        if len(ops) != 1:
            raise row.fail("", f"needs exactly one of {', '.join(REGISTER_OPS)}")
        steps.append(RegisterStep(row.number("at"), ops[0], row.number(ops[0]), row.get("why", str)))
        row.done()
    uart = Uart(
        kind=table.choice("kind", UART_KINDS),
        base=table.number("base"),
        clock_hz=table.number("clock_hz", low=1),
        baud=table.number("baud", 115_200, low=1),
        setup=tuple(steps),
    )
    table.done()
    return uart


def _boot_stage(table: _Table) -> BootStage:
    size = table.number("bytes", low=8)
    words = table.get("words", list)
    if not all(type(word) is int and 0 <= word <= 0xFFFFFFFF for word in words):
        raise table.fail("words", "must be 32-bit numbers")
    if size % 4 or 4 * len(words) > size - 4:
        raise table.fail("bytes", f"must be a multiple of 4 that holds {len(words)} words and a CRC")
    table.done()
    return BootStage(size, tuple(words))


def _board(top: _Table) -> Board:
    core = top.choice("core", sorted(CORES))
    emulation = top.table("emulation") if top.has("emulation") else None
    board = Board(
        name=top.identifier("name"),
        description=top.get("description", str),
        core=core,
        dsp=top.get("dsp", bool),
        fpu=top.choice("fpu", tuple(CORES[core].fpus)),
        mve=top.get("mve", bool),
        clock_hz=top.number("clock_hz", low=1),
        stack_bytes=top.number("stack_bytes", 4096, low=256),
        flash=_flash(top),
        ram=_regions(top, "ram"),
        uart=_uart(top.table("uart")),
        boot_stage=_boot_stage(top.table("boot_stage")) if top.has("boot_stage") else None,
        emulated_by=emulation.get("board", str) if emulation and emulation.has("board") else None,
        machines={"qemu": emulation.get("qemu_machine", str)} if emulation and emulation.has("qemu_machine") else {},
    )
    if emulation:
        emulation.done()
        if (board.emulated_by is None) == (not board.machines):
            raise top.fail("emulation", "needs exactly one of board, qemu_machine")
    top.done()
    _check(top, board)
    return board


def _check(top: _Table, board: Board) -> None:
    """Reject what a TOML reader cannot see: impossible cores, memories that overlap, names used twice."""
    for attribute in ("dsp", "mve"):
        if getattr(board, attribute) and not getattr(board.core_info, attribute):
            raise top.fail(attribute, f"cannot be true: a {board.core} has none")
    if board.stack_bytes % 8:
        raise top.fail("stack_bytes", "must be a multiple of 8, the stack's alignment")
    if board.stack_bytes >= board.banks[0].bytes:
        raise top.fail("stack_bytes", f"does not fit {board.banks[0].name} of {board.banks[0].bytes} bytes")
    regions = sorted((board.flash, *board.ram), key=lambda r: r.origin)
    for left, right in itertools.pairwise(regions):
        if left.end > right.origin:
            raise top.fail("ram", f"{left.name} and {right.name} overlap at {right.origin:#010x}")
    names = [region.name for region in regions]
    for name in names:
        if names.count(name) > 1:
            raise top.fail("ram", f"the name {name} is used twice")
