"""Whatever flash holds, loading it is safe: states with forged bytes and a checksum made to fit, under sanitizers."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import GraphBuilder, gaps, model_sources, spaced_plan
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.memory import MemoryPlan
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.targets.host import WARNINGS
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.selectors import SELECTORS
from tools import require_or_skip

HERE = Path(__file__).parent / "c"
CLASSES = 3
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KINDS = {  # head, gradients, rounding, selection; None: the scheme chooses the channels
    "chosen": ("prototype", "int16", "nearest", "fisher"),
    "drawn anew": ("linear", "int16", "stochastic", "fisher-resample"),
    "scheme": ("linear", "float32", "nearest", None),
}


def network(chooses: bool) -> tuple[Graph, Scheme]:
    """Small, so that a case takes some microseconds: three candidates, biases and a depthwise layer."""
    b = GraphBuilder((5, 6, 2), seed=3)
    x = b.conv2d(b.input, 8, zero=-128, name="stem")
    x = b.conv2d(x, 12, zero=-128, name="expand")
    x = b.depthwise(x, (2, 2), stride=(2, 2), zero=-128, name="depthwise")
    x = b.conv2d(x, 8, name="project")
    features = b.reshape(b.avg_pool(x, name="global"))
    graph = b.build(b.fully_connected(features, 3, name="classifier"), features)
    limits = {"stem": 0, "expand": 8, "depthwise": 8, "project": 12}
    layers = {
        name: TrainedLayer(limit=limit) if chooses else TrainedLayer(tuple(range(limit)))
        for name, limit in limits.items()
    }
    return graph, Scheme(layers)


def hidden_bytes(plan: MemoryPlan) -> str:
    """Offset and length of each stretch between the buffers."""
    free = gaps(plan)
    starts = [0, *(i + 1 for i, (a, b) in enumerate(itertools.pairwise(free)) if b != a + 1), len(free)]
    rows = ", ".join(f"{{ {int(free[a])}u, {b - a}u }}" for a, b in itertools.pairwise(starts))
    return f"#include <stdint.h>\nstatic const uint32_t hidden[][2] = {{ {rows} }};\n"


@pytest.fixture(scope="module", params=KINDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_or_skip("clang")
    head, gradients, rounding, selection = KINDS[request.param]
    graph, scheme = network(selection is not None)
    options = LearningOptions(
        HEADS[head], formats(gradients, rounding), pool=1536, selector=SELECTORS[selection or "fisher"]
    )
    lowered = lower(graph, load_board("stm32f746"), "net", CLASSES, scheme, options=options)
    lowered = replace(lowered, plan=spaced_plan(lowered.plan))
    folder = tmp_path_factory.mktemp("forged")
    sources = emit(lowered, ModelInfo("net", (), (), CLASSES, None, head))
    write_files(folder, {path: text.encode() for path, text in sources.items()})
    (folder / "hidden.h").write_text(hidden_bytes(lowered.plan))
    path = folder / "forged_states"
    port = folder / "port.h"
    port.write_text("#include <stdlib.h>\n#define TT_ASSERT(condition) ((condition) ? (void)0 : abort())\n")
    includes = [f"-I{directory}" for directory in (folder, folder / "runtime", HERE)]
    command = ["clang", "-std=c11", *WARNINGS, *SANITIZE, f'-DTT_PORT="{port}"', *includes]
    files = map(str, [HERE / "forged_states.c", *model_sources(folder, "net")])
    subprocess.run([*command, *files, "-o", str(path)], check=True)
    return path


@pytest.mark.parametrize(
    ("cases", "seed"), [(10_000, 1), pytest.param(1_000_000, 2, marks=pytest.mark.slow)], ids=["share", "all"]
)
def test_a_forged_state_is_refused_or_harmless(program: Path, cases: int, seed: int) -> None:
    """`pytest -s` prints how many were refused."""
    ran = subprocess.run([str(program), str(cases), str(seed)], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "ok"), ran.stdout + ran.stderr
    print(f"\n{ran.stdout}", end="")
    refused, loaded = (int(word) for word in ran.stdout.split()[:4:2])
    assert refused + loaded == cases
    assert min(refused, loaded) > cases // 20, "both happen"
