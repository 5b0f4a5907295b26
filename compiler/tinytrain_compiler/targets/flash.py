"""Flash memory as a storage driver for the generated C on this machine: it keeps the rules that real flash has."""

from __future__ import annotations

import ctypes

from ..errors import TinyTrainError

_ERASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_ACCESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)


class Storage(ctypes.Structure):
    """tt_storage of tinytrain.h."""

    _fields_ = (
        ("erase", _ERASE), ("program", _ACCESS), ("read", _ACCESS), ("user", ctypes.c_void_p),
        ("slot_bytes", ctypes.c_uint32), ("erase_bytes", ctypes.c_uint32), ("program_bytes", ctypes.c_uint32),
    )  # fmt: skip


class SimulatedFlash:
    """Two slots of simulated flash. bytes: what they hold, free to be changed by tests; program_bytes: see tt_storage.

    A driver call that breaks a rule fails, and the next call of `check` says which: outside the memory, an erase or a
    program that is not aligned, a unit programmed twice.
    """

    def __init__(self, state_bytes: int, erase_bytes: int = 1024, program_bytes: int = 4) -> None:
        self.slot_bytes = -(-state_bytes // erase_bytes) * erase_bytes
        self.bytes = bytearray(b"\xff" * 2 * self.slot_bytes)
        self.erases = 0
        self.storage = Storage(
            _ERASE(self._erase), _ACCESS(self._program), _ACCESS(self._read), None,
            self.slot_bytes, erase_bytes, program_bytes,
        )  # fmt: skip
        self._programmed: set[int] = set()  # units
        self._broken = ""

    def slot(self, index: int) -> bytes:
        """A copy of one slot's bytes."""
        return bytes(self.bytes[index * self.slot_bytes : (index + 1) * self.slot_bytes])

    @property
    def programmed_bytes(self) -> int:
        """What has been programmed and not been erased since."""
        return len(self._programmed) * int(self.storage.program_bytes)

    def check(self) -> None:
        """Raise TinyTrainError where a rule was broken."""
        if self._broken:
            raise TinyTrainError(f"the storage driver was used wrongly: {self._broken}")

    def _refuse(self, what: str) -> int:
        self._broken = self._broken or what
        return -1

    def _erase(self, user: int, offset: int) -> int:
        size = self.storage.erase_bytes
        if offset % size or offset >= len(self.bytes):
            return self._refuse(f"erase at {offset}")
        self.bytes[offset : offset + size] = b"\xff" * size
        units = range(offset // self.storage.program_bytes, (offset + size) // self.storage.program_bytes)
        self._programmed.difference_update(units)
        self.erases += 1
        return 0

    def _program(self, user: int, offset: int, data: int, count: int) -> int:
        unit = self.storage.program_bytes
        units = range(offset // unit, (offset + count) // unit)
        if offset % unit or count % unit or offset + count > len(self.bytes):
            return self._refuse(f"program of {count} bytes at {offset}")
        if not self._programmed.isdisjoint(units):
            return self._refuse(f"programmed twice at {offset}")
        self._programmed.update(units)
        self.bytes[offset : offset + count] = ctypes.string_at(data, count)
        return 0

    def _read(self, user: int, offset: int, data: int, count: int) -> int:
        if offset + count > len(self.bytes):
            return self._refuse(f"read of {count} bytes at {offset}")
        ctypes.memmove(data, bytes(self.bytes[offset : offset + count]), count)
        return 0
