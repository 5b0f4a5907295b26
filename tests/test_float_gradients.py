"""Float32 gradients: against the float64 pass, against integer ones, and the same bytes on host and cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batch import sample
from graphs import GraphBuilder, layout_of, random_inputs
from numpy.typing import NDArray
from test_backward_graph import make_case, networks
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.compile import compile_model
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.graph.gradient import Gradient
from tinytrain_compiler.lowering import Lowered, emit, lower
from tinytrain_compiler.ops import Kernel
from tinytrain_compiler.ops.arrays import ordered_sum
from tinytrain_compiler.ops.backward import NoBackwardRuleError
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.reference.float32 import FLOAT32 as RULES
from tinytrain_compiler.reference.float32 import from_mantissas, rounded_moves
from tinytrain_compiler.reference.float_backward import float_backward
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness_training import pack_training, run_training
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.formats import FLOAT32, Formats, formats
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.pool import TRAINING_STATE
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.visits import TrainOptions
from tools import require_or_skip

CLASSES = 3
INTEGERS, FLOATS = LearningOptions(), LearningOptions(formats=Formats(FLOAT32))
OPTIONS = TrainOptions(epochs=4, rate=0.2, seed=5)
LABELS = [0, 1, 2, 2, 1, 0]


def network() -> tuple[Graph, Scheme]:
    """What test_training.py's network lacks: groups, dilation, more than 16 channels, x + x, a dense layer."""
    b = GraphBuilder((11, 10, 4), seed=4)
    x = b.conv2d(b.input, 21, (3, 3), pad_before=(1, 1), pad_after=(1, 1), zero=-128, name="first")
    y = b.conv2d(x, 35, (1, 3), pad_before=(0, 2), pad_after=(0, 2), dilation=(1, 2), groups=7, name="groups")
    y = b.depthwise(y, (5, 3), stride=(2, 1), pad_before=(2, 1), pad_after=(2, 1), zero=-128, name="deep")
    y = b.avg_pool(b.add(y, y, zero=-128), (3, 3), stride=(1, 2), pad_before=(1, 1), pad_after=(1, 0), name="borders")
    x = b.conv2d(y, 18, (2, 2), stride=(2, 1), name="strided")
    x = b.add(x, b.conv2d(x, 18, zero=-128, name="branch"), name="sum")
    features = b.fully_connected(b.reshape(x), 19, zero=-128, name="dense")
    graph = b.build(b.fully_connected(features, 5, name="classifier"), features)
    layers = {name: TrainedLayer() for name in ("groups", "deep", "dense")}
    layers |= {
        "first": TrainedLayer((1, 2)),
        "strided": TrainedLayer(tuple(range(2, 35))),
        "branch": TrainedLayer((7,)),
    }
    return graph, Scheme(layers)


class Case:
    """The network as C for a board."""

    def __init__(self, directory: Path, board: str) -> None:
        self.graph, self.scheme = network()
        self.lowered: Lowered = lower(self.graph, load_board(board), "net", CLASSES, self.scheme, options=FLOATS)
        sources = emit(self.lowered, ModelInfo("net", (), (), CLASSES, None))
        self.directory = directory / "model"
        write_files(self.directory, {path: text.encode() for path, text in sources.items()})
        self.inputs = random_inputs(self.graph, len(LABELS), seed=3)

    def sample(self, index: int, epoch: int) -> NDArray[np.int8]:
        return np.roll(self.inputs[index], epoch + 1)

    def state_on_host(self) -> bytes:
        plan = self.lowered.training
        assert plan is not None
        place = self.lowered.plan.scratch[TRAINING_STATE]
        with HostModel(self.directory, layout_of(self.graph, self.lowered, "net")) as host:
            host.train(self.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
            return host.region(place.region)[place.offset : place.offset + plan.training_state_bytes].tobytes()


def test_the_host_computes_the_references_bytes(tmp_path: Path) -> None:
    case = Case(tmp_path, "stm32f746")
    reference = ReferenceTrainer(case.graph, case.scheme, CLASSES, FLOATS)
    reference.train(case.sample, LABELS, OPTIONS)
    state = np.frombuffer(case.state_on_host(), np.uint8)
    assert case.lowered.training is not None
    for layer in case.lowered.training.layers:
        name = layer.node.name
        count = len(layer.node.constants["bias"])
        biases = state[layer.bias_offset :][: 4 * count].view(np.int32)
        assert biases.tolist() == reference.biases[name].deltas.tolist(), name
        assert np.abs(biases).max() > 0, name
        running = state[layer.running_offset :][:16].view(np.float32)
        assert running[2] == reference.biases[name].running.mean > 0
        if layer.chosen:
            deltas = state[layer.deltas_offset :][: 2 * layer.deltas].view(np.int16)
            assert deltas.tolist() == reference.weights[name].deltas.reshape(-1).tolist(), name
            assert np.abs(deltas).max() > 64
            assert running[0] == reference.weights[name].running.mean


@pytest.mark.parametrize("board", ["stm32f746", "nrf52840dk"])
def test_emulated_cores_compute_the_hosts_bytes(board: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = Case(tmp_path, board)
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    steps = OPTIONS.epochs * len(LABELS)
    ran = run_training(firmware, machine, pack_training(case.sample, LABELS, OPTIONS), steps, tmp_path / "run")
    state = case.state_on_host()
    assert ran.training_state[: len(state)] == state


def test_float32_gradients_are_those_of_the_float64_pass() -> None:
    compared = 0
    for seed, net in enumerate(sample(networks(), 40)):
        case = make_case(net, seed)
        exact = float_backward(case.graph, case.scheme, case.values, case.gradient.real)
        found = float_backward(case.graph, case.scheme, case.values, from_mantissas(case.gradient), rules=RULES)
        assert list(found) == list(exact)
        for name, (weights, bias) in exact.items():
            node = next(node for node in case.graph.nodes if node.name == name)
            scale = case.graph.tensors[node.inputs[0]].quantization.scale
            pairs = [(found[name][1], bias)]
            if weights is not None:
                pairs.append((found[name][0] * np.float32(scale), weights))
            for got, wanted in pairs:
                assert got.dtype == np.float32
                assert got.shape == wanted.shape
                compared += 1
                assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert compared > 100


def test_float_and_integer_gradients_teach_nearly_the_same() -> None:
    """Same policy, same steps, same state: after a few steps the deltas point the same way."""
    graph, scheme = network()
    inputs = random_inputs(graph, len(LABELS), seed=3)
    state = []
    for gradients in (INTEGERS, FLOATS):
        trainer = ReferenceTrainer(graph, scheme, CLASSES, gradients)
        trainer.train(lambda i, epoch: inputs[i], LABELS, TrainOptions(epochs=1, rate=0.1))
        state.append({name: tensor.deltas.reshape(-1) for name, tensor in trainer.weights.items()})
    for name, integer in state[0].items():
        real = state[1][name]
        assert integer @ real > 0.99 * np.linalg.norm(integer) * np.linalg.norm(real) > 0, name


def test_mantissas_become_floats_exactly_and_moves_round_half_up() -> None:
    gradient = Gradient(np.array([-32767, 1, 32767], np.int16), -60)
    assert from_mantissas(gradient).tolist() == gradient.real.tolist()
    values = np.array([[0.5, -0.5, 1.49, -1.51, 1e30, -1e30, np.inf]], np.float32)
    moves = rounded_moves(values, np.float32(1), np.ones(1, np.float32))
    assert moves.tolist() == [[1, 0, 1, -2, 2147483520, -2147483520, 2147483520]]


def test_sums_have_one_order() -> None:
    """A value that vanishes next to a large one, and does not where the small ones come first."""
    small = [2.0**-25] * 4
    assert ordered_sum(np.array([1.0, *small], np.float32)) == 1
    assert ordered_sum(np.array([*small, 1.0], np.float32)) > 1


def test_float_gradients_take_four_bytes_and_the_state_stays_as_it_is() -> None:
    graph, scheme = network()
    plans = [lower(graph, load_board("stm32f746"), "net", CLASSES, scheme, options=g) for g in (INTEGERS, FLOATS)]

    def gradient_bytes(lowered: Lowered) -> int:
        return sum(p.buffer.bytes for p in lowered.plan.placements if "gradient of" in p.buffer.name)

    assert 1.9 < gradient_bytes(plans[1]) / gradient_bytes(plans[0]) <= 2
    state = [lowered.training.training_state_bytes for lowered in plans if lowered.training is not None]
    assert state[0] == state[1]


@pytest.mark.parametrize("board", ["rp2040", "mps2_an385"])
def test_cores_without_an_fpu_are_refused(board: str) -> None:
    graph, scheme = network()
    with pytest.raises(UsageError, match=f"float32: the cortex-m.* of {board} has no FPU; use --gradients int16") as e:
        lower(graph, load_board(board), "net", CLASSES, scheme, options=FLOATS)
    assert e.value.exit_code == 2


def test_an_operator_without_a_float_kernel_is_named() -> None:
    graph, _ = network()
    with pytest.raises(NoBackwardRuleError, match="first: conv2d has no backward rule in float32") as e:
        FLOAT32.kernel(Kernel("no_such_gradient", "s", "tt_no_params", {}, {"portable": 0}), graph.nodes[0])
    assert e.value.exit_code == 2


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="--gradients float16: choose one of int16, float32"):
        formats("float16", "nearest")
    with pytest.raises(UsageError, match="--gradients float16"):
        compile_model("no.onnx", "stm32f746", gradients="float16")
