"""Where the files that are not Python live: boards, templates, the C runtime, the QEMU plugin.

In a checkout they are folders at its root; in an installed wheel they lie inside the package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_data"
_ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1]

BOARDS = _ROOT / "boards"
TEMPLATES = _ROOT / "templates"
RUNTIME = _ROOT / "runtime_c"

_template_folders = [TEMPLATES]


def add_templates(folder: Path) -> None:
    """A folder laid out like templates/, searched behind it."""
    _template_folders.append(folder)


def find_template(name: str) -> Path | None:
    """name: relative to templates/, with slashes."""
    return next((folder / name for folder in _template_folders if (folder / name).is_file()), None)
