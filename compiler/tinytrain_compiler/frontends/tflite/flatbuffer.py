"""Reading a FlatBuffers file, every offset checked: nothing outside the file is ever touched, whatever it says.

A table is a record whose fields have numbers; a field may be absent and then has its default. The packages with
generated accessors check nothing, so a verifier would have to know the fields as well: with it, they add nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError

MAX_TEXT = 4096  # bytes of a name that are read

_FORMATS = {"bool": "<?", "int8": "<b", "uint8": "<B", "int32": "<i", "uint32": "<I", "uint64": "<Q", "float32": "<f"}


class DamagedFileError(UsageError):
    """An offset or a length points outside the file."""


class Table:
    """One record of a file. Every method takes the field's number and raises DamagedFileError for a wrong offset."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        vtable = at - self._read("<i", at)
        size = self._read("<H", vtable)
        if size < 4 or size % 2 or vtable + size > len(data):
            raise _damaged(vtable)
        self._fields = struct.unpack_from(f"<{size // 2 - 2}H", data, vtable + 4)

    @classmethod
    def root(cls, data: bytes) -> Table:
        if len(data) < 8:
            raise _damaged(0)
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, field: int, kind: str, default: float = 0) -> Any:
        """A scalar of a kind: bool, int8, uint8, int32, uint32, uint64 or float32."""
        at = self._place(field)
        return default if at is None else self._read(_FORMATS[kind], at)

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def table(self, field: int) -> Table | None:
        at = self._place(field)
        return None if at is None else Table(self._data, self._follow(at))

    def tables(self, field: int, most: int, what: str) -> list[Table]:
        """A vector of tables. Raises UsageError where there are more than `most`; what: their name in the message."""
        at, count = self._vector(field, 4)
        if count > most:
            raise UsageError(f"it has {count:,} {what}, at most {most:,} can be compiled")
        return [Table(self._data, self._follow(at + 4 * i)) for i in range(count)]

    def array(self, field: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers, not copied."""
        kind = np.dtype(dtype).newbyteorder("<")
        at, count = self._vector(field, kind.itemsize)
        return np.frombuffer(self._data, kind, count, at)

    def content(self, field: int) -> memoryview | None:
        """A vector of bytes, not copied; None where the field is absent."""
        if not self.has(field):
            return None
        at, count = self._vector(field, 1)
        return memoryview(self._data)[at : at + count]

    def text(self, field: int) -> str:
        """A string, at most its first MAX_TEXT bytes; what is not UTF-8 of it escaped."""
        at, count = self._vector(field, 1)
        return self._data[at : at + min(count, MAX_TEXT)].decode(errors="backslashreplace")

    def _place(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else None

    def _vector(self, field: int, item: int) -> tuple[int, int]:
        """Where it begins and how many items it has."""
        place = self._place(field)
        if place is None:
            return 0, 0
        at = self._follow(place)
        count = self._read("<I", at)
        if at + 4 + count * item > len(self._data):
            raise _damaged(at)
        return at + 4, count

    def _follow(self, at: int) -> int:
        return at + int(self._read("<I", at))

    def _read(self, form: str, at: int) -> Any:
        if at < 0 or at + struct.calcsize(form) > len(self._data):
            raise _damaged(at)
        return struct.unpack_from(form, self._data, at)[0]


def _damaged(at: int) -> DamagedFileError:
    return DamagedFileError(f"it is truncated or damaged: offset {at} points outside; export or download it again")
