"""Everything around a compiled model that makes it firmware: start-up, linker script, serial port, build files.

Adding a project format: a module with its `ProjectFormat`, its templates in templates/projects/<format>/, and its
line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..boards import Board
from ..memory import Slots
from .cmake import CMAKE
from .description import Project, ProjectFormat, model_sources
from .firmware import SELFTEST, linker_script, render_firmware

FORMATS: tuple[ProjectFormat, ...] = (CMAKE,)


def render_project(
    board: Board, name: str, region_banks: Sequence[str], trains: bool = False, slots: Slots | None = None
) -> dict[str, str]:
    """The firmware that users flash and the build files of all formats: relative path -> text.

    region_banks: for each memory region of the plan, the name of the board's bank it is placed in.
    slots: flash that is left out for saved states.
    Raises UsageError for a bank that the board does not have.
    """
    files = render_firmware(board, name, region_banks, SELFTEST, slots)
    sources = tuple(sorted(path for path in files if path.endswith(".c")))
    project = Project(name, board, model_sources(name, trains), sources, linker_script(board))
    for project_format in FORMATS:
        files |= project_format.files(project)
    return files
