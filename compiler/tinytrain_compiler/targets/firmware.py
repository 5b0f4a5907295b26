"""Build a compiled model into firmware with GCC, and measure what the linker made of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from elftools.elf.elffile import ELFFile

from ..boards import Board
from ..errors import DoesNotFitError, TinyTrainError
from ..memory import Slots
from ..projects.description import C_FLAGS, LINK_FLAGS, WARNING_FLAGS, model_sources
from ..projects.firmware import linker_script, render_firmware
from .apps import APPS
from .tools import require_tool

COMPILER = "arm-none-eabi-gcc"
PROCESSES = 4
_CODE = (".text", ".vectors", ".boot_stage")


@dataclass(frozen=True)
class ObjectSize:
    """One object file before the linker drops what nobody calls; bytes."""

    code: int
    constants: int
    data: int  # initialised and zeroed


@dataclass(frozen=True)
class Firmware:
    """A linked image and its sizes in bytes."""

    elf: Path
    board: Board
    name: str
    app: str  # of targets/apps.py
    flash_bytes: int  # the load image from the start of flash: code, constants, initial values, alignment between them
    flash: Mapping[str, int]  # output section -> its bytes in the load image
    sram: Mapping[str, int]  # "stack", "data", "bss", "region0", ... -> bytes
    objects: Mapping[str, ObjectSize]  # source file, relative -> size
    api: tuple[str, ...] = ()  # the model's functions for firmware; all of them linked where that was asked for

    @property
    def code_bytes(self) -> int:
        """Machine code alone, with the vector table."""
        return sum(self.flash.get(section, 0) for section in _CODE)

    @property
    def sram_bytes(self) -> int:
        """All RAM that the image claims, the stack included."""
        return sum(self.sram.values())


def build_firmware(
    model_dir: Path, name: str, board: Board, region_banks: Sequence[str], app: str, build_dir: Path,
    *, whole_api: bool = False, slots: Slots | None = None,
) -> Firmware:  # fmt: skip
    """Compile model ``name`` in ``model_dir`` for ``board`` and link it, everything in ``build_dir``.

    whole_api: keep all functions of the model's API, also those that ``app`` does not call. slots: of saved states;
    the image must leave their flash free.
    ``board`` may be what :func:`.emulation.emulation_board` returns. The model's own firmware/ folder is not used.
    Raises DoesNotFitError where the linker runs out of a memory, ToolMissingError, or TinyTrainError with the
    compiler's words.
    """
    require_tool(COMPILER)
    model_dir, build_dir = model_dir.resolve(), build_dir.resolve()
    shutil.rmtree(build_dir / "firmware", ignore_errors=True)
    trains = (model_dir / f"{name}_train.c").exists()
    audio = (model_dir / f"{name}_audio.c").exists()
    rendered = render_firmware(board, name, region_banks, APPS[app], trains, slots, audio)
    for path, text in rendered.items():
        target = build_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    sources = [
        *(model_dir / source for source in model_sources(name, trains, audio)),
        *sorted((model_dir / "runtime").glob("*.c")),
        *(build_dir / path for path in sorted(rendered) if path.endswith(".c")),
    ]
    includes = [f"-I{model_dir}", f"-I{model_dir / 'runtime'}"]
    missing = [str(source) for source in sources if not source.is_file()]
    if missing:
        raise TinyTrainError(f"{model_dir} is not a compiled model '{name}': {', '.join(missing)} missing")
    objects_dir = build_dir / "objects"
    objects_dir.mkdir(parents=True, exist_ok=True)
    flags = [*board.cpu_flags, *C_FLAGS, *WARNING_FLAGS, "-Werror", "-g", *includes]
    objects = [objects_dir / f"{i:02}_{source.stem}.o" for i, source in enumerate(sources)]
    commands = [[COMPILER, *flags, "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(_compile, commands))
    elf = build_dir / f"{name}_{app}.elf"
    api = _global_functions(objects[0])  # <name>.c
    keep = [*APPS[app].keep, *(api if whole_api else ())]
    _link(elf, objects, board, build_dir / linker_script(board), keep, slots)
    sizes = {
        str(source.relative_to(root)): _object_size(path)
        for source, path in zip(sources, objects, strict=True)
        for root in [build_dir if source.is_relative_to(build_dir / "firmware") else model_dir]
    }
    flash, sram = _section_sizes(elf)
    return Firmware(elf, board, name, app, _load_end(elf) - board.flash.origin, flash, sram, sizes, api)


def _compile(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TinyTrainError(f"{' '.join(command)}\nfailed:\n{result.stderr.strip()}")


def _link(
    elf: Path, objects: Sequence[Path], board: Board, script: Path, keep: Sequence[str], slots: Slots | None
) -> None:
    command = [
        *(COMPILER, *board.cpu_flags, *LINK_FLAGS, "-T", str(script)),
        *(f"-Wl,--undefined={symbol}" for symbol in keep),
        *map(str, objects),
        *("-lm", "-o", str(elf)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if not result.returncode:
        return
    overflows = dict(re.findall(r"region [`'](\w+)' overflowed by (\d+) bytes", result.stderr))
    if not overflows:
        raise TinyTrainError(f"{' '.join(command)}\nfailed:\n{result.stderr.strip()}")
    sizes = {"FLASH": (slots.origin if slots else board.flash.end) - board.flash.origin} | {
        bank.name: bank.bytes for bank in board.banks
    }
    lines = [
        f"  {memory}: needs {sizes[memory] + int(excess):,} bytes, has {sizes[memory]:,}: {int(excess):,} too many"
        for memory, excess in overflows.items()
    ]
    raise DoesNotFitError("\n".join([f"the firmware does not fit {board.name}", *lines]))


class Symbol(NamedTuple):
    """A named piece of the image, Thumb bit removed."""

    address: int
    size: int  # 0 where an assembly file did not say
    name: str
    is_function: bool


def read_symbols(elf: Path) -> list[Symbol]:
    """The image's symbols in the order of their addresses."""
    with elf.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        return sorted(
            Symbol(s["st_value"] & ~1, s["st_size"], s.name, s["st_info"]["type"] == "STT_FUNC")
            for s in table.iter_symbols()
        )


def _global_functions(path: Path) -> tuple[str, ...]:
    """Names of the functions that an object file or image offers to others."""
    with path.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        return tuple(
            s.name
            for s in table.iter_symbols()
            if s["st_info"]["type"] == "STT_FUNC" and s["st_info"]["bind"] == "STB_GLOBAL"
        )


def _sections(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [(s.name, s["sh_type"], s["sh_size"], s["sh_flags"]) for s in ELFFile(file).iter_sections()]


def _load_end(elf: Path) -> int:
    """First address behind the load image."""
    with elf.open("rb") as file:
        return max(int(s["p_paddr"] + s["p_filesz"]) for s in ELFFile(file).iter_segments() if s["p_filesz"])


def _section_sizes(elf: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by output section: in the load image, and in RAM."""
    flash: dict[str, int] = {}
    sram: dict[str, int] = {}
    for name, kind, size, flags in _sections(elf):
        if not flags & 0x2 or not size:  # SHF_ALLOC
            continue
        if kind != "SHT_NOBITS":
            flash[name] = size
        if flags & 0x1:  # SHF_WRITE
            sram[name.removeprefix(".tt_").removeprefix(".")] = size
    return flash, sram


def _object_size(path: Path) -> ObjectSize:
    code = constants = data = 0
    for _, _, size, flags in _sections(path):
        if flags & 0x2:  # SHF_ALLOC
            if flags & 0x4:  # SHF_EXECINSTR
                code += size
            elif flags & 0x1:  # SHF_WRITE
                data += size
            else:
                constants += size
    return ObjectSize(code, constants, data)
