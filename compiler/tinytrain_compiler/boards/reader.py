"""Board files: TOML read into a `Board`, every mistake of a file named at once."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..resources import BOARDS
from ..toml_file import read_toml
from .cores import CORES
from .keys import KEYS, MACHINE, REGISTER_OPS, STORAGE_BLOCK
from .model import Board, BootStage, Flashing, MemoryRegion, RegisterStep, Sectors, Uart, banks_of
from .tables import Problems, read_table
from .uart import divider

Values = Mapping[str, Any]


def list_boards() -> tuple[str, ...]:
    """Names of the boards that come with the compiler, sorted."""
    return tuple(sorted(path.stem for path in BOARDS.glob("*.toml")))


def load_board(name_or_path: str | os.PathLike[str]) -> Board:
    """Read a board by its name, or from a TOML file of the user's own (anything with a slash or ending in .toml).

    Raises UsageError naming the file and every key that is wrong in it, or the near names where the name is unknown.
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
        text, data = read_toml(path)
    except OSError as error:
        raise UsageError(f"cannot read the board file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"the board file {path} is not valid TOML: {error}") from error
    problems = Problems()
    values = read_table(data, problems)
    check(values, problems)
    if len(problems.lines) == 1:
        raise UsageError(f"{path}: {problems.lines[0]}")
    if problems.lines:
        lines = "".join(f"\n  {line}" for line in problems.lines)
        raise UsageError(f"{path}: {len(problems.lines)} problems{lines}")
    return replace(_board(values), toml=text)


# -- what a single key cannot show --------------------------------------------------------------------------------


def check(values: Values, problems: Problems) -> None:
    """Impossible cores, memories that overlap, names used twice, rates that no register holds."""
    _check_core(values, problems)
    _check_memories(values, problems)
    if "uart" in values:
        _check_uart(values["uart"], problems)
    stage = values.get("boot_stage")
    if stage and _all(stage, "bytes", "words") and (stage["bytes"] % 4 or 4 * len(stage["words"]) > stage["bytes"] - 4):
        problems.add("boot_stage.bytes", f"must be a multiple of 4 that holds {len(stage['words'])} words and a CRC")
    emulation = values.get("emulation")
    if emulation is not None and sum(value is not None for value in emulation.values()) != 1:
        problems.add("emulation", f"needs exactly one of {', '.join(_names_in('emulation'))}")


def _names_in(table: str) -> list[str]:
    return [key.name for key in KEYS if key.table == table]


def _all(values: Values, *keys: str) -> bool:
    return all(key in values for key in keys)


def _check_core(values: Values, problems: Problems) -> None:
    if "core" not in values:
        return
    name, core = values["core"], CORES[values["core"]]
    for attribute in ("dsp", "mve"):
        if values.get(attribute) and not getattr(core, attribute):
            problems.add(attribute, f"cannot be true: a {name} has none")
    if "fpu" in values and values["fpu"] not in core.fpus:
        problems.add("fpu", f"must be one of {', '.join(core.fpus)} for a {name}, not '{values['fpu']}'")


def _check_memories(values: Values, problems: Problems) -> None:
    for kind in ("flash", "ram"):
        if kind in values and not values[kind]:
            problems.add(kind, "needs at least one region")
    rows = [(f"{kind}[{i}]", row) for kind in ("flash", "ram") for i, row in enumerate(values.get(kind, ()))]
    for path, row in rows:
        if _all(row, "origin", "bytes") and row["origin"] + row["bytes"] > 1 << 32:
            problems.add(f"{path}.bytes", "runs past the 4 GB address space")
    for i, row in enumerate(values.get("flash", ())):
        _check_sectors(row, f"flash[{i}]", problems)
    names = [row["name"] for _, row in rows if "name" in row]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.add("ram", f"the name {name} is used twice")
    if not all(_all(row, "name", "origin", "bytes") for _, row in rows) or not _all(values, "flash", "ram"):
        return
    for (_, left), (path, right) in itertools.pairwise(sorted(rows, key=lambda row: row[1]["origin"])):
        end, kind = left["origin"] + left["bytes"], path.partition("[")[0]
        if end > right["origin"]:
            problems.add(kind, f"{left['name']} and {right['name']} overlap at {right['origin']:#010x}")
    for left, right in itertools.pairwise(sorted(values["flash"], key=lambda row: row["origin"])):
        if left["origin"] + left["bytes"] < right["origin"]:
            problems.add("flash", f"must be one piece: {left['name']} and {right['name']} are not adjacent")
    if "stack_bytes" in values and all("fast" in row for row in values["ram"]) and values["ram"]:
        if values["stack_bytes"] % 8:
            problems.add("stack_bytes", "must be a multiple of 8, the stack's alignment")
        bank = banks_of([MemoryRegion(**row) for row in values["ram"]])[0]
        if values["stack_bytes"] >= bank.bytes:
            problems.add("stack_bytes", f"does not fit {bank.name} of {bank.bytes} bytes")


def _check_sectors(flash: Values, path: str, problems: Problems) -> None:
    rows = flash.get("sectors", ())
    if not rows or "bytes" not in flash or not all(_all(row, "count", "bytes") for row in rows):
        return
    for i, row in enumerate(rows):
        if row["bytes"] % STORAGE_BLOCK:
            problems.add(f"{path}.sectors[{i}].bytes", f"must be a multiple of {STORAGE_BLOCK}, not {row['bytes']}")
    total = sum(row["count"] * row["bytes"] for row in rows)
    if total != flash["bytes"]:
        problems.add(f"{path}.sectors", f"add up to {total:,} bytes, the memory has {flash['bytes']:,}")


def _check_uart(uart: Values, problems: Problems) -> None:
    for i, row in enumerate(uart.get("setup", ())):
        if sum(row.get(op) is not None for op in REGISTER_OPS) != 1 and all(op in row for op in REGISTER_OPS):
            problems.add(f"uart.setup[{i}]", f"needs exactly one of {', '.join(REGISTER_OPS)}")
    if _all(uart, "kind", "clock_hz", "baud"):
        try:
            divider(uart["kind"], uart["clock_hz"], uart["baud"])
        except ValueError as error:
            problems.add("uart.baud", str(error))


# -- the records --------------------------------------------------------------------------------------------------


def _board(values: Values) -> Board:
    """The record of a file without problems."""
    emulation = values["emulation"] or {}
    stage = values["boot_stage"]
    return Board(
        **{key: values[key] for key in ("name", "description", "core", "dsp", "fpu", "mve", "clock_hz", "stack_bytes")},
        flash=_flash(values["flash"]),
        ram=tuple(MemoryRegion(**row) for row in values["ram"]),
        uart=_uart(values["uart"]),
        flashing=tuple(Flashing(**row) for row in values["flashing"]),
        boot_stage=None if stage is None else BootStage(stage["bytes"], tuple(stage["words"])),
        emulated_by=emulation.get("board"),
        machines={
            key.removesuffix(MACHINE): value for key, value in emulation.items() if key.endswith(MACHINE) and value
        },
    )


def _flash(rows: list[Values]) -> MemoryRegion:
    """All regions as one; its sectors are known where those of all regions are."""
    rows = sorted(rows, key=lambda row: row["origin"])
    known = all(row["sectors"] for row in rows)
    sectors = tuple(Sectors(**run) for row in rows for run in row["sectors"]) if known else ()
    return MemoryRegion("FLASH", rows[0]["origin"], sum(row["bytes"] for row in rows), sectors=sectors)


def _uart(values: Values) -> Uart:
    steps = []
    for row in values["setup"]:
        op = next(op for op in REGISTER_OPS if row[op] is not None)
        steps.append(RegisterStep(row["at"], op, row[op], row["why"]))
    rate = {key: values[key] for key in ("kind", "clock_hz", "baud")}
    return Uart(**rate, base=values["base"], terminal=values["terminal"], setup=tuple(steps), divider=divider(**rate))
