"""The same sources on emulated cores: the DSP and the portable kernels compute the reference's bytes.

The harness lays guard bytes around the arena and fails where one changed; the wrapper fails where the firmware did
not reach its verdict.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from graphs import random_inputs, write_model
from networks import NETWORKS
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.ops import operator_of, registered
from tinytrain_compiler.ops.variants import VARIANTS
from tinytrain_compiler.reference import PrototypeHead, run
from tinytrain_compiler.resources import TEMPLATES
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness import INFER, HarnessRun, pack_records, run_records
from tools import require_or_skip

CORES = {
    "stm32f746": "dsp", "nrf52840dk": "dsp", "stm32u575": "dsp", "corstone300": "dsp",
    "mps2_an385": "portable", "rp2040": "portable",
}  # fmt: skip
LABELS = 3


@cache
def network(name: str) -> Graph:
    return NETWORKS[name]()


def run_on_core(graph: Graph, board_name: str, folder: Path, records: list[tuple[int, np.ndarray]]) -> HarnessRun:
    board = load_board(board_name)
    machine = emulation_board(board)
    lowered = write_model(graph, "net", folder / "model", board_name, classes=LABELS)
    banks = emulation_banks(machine, lowered.plan.region_banks)
    firmware = build_firmware(folder / "model", "net", machine, banks, "harness", folder / "build")
    packed = pack_records([(label, x.tobytes()) for label, x in records])
    return run_records(firmware, machine, packed, folder / "run", 60)


@pytest.mark.parametrize("board", CORES)
@pytest.mark.parametrize("name", NETWORKS)
def test_core_computes_the_reference_bytes(name: str, board: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    graph = network(name)
    inputs = random_inputs(graph, 6)
    ran = run_on_core(graph, board, tmp_path, [(INFER, x) for x in inputs])
    for x, record in zip(inputs, ran.records, strict=True):
        output, features = run(graph, x)
        assert record.status == 0
        assert np.frombuffer(record.output, np.int8).tolist() == output.tolist()
        assert np.frombuffer(record.features, np.int8).tolist() == features.tolist()
    assert len(ran.instructions) == len(inputs)
    macs = sum(operator_of(node).macs(node, graph.tensors) for node in graph.nodes)
    assert min(ran.instructions) > macs / 2, "SMLAD does two multiply-accumulates at once, nothing does more"


def test_core_learns_and_classifies_like_the_reference_head(tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm", "cc")
    graph = network("mobile")
    inputs = random_inputs(graph, 20)
    labels = [0, 2, 2, 0, 2, *[INFER] * 18]
    ran = run_on_core(graph, "rp2040", tmp_path, list(zip(labels, inputs, strict=True)))
    tensor = graph.tensors[graph.features]
    head = PrototypeHead(LABELS, tensor.bytes, tensor.quantization.zero_point)
    for label, x, record in zip(labels, inputs, ran.records, strict=True):
        _, features = run(graph, x)
        if label >= 0:
            head.enroll(features, label)
        else:
            assert (record.label, record.score) == head.classify(features)


# The tests above are worth what the networks reach.


def test_networks_reach_every_operator_and_template() -> None:
    nodes = [node for name in NETWORKS for node in network(name).nodes]
    assert {node.op for node in nodes} == set(registered())
    used = set()
    for name in NETWORKS:
        tensors = network(name).tensors
        for node in network(name).nodes:
            operator = operator_of(node)
            saving = operator.backward.saving_kernel(node, tensors) if operator.backward is not None else None
            used |= {kernel.template for kernel in (operator.kernel(node, tensors), saving) if kernel is not None}
    for variant in VARIANTS:
        found = (TEMPLATES / "kernels").glob(f"*/*.{variant.name}.c.j2")
        templates = {f"{path.parent.name}/{path.name.split('.')[0]}" for path in found}
        assert {name for name in templates if "gradient" not in name} <= used


def test_networks_reach_every_branch_of_the_templates() -> None:
    shapes: dict[str, list[dict[str, int]]] = {}
    for name in NETWORKS:
        for node in network(name).nodes:
            kernel = operator_of(node).kernel(node, network(name).tensors)
            if kernel:
                shapes.setdefault(kernel.template, []).append(dict(kernel.shape))
    conv = shapes["conv2d/forward"]
    assert {s["P"] for s in conv} == {1, 2, 3, 4}
    assert {(s["POINTWISE"], s["DIRECT"]) for s in conv} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {(s["GROUPS"] > 1, s["DIRECT"]) for s in conv} == {(False, 0), (False, 1), (True, 0), (True, 1)}
    assert any(s["OH"] * s["OW"] % 4 and s["P"] == 4 for s in conv), "a last block that moves back"
    assert any(s["DH"] > 1 and s["DW"] > 1 and s["DIRECT"] for s in conv)
    assert {s["N"] % 4 > 0 for s in shapes["add/forward"]} == {True, False}
    assert {s["OG"] % 4 > 0 for s in conv} == {True, False}
    for template in ("conv2d/forward", "depthwise_conv2d/forward", "fully_connected/forward"):
        forms = {(s["SHIFT"] > 0, s["FITS"]) for s in shapes[template]}
        assert {(False, 1), (True, 0)} <= forms, template
        assert {(s["LOW"], s["HIGH"]) == (-128, 127) for s in shapes[template]} == {True, False} or template[0] == "d"
    assert {s["C"] % 4 for s in shapes["depthwise_conv2d/forward"]} >= {0, 1, 2, 3}
    assert {s["K"] % 4 > 0 for s in shapes["fully_connected/forward"]} == {True, False}
    assert {s["O"] % 2 for s in shapes["fully_connected/forward"]} == {0, 1}
    assert {s["BY_COUNT"] for s in shapes["avg_pool/forward"]} == {0, 1}
