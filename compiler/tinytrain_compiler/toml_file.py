"""Small TOML files that a user writes."""

from __future__ import annotations

import errno
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20  # a thousand times what such files have


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """A file: its text, and the tables in it.

    Raises OSError where there is none that can be read as a whole, ValueError where it is no TOML. A device or a pipe
    is not opened: it may have no end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not path.is_dir():
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, such a file has at most {MAX_BYTES:,}")
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
