"""The generated C of every operator computes the reference's bytes, in odd shapes and at extreme scales.

Each test compiles one library with many one-operator models. Their buffers lie apart, with guard bytes
between them, so a kernel that writes past its input, output or scratch memory shows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from batch import mismatches, sample
from graphs import GraphBuilder
from operator_cases import STRATEGIES, wide
from tinytrain_compiler.codegen.kernels import kernel_bodies
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.ops import Kernel, operator_of, registered
from tinytrain_compiler.ops.variants import VECTOR
from tinytrain_compiler.targets.host import OPTIMISE
from tools import require_or_skip

COUNTS = {
    "conv": 32, "pointwise": 20, "depthwise": 32, "fully_connected": 20, "add": 16, "avg_pool": 24, "max_pool": 16,
    "softmax": 14, "lookup": 10, "transpose": 10, "matmul": 20, "layer_norm": 16, "mul": 20, "broadcast_add": 20,
    "take": 40, "concat": 24,
}  # fmt: skip


def cpu_features() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


@cache
def examples(family: str) -> list[Graph]:
    return sample(STRATEGIES[family], COUNTS[family])


def kernels(family: str) -> list[Kernel]:
    """The last node's kernel of each example."""
    found = [operator_of(g.nodes[-1]).kernel(g.nodes[-1], g.tensors) for g in examples(family)]
    return [kernel for kernel in found if kernel is not None]


@pytest.mark.parametrize("family", STRATEGIES)
def test_gcc_computes_the_reference_bytes(family: str, tmp_path: Path) -> None:
    """With the widest vectors of this machine."""
    require_or_skip("gcc")
    assert mismatches(examples(family), tmp_path) == []


@pytest.mark.parametrize("family", ["conv", "pointwise", "depthwise"])
def test_narrow_vectors_compute_the_reference_bytes(family: str, tmp_path: Path) -> None:
    require_or_skip("gcc")
    assert mismatches(examples(family), tmp_path, flags=["-O2"]) == []


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", OPTIMISE), ("gcc", ("-O1",)), ("gcc", ("-O2", "-mavx2")), ("clang", OPTIMISE)],
)
def test_more_channels_than_lanes(compiler: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    require_or_skip(compiler)
    if "-mavx2" in flags and "avx2" not in cpu_features():
        pytest.skip("this processor has no AVX2")
    assert mismatches(sample(wide(), 24), tmp_path, compiler, flags) == []


def test_a_layer_too_large_for_the_stack_runs_the_portable_code() -> None:
    def body(size: int) -> str:
        b = GraphBuilder((size, size, 4))
        b.depthwise(b.input, (3, 3))
        (node,), tensors = b.build().nodes, b.build().tensors
        return kernel_bodies(operator_of(node).kernel(node, tensors))[VECTOR]  # type: ignore[arg-type]

    assert "tt_vector" in body(112)
    assert "tt_vector" not in body(224)


@pytest.mark.parametrize("family", STRATEGIES)
def test_portable_kernels_compute_the_reference_bytes(family: str, tmp_path: Path) -> None:
    """What a Cortex-M0 or M3 runs."""
    require_or_skip("gcc")
    assert mismatches(examples(family), tmp_path, flags=["-O2", "-DTT_PORTABLE"]) == []


def test_clang_computes_the_reference_bytes(tmp_path: Path) -> None:
    require_or_skip("clang")
    few = [graph for family in STRATEGIES for graph in examples(family)[1:5]]
    few += [graph for family in ("conv", "pointwise", "depthwise") for graph in examples(family)[5:15]]
    assert mismatches(few, tmp_path, "clang") == []


def test_unoptimised_code_computes_the_reference_bytes(tmp_path: Path) -> None:
    require_or_skip("gcc")
    few = [graph for family in STRATEGIES for graph in examples(family)[5:8]]
    assert mismatches(few, tmp_path, flags=["-O0"]) == []


# The tests above are worth what their examples reach.


def test_every_operator_has_examples() -> None:
    reached = {node.op for family in STRATEGIES for graph in examples(family) for node in graph.nodes}
    assert reached == set(registered())


@pytest.mark.parametrize("family", ["conv", "pointwise", "depthwise", "fully_connected"])
def test_examples_reach_every_form_of_requantisation(family: str) -> None:
    forms = {(k.shape["SHIFT"] > 0, k.shape["FITS"]) for k in kernels(family)}
    assert forms == {(False, 1), (True, 1), (True, 0)}


def test_examples_reach_every_branch_of_the_templates() -> None:
    shapes = {family: [kernel.shape for kernel in kernels(family)] for family in STRATEGIES}
    for family in ("conv", "pointwise"):
        assert {s["DIRECT"] for s in shapes[family]} == {0, 1}, "channels a multiple of four, and not"
        assert {s["OG"] % 4 == 0 for s in shapes[family]} == {True, False}
        assert {1, 4} <= {s["P"] for s in shapes[family]}
        assert {2, 3} & {s["P"] for s in shapes[family]}
        assert any(s["OH"] * s["OW"] % 4 and s["P"] == 4 for s in shapes[family]), "a last block that moves back"
    assert {s["GROUPS"] for s in shapes["conv"]} == {1, 2, 3}
    assert {s["C"] % 4 for s in shapes["depthwise"]} == {0, 1, 2, 3}
    for family in ("conv", "depthwise"):
        for dimension, wanted in (("KH", {1, 3, 5, 7}), ("SH", {1, 2, 3}), ("SW", {1, 2, 3}), ("DW", {1, 2})):
            assert wanted <= {s[dimension] for s in shapes[family]}, (family, dimension)
        assert any(s["PT"] or s["PL"] for s in shapes[family])
    in_place = {bool(operator_of(g.nodes[0]).in_place(g.nodes[0], g.tensors)) for g in examples("depthwise")}
    assert in_place == {True, False}
    assert {s["K"] % 4 for s in shapes["fully_connected"]} == {0, 1, 2, 3}
    assert {s["O"] % 2 for s in shapes["fully_connected"]} == {0, 1}
    assert {s.get("BY_COUNT") for s in shapes["avg_pool"]} == {0, 1, None}, "None: raw means have no multipliers"
    assert any(s.get("SHIFT") for s in shapes["avg_pool"])
    assert len({s["SHIFT"] for s in shapes["add"]}) > 2
