"""Everything around a compiled model that makes it firmware: start-up, linker script, serial port, build files.

Adding a project format: a module with its `ProjectFormat`, its templates in templates/projects/<format>/, and its
line in FORMATS.
"""

from __future__ import annotations

from ..codegen.render import render
from .cmake import CMAKE
from .description import Project, ProjectFormat
from .firmware import SELFTEST, render_firmware

__all__ = ["FORMATS", "Project", "ProjectFormat", "render_project"]

FORMATS: tuple[ProjectFormat, ...] = (CMAKE,)


def render_project(project: Project) -> dict[str, str]:
    """The firmware that users flash, the build files of all formats and a README: relative path -> text.

    Raises UsageError for a memory bank that the board does not have.
    """
    files = render_firmware(
        project.board, project.name, project.region_banks, SELFTEST, project.trains, project.slots, project.audio
    )
    for project_format in FORMATS:
        files |= project_format.files(project)
    return files | {"README.md": _readme(project)}


def _readme(project: Project) -> str:
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
    return render("projects/README.md.j2", project=project, formats=formats, flashing=flashing, address=address)
