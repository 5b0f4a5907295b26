"""A compiled folder: all or nothing is written, and its manifest vouches for every file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from . import __version__
from .boards import Board
from .errors import UsageError

TOOL = "tinytrain-compiler"


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def manifest_of(files: dict[str, bytes], name: str, board: Board, sha256: str, options: str) -> bytes:
    return json_bytes(
        {
            "tool": {"name": TOOL, "version": __version__},
            "name": name,
            "board": board.name,
            "model_sha256": sha256,
            "options": options.strip(),
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
        return bool(json.loads((directory / "manifest.json").read_text())["tool"]["name"] == TOOL)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write next to the target first, then move into place; files of an earlier compile that are no longer
    made go away, anything else in the folder stays."""
    parent = directory.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=parent))
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written ({error.strerror}); choose another folder with -o") from error
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
        for path in sorted(files, key=lambda p: p == "manifest.json"):  # the manifest last: it vouches for the rest
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(directory / path)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written ({error.strerror}); choose another folder with -o") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _previous_files(directory: Path) -> set[str]:
    try:
        listed = json.loads((directory / "manifest.json").read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {path for path in listed if not Path(path).is_absolute() and ".." not in Path(path).parts}
