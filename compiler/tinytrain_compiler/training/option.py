"""One option of a compile or a policy: how command line, banner and manifest name it, and which values it takes.

An option is the metadata of a field of a frozen dataclass: `pool: int = field(default=64, metadata=POOL.metadata)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError


class Named(Protocol):
    """What a choice chooses."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Option:
    """A value is a Path, an int within the limits, numbers (tuple), text, or one of the named choices."""

    name: str  # --name
    metavar: str
    help: str
    kind: type = str  # Path, int, tuple (of floats), or str for text and choices
    minimum: int | None = None
    maximum: int | None = None
    choices: Mapping[str, Named] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def metadata(self) -> dict[str, Any]:
        """What makes a dataclass field this option."""
        return {"option": self}

    def parse(self, value: Any) -> Any:
        """The field's value of what a caller gave. Raises UsageError for a value that is none."""
        if self.choices is not None:
            if value in self.choices.values():
                return value
            if value not in self.choices:
                raise UsageError(f"{self.flag} {value}: choose one of {', '.join(self.choices)}")
            return self.choices[value]
        if self.kind is Path:
            return Path(value)
        if self.kind is tuple:
            return tuple(float(v) for v in (value if isinstance(value, Sequence) else [value]))
        low, high = self.minimum, self.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"a number from {low} to {high}" if high is not None else f"at least {low}"
            raise UsageError(f"{self.flag} {value}: give {limits}")
        return value

    def text(self, value: Any) -> str:
        """A field's value as the command line takes it."""
        value = self.as_json(value)
        return ",".join(_number(v) for v in value) if isinstance(value, list) else str(value)

    def as_json(self, value: Any) -> Any:
        """A field's value as a JSON value; of a file or folder its name, which stays when it is moved."""
        if value is None:
            return None
        if self.kind is Path:
            return value.name or value.resolve().name
        return value.name if self.choices is not None else list(value) if self.kind is tuple else value


def _number(value: float) -> str:
    """The shortest text that is read back as the same number."""
    return repr(value).removesuffix(".0")


def options_of(record: Any) -> dict[str, Option]:
    """Field name -> option, of a dataclass or an instance of it."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(record) if "option" in f.metadata}


def given_options(record: Any) -> dict[str, str]:
    """Option name -> its value as text, of those that differ from their defaults."""
    found = {}
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        if "option" in f.metadata and value != f.default:
            option: Option = f.metadata["option"]
            found[option.name] = option.text(value)
    return found
