"""A compiled folder: all or nothing is written, and its manifest vouches for every file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UsageError
from .version import __version__

TOOL = "tinytrain-compiler"
MANIFEST = "manifest.json"  # in every compiled folder


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def manifest_of(files: dict[str, bytes], name: str, origin: dict[str, Any]) -> bytes:
    """origin: what the files were made of and how (provenance.py)."""
    return json_bytes(
        {
            "tool": {"name": TOOL, "version": __version__},
            "name": name,
            **origin,
            "files": {
                path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for path, data in sorted(files.items())
            },
        }
    )


def check_output(directory: Path) -> None:
    """Refuse, before any work, a folder that cannot be written or that holds something else."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: is a file; give -o a folder")
    if directory.is_dir() and any(directory.iterdir()) and not _is_ours(directory):
        raise UsageError(f"{directory}: is not empty and was not made by tinytrain-compile; give -o another folder")
    parent = directory if directory.is_dir() else next(p for p in directory.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{directory}: cannot write in {parent}; choose a folder you may write to with -o")


def _is_ours(directory: Path) -> bool:
    try:
        return bool(json.loads((directory / MANIFEST).read_text())["tool"]["name"] == TOOL)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write next to the target first, then move into place; files of an earlier compile that are no longer
    made go away, anything else in the folder stays. Signals that would end the process wait until it is done.

    Errors: UsageError where the system refuses; no new folder is left.
    """
    try:
        with _signals_held():
            _replace(directory, files)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written ({error.strerror}); choose another folder with -o") from error


def _replace(directory: Path, files: dict[str, bytes]) -> None:
    parent = directory.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=parent))
    try:
        for path, data in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).write_bytes(data)
        if not directory.exists():
            staging.chmod(0o777 & ~_umask())
            staging.replace(directory)
            return
        for path in _previous_files(directory) - set(files):
            (directory / path).unlink(missing_ok=True)
        for path in sorted(files, key=lambda p: p == MANIFEST):  # the manifest last: it vouches for the rest
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(directory / path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that end the process wait for the end of the block. Only a main thread can hold them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    for number in held:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number in held:
            signal.signal(number, before[number])
        for caught in came:
            signal.raise_signal(caught)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _previous_files(directory: Path) -> set[str]:
    try:
        listed = json.loads((directory / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {path for path in listed if not Path(path).is_absolute() and ".." not in Path(path).parts}
