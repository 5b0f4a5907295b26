"""CMake: the model as a library for other projects, and the bring-up firmware where the folder is built by itself."""

from __future__ import annotations

from ..codegen.render import render
from .description import C_FLAGS, LINK_FLAGS, WARNING_FLAGS, Project, ProjectFormat


def _files(project: Project) -> dict[str, str]:
    flags = {"c_flags": C_FLAGS, "warning_flags": WARNING_FLAGS, "link_flags": LINK_FLAGS}
    templates = {"CMakeLists.txt": "CMakeLists.txt", "cmake/arm-none-eabi.cmake": "arm-none-eabi.cmake"}
    return {
        path: render(f"projects/cmake/{template}.j2", project=project, **flags) for path, template in templates.items()
    }


CMAKE = ProjectFormat(
    "cmake",
    _files,
    ("cmake -B build -DCMAKE_TOOLCHAIN_FILE=cmake/arm-none-eabi.cmake", "cmake --build build"),
    lambda project: f"build/{project.name}",
    "CMake: `add_subdirectory(NAME)`, then `target_link_libraries(your_firmware NAME)`. `NAME.h` says what to call.",
)
