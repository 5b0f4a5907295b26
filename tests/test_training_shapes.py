"""Backward passes of odd shapes in C: the reference's bytes, no byte outside their buffers, no undefined behaviour."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from batch import compile_batch, sample
from graphs import GraphBuilder, describe, gaps, random_inputs, write_model
from hypothesis import strategies as st
from operator_cases import index_list, window_of, zeros
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.lowering import Lowered
from tinytrain_compiler.memory import MemoryPlan
from tinytrain_compiler.ops import weights_of
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.host import OPTIMISE
from tinytrain_compiler.training.pool import TRAINING_STATE
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.visits import TrainOptions
from tools import require_or_skip

CLASSES, SAMPLES = 3, 6
LABELS = [i % CLASSES for i in range(SAMPLES)]
RATES = (0.3, 1e5)  # and one that drives deltas to their limits, which only a policy could ask for
ASAN = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
KINDS = (
    "conv2d", "grouped", "grouped", "depthwise", "depthwise", "max_pool", "max_pool", "vector", "table", "gate", "sum",
    "constant", "take", "concat",
)  # fmt: skip


@st.composite
def trained_networks(draw: st.DrawFn) -> tuple[Graph, Scheme]:
    """A layer that learns behind an operator of any shape that gradients pass, and that learns if it has weights."""
    kind = draw(st.sampled_from(KINDS))
    window, size = window_of(draw, st.integers(1, 4), dilated=kind != "max_pool")
    if kind == "max_pool":
        del window["dilation"]
    groups = draw(st.integers(2, 4)) if kind == "grouped" else 1
    b = GraphBuilder((*size, 2), zero=draw(zeros), seed=draw(st.integers(0, 2**16)))
    x = b.conv2d(b.input, groups * draw(st.integers(1, 6)), zero=draw(zeros), name="front")
    if kind in ("conv2d", "grouped"):
        x = b.conv2d(x, groups * draw(st.integers(1, 6)), groups=groups, zero=-128, **window)
    elif kind == "depthwise":
        x = b.depthwise(x, **window, zero=draw(zeros), limits=draw(st.sampled_from([(-128, 127), (-128, 60)])))
    elif kind == "max_pool":
        x = b.max_pool(x, limits=draw(st.sampled_from([(-128, 127), (-128, 40)])), **window)
    elif kind in ("table", "gate", "sum", "constant"):
        x = b.table(x, limits=draw(st.sampled_from([(-128, 127), (-90, 60)])))
        x = _broadcast(draw, b, x, kind)
    elif kind == "take":
        x = b.take(x, *(index_list(draw, size) for size in b.tensors[x].shape))
    elif kind == "concat":
        axis = draw(st.integers(0, 2))
        parts = [x, b.lookup(x, ratio=2.0), b.take(x, *([0] if i == axis else [] for i in range(3)))]
        x = b.concat(
            *draw(st.permutations([*parts, x])), axis=axis, limits=draw(st.sampled_from([(-128, 127), (3, 60)]))
        )
    else:
        x = b.fully_connected(b.reshape(x), draw(st.integers(1, 9)), zero=-128)
    last = b.nodes[-1]
    features = b.fully_connected(b.reshape(x) if len(b.tensors[x].shape) == 3 else x, 8, name="vector")
    graph = b.build(b.fully_connected(features, 2), features)
    nodes = [
        node for node in graph.nodes if node.name in ("front", last.name, "vector") and "weights" in node.constants
    ]
    return graph, Scheme({node.name: TrainedLayer(draw(selections(node))) for node in nodes})


def _broadcast(draw: st.DrawFn, b: GraphBuilder, x: str, kind: str) -> str:
    """A product or a sum of what is computed from one tensor in two ways, or of it and a constant."""
    h, w, c = b.tensors[x].shape
    signs = draw(st.sampled_from([(1, 1), (1, -1), (-1, 1)]))
    if kind == "constant":
        x = b.mul(x, draw(st.sampled_from([(c,), (h, w, 1), (1,)])), zero=draw(zeros))
        return b.broadcast_add(x, draw(st.sampled_from([(c,), (h, w, c)])), signs=signs, limits=(-100, 110))
    by_pixel = draw(st.booleans())
    other = b.conv2d(x, 1, zero=draw(zeros)) if by_pixel else b.conv2d(b.avg_pool(x, ratio=0.4), c, zero=draw(zeros))
    if kind == "gate":
        y = b.mul(*draw(st.permutations([x, other])), zero=draw(zeros))
        return b.mul(y, b.table(y, zero=draw(zeros)), factor=4e-3)
    return b.broadcast_add(*draw(st.permutations([x, other])), signs=signs, zero=draw(zeros))


def selections(node: Node) -> st.SearchStrategy[tuple[int, ...]]:
    """Some, in any order, or all."""
    count = weights_of(node).layout(node).channels
    some = st.lists(st.integers(0, count - 1), min_size=1, unique=True).map(tuple)
    return st.one_of(some, st.just(tuple(range(count))))


_RUN_ONE = """
#include "{n}.h"
static tt_status get_{n}(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
{{
    static const int8_t inputs[][{N}_INPUT_BYTES] = {{ {inputs} }};
    (void)user;
    (void)epoch;
    for (size_t i = 0; input != NULL && i < {N}_INPUT_BYTES; i++) input[i] = inputs[index][i];
    *label = (int32_t)index % 3;
    return TT_OK;
}}
static int run_{n}(float rate)
{{
    static const uint32_t hidden[] = {{ {hidden} }};
    const tt_train_options options = {{ .epochs = 3, .seed = 5 }};
    uint8_t *const arena = aligned_alloc(16, ({N}_REGION0_BYTES + 15) / 16 * 16);
    {n}_session *const session = malloc(sizeof *session);
    const tt_samples samples = {{ 6, get_{n}, NULL }};
    for (size_t i = 0; i + 1 < sizeof hidden / sizeof hidden[0]; i += 2) {{
        HIDE(arena + hidden[i], hidden[i + 1]);
    }}
    if ({n}_init(session, arena, {N}_REGION0_BYTES)) return 1;
    tt_model model = *session->core.model;
    tt_learning learning = *model.learning;
    learning.rate = rate;
    model.learning = &learning;
    session->core.model = &model;
    if ({n}_train(session, &options, &samples, NULL, NULL)) return 1;
    fwrite(arena + {training_state}, 1, {training_state_bytes}, stdout);
    return 0;
}}
"""


@dataclass(frozen=True)
class Program:
    """All networks in one program, which prints what they learn at the rate that it is given."""

    path: Path
    lowered: list[Lowered]

    def run(self, rate: float = RATES[0]) -> subprocess.CompletedProcess[bytes]:
        command = [str(self.path), str(rate)]
        return subprocess.run(command, capture_output=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"})


def build_program(
    cases: Sequence[tuple[Graph, Scheme]], directory: Path, compiler: str, flags: Sequence[str]
) -> Program:
    """With ASAN the bytes between a network's buffers are poisoned."""
    asan = flags == ASAN
    parts = [
        '#include "tt_learning.h"\n',
        "#include <stdio.h>\n#include <stdlib.h>\nvoid __asan_poison_memory_region(void const volatile *, size_t);\n",
        f"#define HIDE(start, bytes) {'__asan_poison_memory_region(start, bytes)' if asan else '((void)0)'}\n",
    ]
    written = []
    for i, (graph, scheme) in enumerate(cases):
        lowered = write_model(graph, f"m{i}", directory, classes=CLASSES, spaced=True, scheme=scheme)
        assert lowered.training is not None
        written.append(lowered)
        inputs = ", ".join("{" + ",".join(map(str, x.tolist())) + "}" for x in inputs_of(graph))
        hidden = ", ".join(f"{start}, {size}" for start, size in runs(lowered.plan))
        offset = lowered.plan.scratch[TRAINING_STATE].offset
        place = {"training_state": offset, "training_state_bytes": lowered.training.training_state_bytes}
        parts.append(_RUN_ONE.format(n=f"m{i}", N=f"M{i}", inputs=inputs, hidden=hidden, **place))
    calls = " || ".join(f"run_m{i}(rate)" for i in range(len(cases)))
    main = "const float rate = strtof(argv[argc - 1], NULL);"
    parts.append(f"int main(int argc, char **argv)\n{{\n    {main}\n    return {calls};\n}}\n")
    return Program(compile_batch(len(cases), directory, "".join(parts), "program", compiler, flags, []), written)


def inputs_of(graph: Graph) -> np.ndarray:
    return random_inputs(graph, SAMPLES)[:SAMPLES]


def runs(plan: MemoryPlan) -> list[tuple[int, int]]:
    """(start, bytes) of what lies between the buffers."""
    free = gaps(plan)
    starts = [0, *(i + 1 for i, (a, b) in enumerate(itertools.pairwise(free)) if b != a + 1), len(free)]
    return [(int(free[a]), b - a) for a, b in itertools.pairwise(starts)]


def state_by_reference(graph: Graph, scheme: Scheme, lowered: Lowered, rate: float) -> bytes:
    """The training state as the reference's session would hold it."""
    trainer, inputs = ReferenceTrainer(graph, scheme, CLASSES), inputs_of(graph)
    trainer.train(lambda index, epoch: inputs[index], LABELS, TrainOptions(epochs=3, rate=rate, seed=5))
    assert lowered.training is not None
    buffer = np.zeros(lowered.training.training_state_bytes, np.uint8)

    def put(offset: int, values: np.ndarray) -> None:
        data = np.frombuffer(values.tobytes(), np.uint8)
        buffer[offset : offset + len(data)] = data

    for layer in lowered.training.layers:
        weights, bias = trainer.weights[layer.node.name], trainer.biases[layer.node.name]
        put(layer.bias_offset, bias.deltas.astype(np.int32))
        put(layer.deltas_offset, weights.deltas.astype(np.int16))
        for i, tensor in enumerate((weights, bias)):
            put(layer.running_offset + 8 * i, tensor.running.mean)
            put(layer.running_offset + 8 * i + 4, np.int32(tensor.running.seen))
    return buffer.tobytes()


@pytest.fixture(scope="module")
def cases() -> list[tuple[Graph, Scheme]]:
    return sample(trained_networks(), 28)


@pytest.fixture(scope="module", params=[("gcc", OPTIMISE), ("clang", ASAN)], ids=["gcc", "clang-sanitizers"])
def program(
    cases: list[tuple[Graph, Scheme]], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Program:
    compiler, flags = request.param
    require_or_skip(compiler)
    return build_program(cases, tmp_path_factory.mktemp("shapes"), compiler, flags)


@pytest.mark.parametrize("rate", RATES)
def test_every_shape_learns_the_references_bytes_inside_its_buffers(
    cases: list[tuple[Graph, Scheme]], program: Program, rate: float
) -> None:
    ran = program.run(rate)
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    at, moved = 0, 0
    for (graph, scheme), lowered in zip(cases, program.lowered, strict=True):
        expected = state_by_reference(graph, scheme, lowered, rate)
        assert ran.stdout[at : at + len(expected)] == expected, f"{scheme}\n{describe(graph)}"
        at += len(expected)
        moved += np.count_nonzero(np.frombuffer(expected, np.uint8))
    assert at == len(ran.stdout)
    assert moved > at / 4


def test_sanitizer_would_see_argmax_indices_that_leave_their_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_or_skip("gcc")
    from tinytrain_compiler.ops.max_pool import MaxPoolBackward

    monkeypatch.setattr(MaxPoolBackward, "saved_bytes", lambda *a: 4)
    b = GraphBuilder((8, 8, 3))
    x = b.max_pool(b.conv2d(b.input, 9, name="front"), (2, 2), stride=(2, 2))
    graph = b.build(features=b.reshape(x))
    program = build_program([(graph, Scheme({"front": TrainedLayer((0,))}))], tmp_path, "gcc", ASAN)
    ran = program.run()
    assert ran.returncode != 0
    assert b"use-after-poison" in ran.stderr
