"""Where saved states lie: two slots of whole erase sectors at the end of the flash, behind the image.

The runtime writes them in turn, and erases one while the other holds the last state: no sector may belong to both, or
to the image. It knows one erase unit, so both lie in sectors of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..boards import MemoryRegion

COUNT = 2
AUTO, FLASH, NONE = "auto", "flash", "none"  # where saved states are wanted: fit/storage.py, STORAGE
UNKNOWN, NO_ROOM, DECLINED = "sectors-unknown", "no-room", "declined"


@dataclass(frozen=True)
class Slots:
    """Bytes of flash that no code may be linked into."""

    origin: int  # address of the first; the second follows
    slot_bytes: int  # of each
    erase_bytes: int  # a sector's

    @property
    def bytes(self) -> int:
        """Of both."""
        return COUNT * self.slot_bytes


@dataclass(frozen=True)
class NoSlots:
    """Why there are none, and what would make room. Numbers of bytes are 0 where they say nothing."""

    why: str  # UNKNOWN: the board's file names no sectors; NO_ROOM; DECLINED: they were not wanted
    state_bytes: int
    image_bytes: int = 0  # at most
    slot_bytes: int = 0  # each would need, in whole sectors
    erase_bytes: int = 0  # a sector's, at the end of the flash
    free_sectors: int = 0  # of these, behind the image
    largest_image_bytes: int = 0  # with which slots for this state would fit; 0: none
    largest_state_bytes: int = 0  # that would fit behind this image; 0: none


def plan_slots(flash: MemoryRegion, state_bytes: int, image_bytes: int) -> Slots | NoSlots:
    """The slots for states of at most state_bytes, where an image of at most image_bytes leaves room for them."""
    if not flash.sectors:
        return NoSlots(UNKNOWN, state_bytes, image_bytes)
    erase_bytes, alike = _last_sectors(flash)
    count = -(-state_bytes // erase_bytes)  # of each slot
    free = max(0, min((flash.bytes - image_bytes) // erase_bytes, alike))
    needed = COUNT * count * erase_bytes
    if COUNT * count <= free:
        return Slots(flash.end - needed, count * erase_bytes, erase_bytes)
    return NoSlots(
        NO_ROOM, state_bytes, image_bytes, count * erase_bytes, erase_bytes, free,
        largest_image_bytes=flash.bytes - needed if COUNT * count <= alike else 0,
        largest_state_bytes=free // COUNT * erase_bytes,
    )  # fmt: skip


def _last_sectors(flash: MemoryRegion) -> tuple[int, int]:
    """(bytes of a sector at the end of the flash, how many of that size end it)."""
    size, alike = flash.sectors[-1].bytes, 0
    for run in reversed(flash.sectors):
        if run.bytes != size:
            break
        alike += run.count
    return size, alike
