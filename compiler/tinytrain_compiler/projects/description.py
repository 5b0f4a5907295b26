"""One description of a compiled folder's sources, from which every project format writes its build files.

The compiler flags stand here once: the user's build files and our own builds read the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..boards import Board
from ..memory import Slots
from .firmware import SELFTEST, firmware_templates, linker_script

# Contraction would round float arithmetic differently from the host.
C_FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-common", "-ffunction-sections", "-fdata-sections")
WARNING_FLAGS = ("-Wall", "-Wextra", "-Wconversion")
LINK_FLAGS = ("-nostartfiles", "-static", "-Wl,--gc-sections", "-Wl,--fatal-warnings")


def model_sources(name: str, trains: bool, audio: bool = False) -> tuple[str, ...]:
    """The C files of a compiled model, relative to its directory; the runtime is runtime/*.c."""
    sources = (f"{name}.c", f"{name}_weights.c", f"{name}_kernels.c")
    return (*sources, *((f"{name}_train.c",) if trains else ()), *((f"{name}_audio.c",) if audio else ()))


def host_kernels(name: str) -> str:
    """The C file that only builds for this machine add to these, with TT_HOST_KERNELS defined for all."""
    return f"{name}_kernels_host.c"


@dataclass(frozen=True)
class Project:
    """What there is to build; paths are relative to the folder."""

    name: str
    board: Board
    region_banks: tuple[str, ...]  # for each memory region of the plan, the board's bank it is placed in
    runtime_sources: tuple[str, ...]
    trains: bool = False
    slots: Slots | None = None  # flash that is left out for saved states
    audio: bool = False  # a front end for sound

    @property
    def model_sources(self) -> tuple[str, ...]:
        return model_sources(self.name, self.trains, self.audio)

    @property
    def firmware_sources(self) -> tuple[str, ...]:
        """Of the bring-up firmware: start-up, serial port, self-test."""
        return tuple(sorted(path for path in firmware_templates(self.board, SELFTEST) if path.endswith(".c")))

    @property
    def linker_script(self) -> str:
        return linker_script(self.board)


@dataclass(frozen=True)
class ProjectFormat:
    """A build system. `files` maps a project to the files it wants, path -> text; same project, same text."""

    name: str
    files: Callable[[Project], Mapping[str, str]]
    commands: tuple[str, ...]  # that build the firmware, in the folder
    image: Callable[[Project], str]  # path of what they make, without .elf, .bin and .hex
    use: str  # how another project takes the model in; NAME stands for the model's
