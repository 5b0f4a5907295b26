"""Gradients through tables, squeeze-and-excite and gates by pixel: whole networks compiled from ONNX learn on the host
and on an emulated core what the NumPy reference learns, with every policy that says what trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import test_selection
import test_training
from onnx_models import gated_cnn
from test_training import CLASSES, LABELS
from tinytrain_compiler import compile_model
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness_training import pack_training, run_training
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import PROTOTYPE
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.policies import make_policy
from tinytrain_compiler.training.scheme import Scheme
from tinytrain_compiler.training.trainable import scheme_of
from tinytrain_compiler.training.visits import SelectOptions
from tools import require_or_skip

SHORT = replace(test_training.OPTIONS, epochs=2, rate=0.3)
SCHEME = """depth = 8
[fractions]
stem = 1.0
depthwise = 0.5
squeeze = 0.5
excite = 1.0
where = 0.5
"""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    path = tmp_path_factory.mktemp("models") / "gated.onnx"
    onnx.save(gated_cnn(), path)
    return compile_model(path, "stm32f746").graph


def learnt(graph: Graph, policy: str, **options: Any) -> tuple[Graph, Scheme]:
    scheme = scheme_of(make_policy(policy, options), graph, PROTOTYPE)
    assert scheme is not None
    assert len(scheme.layers) == 8, "gradients reach all layers, the stem too"
    return graph, scheme


def test_tables_and_gates_are_what_the_network_has(gated: Graph) -> None:
    assert {"lookup", "mul", "broadcast_add"} <= {node.op for node in gated.nodes}


@pytest.mark.parametrize(
    ("policy", "gradients"), [("bias", "int16"), ("sparse-update", "int16"), ("sparse-update", "float32")]
)
def test_a_static_scheme_learns_the_references_bytes(gated: Graph, policy: str, gradients: str, tmp_path: Path) -> None:
    (tmp_path / "scheme.toml").write_text(SCHEME)
    options = {"scheme": tmp_path / "scheme.toml"} if policy == "sparse-update" else {}
    case = test_training.Case(tmp_path, gradients=gradients, learnt=learnt(gated, policy, **options))
    reference = case.reference()
    reference.train(case.sample, LABELS, SHORT)
    with case.host() as host:
        host.train(case.sample, LABELS, SHORT.epochs, SHORT.rate, SHORT.seed)
        case.check(host, reference)


@pytest.mark.parametrize("gradients", ["int16", "float32"])
def test_channels_chosen_by_fisher_information_learn_the_references_bytes(
    gated: Graph, gradients: str, tmp_path: Path
) -> None:
    options = LearningOptions(formats=formats(gradients, "nearest"), pool=test_selection.POOL)
    case = test_selection.Case(tmp_path, options, learnt=learnt(gated, "tinytrain"))
    reference = ReferenceTrainer(case.graph, case.scheme, CLASSES, options)
    reference.select(case.sample, LABELS, SelectOptions(options.selector, 5, 3), case.budget())
    reference.train(case.sample, LABELS, SHORT)
    with case.host() as host:
        host.select(case.sample, LABELS, options.selector, 5, 3)
        host.train(case.sample, LABELS, SHORT.epochs, SHORT.rate, SHORT.seed)
        case.check(host, reference)


def test_an_emulated_core_chooses_and_learns_the_same_bytes(gated: Graph, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = test_selection.Case(
        tmp_path, LearningOptions(pool=test_selection.POOL), "stm32f746", learnt(gated, "tinytrain")
    )
    machine = emulation_board(load_board("stm32f746"))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    data = pack_training(case.sample, LABELS, SHORT, fisher_passes=case.training.fisher_passes)
    ran = run_training(firmware, machine, data, SHORT.epochs * len(LABELS), tmp_path / "run")
    with case.host() as host:
        host.train(case.sample, LABELS, SHORT.epochs, SHORT.rate, SHORT.seed)
        state = case.training_state(host).tobytes()
        assert any(case.selected(host).values())
    assert ran.training_state[: len(state)] == state
