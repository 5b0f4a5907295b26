"""A folder that tinytrain-compile wrote, read back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .boards import Board, load_board
from .errors import UsageError
from .frontends.onnx.qdq import import_qdq
from .graph import Graph
from .ops import Int8
from .passes import run_passes
from .targets.host import HostLayout


@dataclass(frozen=True)
class CompiledModel:
    directory: Path
    name: str
    board: Board
    report: dict[str, Any]
    qdq: onnx.ModelProto
    graph: Graph
    test_inputs: Int8  # (n, bytes)

    @property
    def region_banks(self) -> list[str]:
        return [region["bank"] for region in self.report["memory"]["sram"]["regions"]]

    @property
    def layout(self) -> HostLayout:
        model = self.report["model"]
        regions = [region["bytes"] for region in self.report["memory"]["sram"]["regions"]]
        return HostLayout(
            self.name, regions, model["input"]["bytes"], model["output"]["bytes"], model["features"]["bytes"]
        )

    def inputs(self, count: int | None) -> Int8:
        """`count` test inputs: the stored ones, then seeded random bytes if more are asked for."""
        if count is None or count <= len(self.test_inputs):
            return self.test_inputs[:count]
        rng = np.random.default_rng(0)
        more = rng.integers(-128, 128, (count - len(self.test_inputs), self.test_inputs.shape[1]), np.int8)
        return np.concatenate([self.test_inputs, more])


def load_compiled(directory: str | Path) -> CompiledModel:
    """Read a compiled folder; UsageError where it is none, is incomplete or was edited."""
    folder = Path(directory)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        listed, name, board = manifest["files"], manifest["name"], manifest["board"]
    except FileNotFoundError:
        raise UsageError(f"{folder}: no manifest.json; give the folder that tinytrain-compile -o wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / 'manifest.json'}: cannot be read ({error}); compile the model again") from error
    changed = [path for path, entry in listed.items() if _sha256(folder / path) != entry["sha256"]]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(f"{folder}: {', '.join(changed[:3])}{more} changed since the compile; compile the model again")
    qdq = onnx.load(str(folder / f"{name}.qdq.onnx"))
    return CompiledModel(
        folder,
        name,
        load_board(board),
        json.loads((folder / "report.json").read_text()),
        qdq,
        run_passes(import_qdq(qdq)),
        np.load(folder / "test_inputs.npy", allow_pickle=False),
    )


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
