"""A board file's tables against the rows of keys.py: all problems at once, and the values where there are none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from .keys import KEYS, REQUIRED, Key, Table, Tables

_BY_TABLE: dict[str, list[Key]] = {}
for _key in KEYS:
    _BY_TABLE.setdefault(_key.table, []).append(_key)


class Problems:
    """What is wrong with a file, in the order it was found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, path: str, problem: str) -> None:
        self.lines.append(f"'{path}' {problem}")


def read_table(data: Mapping[str, Any], problems: Problems, table: str = "", prefix: str = "") -> dict[str, Any]:
    """The values of a table by key, checked one by one and with defaults; keys with a problem are missing.

    table: the table's path in KEYS; prefix: the same with indices, as messages name it.
    """
    keys = {key.name: key for key in _BY_TABLE[table]}
    for name in data:
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            problems.add(prefix + name, f"is not a key of a board file{hint}")
    values: dict[str, Any] = {}
    for name, key in keys.items():
        if name not in data:
            if key.default is REQUIRED:
                problems.add(prefix + name, "is missing")
            else:
                values[name] = key.default
            continue
        problem = key.kind.problem(data[name])
        if problem:
            problems.add(prefix + name, problem)
        elif isinstance(key.kind, Table):
            values[name] = read_table(data[name], problems, key.path, f"{prefix}{name}.")
        elif isinstance(key.kind, Tables):
            rows = data[name]
            values[name] = [read_table(row, problems, key.path, f"{prefix}{name}[{i}].") for i, row in enumerate(rows)]
        else:
            values[name] = data[name]
    return values
