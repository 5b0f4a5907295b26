"""Lines of generated C: none longer than COLUMNS, broken where a person would break them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

COLUMNS = 120
INDENT = 4


def statement(text: str, indent: int = 0) -> list[str]:
    """A statement, declaration or prototype, to stand `indent` columns deep.

    Continued behind its first parenthesis or, where that stands too far right, one indent deeper.
    """
    lead = len(text) - len(text.lstrip())
    room = COLUMNS - indent
    if len(text) <= room:
        return [text]
    at = text.find("(") + 1 or len(text)
    pieces = _pieces(text)
    if len(pieces[0]) > room and at < len(pieces[0]):
        pieces[:1] = [text[:at], pieces[0][at:]]
    # Short arguments look best below each other; long ones need the room.
    below = at <= room // 2 and at + max(map(len, pieces[1:]), default=0) <= room and len(pieces[0]) > at
    column = at if below else lead + INDENT
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) <= room:
            lines[-1] += piece
        else:
            lines[-1] = lines[-1].rstrip()
            lines.append(" " * column + piece.lstrip())
    return lines


def _pieces(text: str) -> list[str]:
    """The text cut behind each comma and each assignment; a space that followed begins the next piece."""
    pieces = [""]
    for i, c in enumerate(text):
        pieces[-1] += c
        if text[i + 1 : i + 2] == " " and (c == "," or (c == "=" and text[i - 1] == " ")):
            pieces.append("")
    return pieces


def statements(lines: Iterable[str], indent: int = 0) -> list[str]:
    return [piece for line in lines for piece in statement(line, indent)]


def comment(text: str, indent: int = 0) -> str:
    """A comment of its own, `indent` columns deep; text from c_comment or c_name."""
    lines = textwrap.wrap(text, COLUMNS - indent - 6, break_on_hyphens=False)
    return "/* " + ("\n" + " " * indent + "   ").join(lines or [""]) + " */"


def wrapped(text: str, indent: int = 0) -> str:
    """For templates: a statement in one piece, its later lines indented."""
    return ("\n" + " " * indent).join(statement(text, indent))
