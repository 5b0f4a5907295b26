"""Saved states beside the image: where their slots go, and in words why they do not fit and what would."""

from __future__ import annotations

from ..errors import DoesNotFitError, UsageError
from ..memory import NoSlots, Slots
from ..memory.slots import AUTO, COUNT, DECLINED, FLASH, NONE, UNKNOWN

STORAGE = {
    AUTO: "the last sectors of the board's flash, where they are free",
    FLASH: "the same, or it does not fit",
    NONE: "a place of the application's own",
}  # --storage: where saved states go


def check_storage(storage: str) -> None:
    """UsageError for a --storage that does not exist."""
    if storage not in STORAGE:
        raise UsageError(f"--storage {storage}: choose one of {', '.join(STORAGE)}")


def require_slots(storage: str, slots: Slots | NoSlots, board: str) -> None:
    """DoesNotFitError where slots are insisted on and there are none."""
    if storage == FLASH and isinstance(slots, NoSlots):
        lines = [f"--storage flash does not fit {board}: {why_not(slots)}", *(f"  {line}" for line in would_fit(slots))]
        raise DoesNotFitError("\n".join(lines))


def why_not(none: NoSlots) -> str:
    """One sentence."""
    if none.why == DECLINED:
        return "--storage none leaves the place of saved states to the application"
    if none.why == UNKNOWN:
        return "the board's file does not say in what sectors its flash is erased (flash.sectors)"
    count = none.slot_bytes // none.erase_bytes
    return (
        f"a state takes {none.state_bytes:,} bytes, each of its {COUNT} slots {_sectors(count, none.erase_bytes)}; "
        f"free at the end of the flash, behind an image of up to {none.image_bytes:,} bytes: "
        f"{_sectors(none.free_sectors, none.erase_bytes)}"
    )


def would_fit(none: NoSlots) -> list[str]:
    """A line for each way to keep states all the same."""
    if none.why == DECLINED:
        return []
    smaller = f"what would fit: a state of at most {none.largest_state_bytes:,} bytes (--pool, --classes)"
    image = f"what would fit: an image of at most {none.largest_image_bytes:,} bytes"
    external = (
        f"what would fit: external flash, {COUNT} areas of at least {none.state_bytes:,} bytes in whole erase units, "
        f"with a driver of the application's own (tt_storage)"
    )
    return [
        *([smaller] if none.largest_state_bytes else []),
        *([image] if none.largest_image_bytes else []),
        external,
    ]


def _sectors(count: int, size: int) -> str:
    return f"{count or 'no'} sector{'s' if count > 1 else ''} of {size:,} bytes"
