"""Everything around a compiled model that makes it firmware: start-up, linker script, serial port, build files.

Adding a project format: a module with its `ProjectFormat`, its templates in templates/projects/<format>/, and its
line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..boards import Board
from ..codegen.render import render
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
    files = render_firmware(board, name, region_banks, SELFTEST, trains, slots)
    sources = tuple(sorted(path for path in files if path.endswith(".c")))
    project = Project(name, board, model_sources(name, trains), sources, linker_script(board))
    for project_format in FORMATS:
        files |= project_format.files(project)
    return files | {"README.md": _readme(project, trains, slots)}


def _readme(project: Project, trains: bool, slots: Slots | None) -> str:
    """How to build, flash and watch the first program; the tools are the board's, the first format builds."""
    address = f"{project.board.flash.origin:#010x}"
    image = FORMATS[0].image(project)
    places = {"{elf}": f"{image}.elf", "{bin}": f"{image}.bin", "{hex}": f"{image}.hex", "{address}": address}
    flashing = []
    for way in project.board.flashing:
        command = way.command
        for place, value in places.items():
            command = command.replace(place, value)
        flashing.append({"tool": way.tool, "command": command})
    formats = [{"commands": f.commands, "image": f.image(project), "use": f.use} for f in FORMATS]
    return render(
        "projects/README.md.j2", project=project, trains=trains, slots=slots, formats=formats, flashing=flashing,
        address=address,
    )  # fmt: skip
