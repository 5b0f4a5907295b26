"""Jinja2 set up for C: strict, and with the few filters that layout needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from ..resources import find_template
from .layout import comment, wrapped

LINE = 110  # columns of generated tables
NAME = 60  # characters of a model's name in a comment
IDENTIFIER = 40  # and in an identifier
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~")  # of ASCII, all but the backslash


@cache
def environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML
    )
    env.filters["c_table"] = c_table
    env.filters["c_list"] = lambda values: c_table(np.array(values))
    env.filters["c_float"] = c_float
    env.filters["c_comment"] = c_comment
    env.filters["comment"] = comment
    env.filters["wrapped"] = wrapped
    env.filters["grouped"] = lambda value: f"{value:,}"
    return env


def _source(template: str) -> str | None:
    path = find_template(template)
    return None if path is None else path.read_text()


def render(template: str, **context: Any) -> str:
    return environment().get_template(template).render(**context)


def c_table(values: NDArray[Any]) -> str:
    """Numbers of an array, wrapped, four spaces in front of each line."""
    lines, line = [], "   "
    for value in values.reshape(-1).tolist():
        text = f" {c_float(value) if values.dtype.kind == 'f' else value},"
        if len(line) + len(text) > LINE:
            lines.append(line)
            line = "   "
        line += text
    return "\n".join([*lines, line])


def c_float(value: float) -> str:
    """A float32's shortest exact decimal, as a C literal."""
    text = str(np.float32(value))
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


class Identifiers:
    """Unique C identifiers made from any names; of long ones the end, which tells more than the scopes in front."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # base -> the next to try

    def make(self, name: str) -> str:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[-IDENTIFIER:].strip("_") or "node"
        candidate, number = base, self._numbers.get(base, 2)
        while candidate in self._taken:
            candidate, number = f"{base}_{number}", number + 1
        self._numbers[base] = number
        self._taken.add(candidate)
        return candidate


def c_type(array: NDArray[Any]) -> str:
    return {"b": "int8_t", "i": "int32_t", "I": "uint32_t", "h": "int16_t", "H": "uint16_t"}[np.dtype(array.dtype).char]


def c_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def c_comment(text: str) -> str:
    """Text for a comment, which it can neither end nor begin nor splice: no line ends, no backslashes, no trigraphs."""
    printable = "".join(c if c == " " or c.isalnum() or c in _PUNCTUATION else "_" for c in text)
    return re.sub(r"(?<=\*)(?=/)|(?<=/)(?=\*)|(?<=\?)(?=\?)", " ", printable)


def comment_lines(words: Sequence[str]) -> list[str]:
    """Words for a comment, wrapped between them and indented from the second line on."""
    lines: list[str] = []
    for word in map(c_comment, words):
        if lines and len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}" if lines else word)
    return lines


def c_name(name: str) -> str:
    """A name from a model, for a comment; all of them come through here. Of a long one both ends."""
    return c_comment(name if len(name) <= NAME else f"{name[: NAME // 2]}...{name[-(NAME // 2) :]}")


def c_names(names: Sequence[str]) -> str:
    return ", ".join(c_name(name) for name in names)
