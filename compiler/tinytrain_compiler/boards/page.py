"""docs/reference/boards.md, printed from the rows of keys.py; `python scripts/reference.py` writes it."""

from __future__ import annotations

from typing import Any

from .keys import KEYS, REQUIRED, UINT32, Key, Number, Table, Tables
from .reader import list_boards, load_board

_HEAD = """# Boards

A board is one TOML file: its core, its memories, and what a first program needs to start and to print on it. To add
one, copy the file of the nearest board (they lie in `boards/`), change it, and give its path in place of a name:

```
tinytrain-compile model.onnx --board myboard.toml
```

`tinytrain boards` lists those that come with the compiler. All that is wrong with a file is said at once. Addresses are
absolute. This page is printed by `python scripts/reference.py` from the table that the reader
checks files with.
"""


def page() -> str:
    """The whole document."""
    tables: dict[str, list[Key]] = {}
    for key in KEYS:
        tables.setdefault(key.table, []).append(key)
    parts = [_HEAD]
    for table, keys in tables.items():
        rows = [f"| `{key.name}` | {_type(key)} | {key.unit} | {_default(key)} | {key.meaning} |" for key in keys]
        parts.append("\n".join([f"## {_title(table)}\n", "| key | type | unit | default | meaning |",
                                "|---|---|---|---|---|", *rows, ""]))  # fmt: skip
    parts.append(_built_in())
    return "\n".join(parts)


def _title(table: str) -> str:
    if not table:
        return "The file"
    path = table.replace("[]", "")
    return f"`[[{path}]]`" if table.endswith("[]") else f"`[{path}]`"


def _type(key: Key) -> str:
    kind = key.kind
    if isinstance(kind, Number) and (kind.low or kind.high != UINT32):
        return f"number, at least {kind.low}"
    if isinstance(kind, Table | Tables):
        return f"{kind.words}, below"
    return kind.words


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return "required"
    value: Any = key.default
    if value is None or value in ("", ()):
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"{value:,}"


def _built_in() -> str:
    rows = []
    for board in map(load_board, list_boards()):
        erased = " or ".join(f"{size // 1024} KB" for size in sorted({run.bytes for run in board.flash.sectors}))
        flash, ram = f"{board.flash_bytes // 1024:,} KB, erased {erased} at once", f"{board.ram_bytes // 1024:,} KB"
        rows.append(f"| `{board.name}` | {board.description} | {flash} | {ram} | {board.uart.terminal} |")
    head = ["## The boards that come with the compiler\n", "| name | board | flash | RAM | its self-test prints on |"]
    return "\n".join([*head, "|---|---|---|---|---|", *rows, ""])
