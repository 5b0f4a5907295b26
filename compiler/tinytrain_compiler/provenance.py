"""What a compiled folder was made of and how: the command that makes it again, and digests of all that went in."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from .boards import Board, list_boards, load_board
from .options import CompileOptions
from .quantize.calibration import data_digest

PACKAGES = ("numpy", "onnx", "onnxruntime", "pillow")  # whose versions may show in the int8 model


OPTION_FILES = {"scheme": "scheme.toml", "audio": "audio.toml"}  # small files that a folder keeps, by option


class Input(NamedTuple):
    """A file or folder that went in, by its name without a path."""

    name: str
    sha256: str

    def as_json(self) -> dict[str, str]:
        return {"file": self.name, "sha256": self.sha256}


@dataclass(frozen=True)
class Provenance:
    """Two folders with the same provenance, compiler and packages are the same bytes."""

    model: Input
    board: Input  # by the name of a built-in board; any other as the file that the folder keeps
    options: CompileOptions
    files: Mapping[str, Input]  # of the options, by option

    @property
    def command(self) -> list[str]:
        """The command line; files by their names. Options at their defaults are left out."""
        given = self.options.given() | {name: file.name for name, file in self.files.items()}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        return ["tinytrain", "compile", self.model.name, "--board", self.board.name, *words]

    @property
    def inputs(self) -> list[Input]:
        return [self.model, self.board, *self.files.values()]

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        options = self.options.as_json() | {name: file.as_json() for name, file in self.files.items()}
        return {
            "command": shlex.join(self.command),
            "model": self.model.as_json(),
            "board": self.board.as_json(),
            "options": options,
            "packages": {name: version(name) for name in PACKAGES},
        }


def option_files(options: CompileOptions) -> dict[str, Input]:
    """The files that the options name, with their digests; those that the folder keeps by their names there."""
    return {
        name: Input(OPTION_FILES.get(name, path.name or path.resolve().name), data_digest(path))
        for name, path in options.files().items()
    }


def kept_files(options: CompileOptions) -> dict[str, bytes]:
    """Contents of the options' files that a folder keeps, by their names there."""
    return {OPTION_FILES[name]: path.read_bytes() for name, path in options.files().items() if name in OPTION_FILES}


def board_input(board: Board, file: str) -> Input:
    """file: the name of the board's file in the folder."""
    built_in = board.name in list_boards() and load_board(board.name).toml == board.toml
    return Input(board.name if built_in else file, hashlib.sha256(board.toml.encode()).hexdigest())
