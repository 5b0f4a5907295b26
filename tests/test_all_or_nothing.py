"""A training that fails leaves a session as it was, or as if it had been stopped at that step, in C."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from graphs import model_sources
from test_forged_states import CLASSES, HERE, KINDS, SANITIZE, network
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.quantize.input_bytes import PixelMap
from tinytrain_compiler.targets.host import WARNINGS
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.selectors import SELECTORS
from tools import require_or_skip


@pytest.mark.parametrize("kind", [*KINDS, "prototypes by a scheme"])
def test_a_training_that_fails_changes_nothing_or_stops_at_a_step(kind: str, tmp_path: Path) -> None:
    require_or_skip("gcc")
    head, gradients, rounding, selection = KINDS.get(kind, ("prototype", "int16", "nearest", None))
    graph, scheme = network(selection is not None)
    options = LearningOptions(
        HEADS[head], formats(gradients, rounding), pool=1536, selector=SELECTORS[selection or "fisher"]
    )
    lowered = lower(graph, load_board("stm32f746"), "net", CLASSES, scheme, options=options)
    sources = emit(lowered, ModelInfo("net", (), (), CLASSES, PixelMap((1, 1), (0, 0)), head))
    write_files(tmp_path, {path: text.encode() for path, text in sources.items()})
    includes = [f"-I{directory}" for directory in (tmp_path, tmp_path / "runtime", HERE)]
    files = map(str, [HERE / "training.c", *model_sources(tmp_path, "net")])
    command = ["gcc", "-std=c11", *WARNINGS, *SANITIZE, f"-DCHOOSES={int(selection is not None)}", *includes]
    subprocess.run([*command, *files, "-o", str(tmp_path / "training")], check=True)
    ran = subprocess.run([str(tmp_path / "training")], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok\n", "")
