"""Kernels of the backward pass alone compute the reference's bytes: host C and emulated cores, awkward shapes."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backward_cases import KINDS, examples, make_gradient
from gradient_kernels import Case, input_gradient_case, learning_case, output_bytes, rounding_case, write_cases, wrong
from graphs import GraphBuilder
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.targets.emulation import emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness import INFER, pack_records, run_records
from tinytrain_compiler.targets.host import OPTIMISE, WARNINGS
from tinytrain_compiler.training.formats import NEAREST, STOCHASTIC
from tools import require_or_skip

ONE = (1, 1)
# Image and channels, outputs (None: depthwise), kernel and what else a builder takes.
SHAPES: list[tuple[tuple[int, int, int], int | None, tuple[int, int], dict[str, Any]]] = [
    ((1, 1, 1), 1, (1, 1), {}),
    ((1, 1, 12), 7, (1, 1), {}),
    ((3, 5, 8), 12, (1, 1), {}),  # whole words all the way
    ((3, 5, 9), 6, (1, 1), {}),  # two outputs left over, three channels missing
    ((4, 4, 7), 5, (1, 1), {}),
    ((2, 3, 8), 10, (1, 1), {"groups": 2}),  # five outputs a group
    ((5, 4, 10), 8, (1, 1), {"stride": (2, 2)}),
    ((6, 5, 6), 4, (3, 3), {"pad_before": (1, 1), "pad_after": (1, 1)}),
    ((7, 6, 5), 9, (3, 2), {"stride": (2, 1), "pad_before": (0, 1), "pad_after": (2, 0)}),
    ((9, 8, 6), 6, (3, 3), {"dilation": (2, 3), "stride": (1, 2), "groups": 3, "pad_before": (2, 1)}),
    ((6, 6, 4), 3, (2, 2), {"stride": (3, 3)}),  # pixels that no window reads
    ((8, 8, 8), None, (3, 3), {"pad_before": (1, 1), "pad_after": (1, 1)}),
    ((8, 7, 10), None, (7, 7), {"stride": (2, 2), "pad_before": (3, 3), "pad_after": (3, 3)}),
    ((5, 9, 5), None, (5, 3), {"stride": (2, 3), "pad_before": (0, 2), "pad_after": (3, 1)}),
    ((9, 9, 3), None, (3, 3), {"stride": (2, 2), "dilation": (2, 1), "pad_before": (2, 1), "pad_after": (0, 1)}),
    ((6, 5, 4), None, (3, 3), {"dilation": (2, 2), "pad_before": (2, 2), "pad_after": (2, 2)}),
    ((1, 1, 9), None, (3, 3), {"pad_before": (1, 1), "pad_after": (1, 1)}),
    ((7, 5, 6), None, (1, 1), {"stride": (2, 2)}),  # three of four pixels reach nothing
    ((2, 1, 4), None, (2, 1), {"stride": (3, 3), "pad_before": (1, 0), "pad_after": (2, 4)}),
]
BOARDS = ("stm32f746", "mps2_an385", "rp2040")  # M7, M3, M0+; M4 runs the text of M7, and trains in test_training.py
CHOSEN = (1, 3, 5, 8, 2, 12)
REACH = (1.0, 30.0, 2.0**-30, 2.0**30)  # usual steps, steps that saturate, steps beyond 32 bits in both directions


def layer(shape: tuple[int, int, int], out: int | None, kernel: tuple[int, int], more: dict[str, Any]) -> Graph:
    b = GraphBuilder(shape, zero=-77, seed=sum(shape))
    if out is None:
        b.depthwise(b.input, kernel, **more)
    else:
        b.conv2d(b.input, out, kernel, **more)
    return b.build()


@cache
def cases() -> tuple[Case, ...]:
    graphs = [layer(*shape) for shape in SHAPES]
    for family in ("pointwise", "conv", "depthwise", "fully_connected"):
        graphs += [graph for graph in examples(family)[1:13] if graph.tensors["input"].bytes < 2000]
    kinds = [KINDS[i % len(KINDS)] for i in range(len(graphs))]
    found = [
        input_gradient_case(graph, make_gradient(graph, graph.nodes[-1], kind, i, 0))
        for i, (graph, kind) in enumerate(zip(graphs, kinds, strict=True))
    ]
    found += [rounding_case(layer((3, 2, 6), 1, ONE, {})), rounding_case(layer((7, 9, 1), None, ONE, {}))]
    for i, graph in enumerate(graphs):
        node = graph.nodes[-1]
        inputs = graph.tensors[node.inputs[0]].shape[-1]
        count = min(CHOSEN[i % len(CHOSEN)], inputs)
        channels = np.random.default_rng(i).permutation(inputs)[:count].tolist()
        rounding = STOCHASTIC if i % 5 == 2 else NEAREST
        found.append(learning_case(graph, KINDS[(i + 2) % 4], i, channels, REACH[i % len(REACH)], rounding))
    return tuple(found)


@pytest.mark.parametrize("flags", [OPTIMISE, ["-O0"]], ids=["optimised", "plain"])
def test_host_computes_the_reference_bytes(flags: list[str], tmp_path: Path) -> None:
    require_or_skip("gcc")
    write_cases(cases(), tmp_path / "model")
    sources = [tmp_path / "model" / "cases.c", *sorted((tmp_path / "model" / "runtime").glob("*.c"))]
    library = tmp_path / "cases.so"
    common = ["gcc", "-std=c11", *WARNINGS, *flags, "-fPIC", "-shared", f"-I{tmp_path / 'model'}"]
    subprocess.run([*common, f"-I{tmp_path / 'model' / 'runtime'}", *map(str, sources), "-o", str(library)], check=True)
    run_case = ctypes.CDLL(str(library)).run_case
    found = []
    for index, case in enumerate(cases()):
        output = ctypes.create_string_buffer(output_bytes(cases()))
        run_case(index, output)
        found.append(wrong(case, output.raw))
    assert [text for text in found if text] == []


@pytest.mark.parametrize("board_name", BOARDS)
def test_core_computes_the_reference_bytes(board_name: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    machine = emulation_board(load_board(board_name))
    write_cases(cases(), tmp_path / "model")
    bank = machine.banks[0].name
    firmware = build_firmware(tmp_path / "model", "cases", machine, [bank], "harness", tmp_path / "build")
    records = [(INFER, index.to_bytes(4, "little")) for index in range(len(cases()))]
    ran = run_records(firmware, machine, pack_records(records), tmp_path / "run", 60)
    found = [wrong(case, record.output) for case, record in zip(cases(), ran.records, strict=True)]
    assert [text for text in found if text] == []


def test_cases_reach_what_kernels_tell_apart() -> None:
    """The tests above are worth what their cases reach."""
    by_template: dict[str, list[Case]] = {}
    for case in cases():
        by_template.setdefault(case.kernel.template, []).append(case)
    inputs = [case.kernel.shape for case in by_template["conv2d/input_gradient"]]
    assert {(s["OG"] % 4, s["O"] % 2) for s in inputs} >= {(0, 0), (2, 0), (1, 0), (1, 1), (3, 1)}
    assert {s["CG"] % 4 for s in inputs} == {0, 1, 2, 3}
    assert {s["POINTWISE"] for s in inputs} == {0, 1}
    assert {s["GROUPS"] > 1 for s in inputs} == {False, True}
    depthwise = [case.kernel.shape for case in by_template["depthwise_conv2d/input_gradient"]]
    assert {s["C"] % 4 for s in depthwise} == {0, 1, 2, 3}
    assert any(s["SH"] > 1 < s["DH"] for s in depthwise)
    learning = by_template["conv2d/weight_gradient"]
    assert any(case.result for case in learning), "some updates saturate"
    assert {case.label.split("chosen ")[1].split()[0] for case in learning} >= {"1", "3", "5", "8"}
    assert {case.label.split("reach ")[1] for case in learning} == {str(reach) for reach in REACH}
    grouped = by_template["conv2d/grouped_weight_gradient"]
    for some in (learning, grouped):
        assert {case.label.split()[-3] for case in some} == {"nearest", "stochastic"}
    assert any(case.result for case in grouped)
    assert {case.kernel.shape["CG"] > 1 for case in grouped} == {False, True}
    shifts = [case.result for template in by_template if "input" in template for case in by_template[template]]
    assert 0 in shifts
    assert max(shifts) > 5
