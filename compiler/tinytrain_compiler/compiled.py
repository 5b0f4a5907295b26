"""A folder that tinytrain-compile wrote: what of the model it stores, and how that is read back.

Beside the C there are `<name>.graph`, the quantised graph as it was lowered (graph/file.py), `board.toml`, the board's
file word for word, `test_inputs.npy`, input bytes (n, bytes), and the oracle's model, where there is one. So nothing
that works on a folder reads the model's own file format again, or looks for the board.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .boards import Board, load_board
from .errors import UsageError
from .frontends import open_oracle
from .graph import Graph
from .graph.file import GraphFileError, graph_bytes, graph_from_bytes
from .memory import Slots
from .ops import Int8, registered
from .oracle import Oracle
from .targets.host import HostLayout

BOARD_FILE = "board.toml"
TEST_INPUTS_FILE = "test_inputs.npy"


@dataclass(frozen=True)
class CompiledModel:
    directory: Path
    name: str
    board: Board
    report: dict[str, Any]
    graph: Graph
    test_inputs: Int8  # (n, bytes)
    mean: tuple[float, ...]  # of pixels, as they were given to the compile (quantize/normalization.py)
    std: tuple[float, ...]

    @property
    def region_banks(self) -> list[str]:
        return [region["bank"] for region in self.report["memory"]["sram"]["regions"]]

    @property
    def slots(self) -> Slots | None:
        """Where saved states lie in the board's flash; None where they do not."""
        slots = self.report["storage"]["slots"]
        return None if slots is None else Slots(**slots)

    @property
    def layout(self) -> HostLayout:
        model = self.report["model"]
        regions = [region["bytes"] for region in self.report["memory"]["sram"]["regions"]]
        return HostLayout(
            self.name, regions, model["input"]["bytes"], model["output"]["bytes"], model["features"]["bytes"]
        )

    def oracle(self) -> Oracle | None:
        """Who else computes the same quantised model; None where the file it was compiled from has nobody."""
        return open_oracle(self.directory, self.name)

    def inputs(self, count: int | None) -> Int8:
        """`count` test inputs: the stored ones, then seeded random bytes if more are asked for."""
        if count is None or count <= len(self.test_inputs):
            return self.test_inputs[:count]
        rng = np.random.default_rng(0)
        more = rng.integers(-128, 128, (count - len(self.test_inputs), self.test_inputs.shape[1]), np.int8)
        return np.concatenate([self.test_inputs, more])


def model_files(name: str, graph: Graph, board: Board, oracle: Oracle | None, test_inputs: Int8) -> dict[str, bytes]:
    """What load_compiled needs besides report and manifest, by file name. test_inputs: (n, bytes)."""
    inputs = io.BytesIO()
    np.save(inputs, test_inputs, allow_pickle=False)
    files = {
        _graph_file(name): graph_bytes(graph),
        BOARD_FILE: board.toml.encode(),
        TEST_INPUTS_FILE: inputs.getvalue(),
    }
    if oracle is not None:
        suffix, content = oracle.file
        files[f"{name}{suffix}"] = content
    return files


def load_compiled(directory: str | Path) -> CompiledModel:
    """Read a compiled folder; UsageError where it is none, is incomplete, was edited or is of another version."""
    folder = Path(directory)
    manifest = _manifest(folder)
    listed, name = manifest.files, manifest.name
    changed = [path for path, sha256 in listed.items() if _sha256(folder / path) != sha256]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(f"{folder}: {', '.join(changed[:3])}{more} changed since the compile; compile the model again")
    if missing := {_graph_file(name), BOARD_FILE, TEST_INPUTS_FILE} - set(listed):
        raise UsageError(
            f"{folder}: holds no {' and no '.join(sorted(missing))}: an earlier version of the compiler wrote it; "
            "compile the model again"
        )
    return CompiledModel(
        folder,
        name,
        load_board(folder / BOARD_FILE),
        json.loads((folder / "report.json").read_text()),
        _graph(folder / _graph_file(name)),
        np.load(folder / TEST_INPUTS_FILE, allow_pickle=False),
        *manifest.normalization(),
    )


def _graph_file(name: str) -> str:
    return f"{name}.graph"


def _graph(path: Path) -> Graph:
    try:
        return graph_from_bytes(path.read_bytes(), {name: each.attributes for name, each in registered().items()})
    except GraphFileError as error:
        raise UsageError(f"{path}: is not of this compiler's version: {error}; compile the model again") from error


@dataclass(frozen=True)
class _Manifest:
    name: str  # the model's
    files: dict[str, str]  # SHA-256 by path
    options: Any  # an object, since a folder carries its graph

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of pixels."""
        return tuple(self.options["mean"]), tuple(self.options["std"])


def _manifest(folder: Path) -> _Manifest:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = {path: entry["sha256"] for path, entry in manifest["files"].items()}
        return _Manifest(manifest["name"], files, manifest["options"])
    except FileNotFoundError:
        raise UsageError(f"{folder}: no manifest.json; give the folder that tinytrain-compile -o wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / 'manifest.json'}: cannot be read ({error}); compile the model again") from error


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
