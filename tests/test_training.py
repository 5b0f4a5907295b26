"""Training, with every head: NumPy reference = host C = emulated cores, in every byte of the training state."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, layout_of, random_inputs
from numpy.typing import NDArray
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import Lowered, emit, lower
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.reference.linear import LinearHead
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.flash import SimulatedFlash
from tinytrain_compiler.targets.harness_training import pack_training, run_training
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS, PROTOTYPE, HeadKind
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.policies import DEFAULT_RATE
from tinytrain_compiler.training.pool import TRAINING_STATE
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.visits import TrainOptions, visiting_order
from tools import require_or_skip

CLASSES, SAMPLES = 4, 12
OPTIONS = TrainOptions(epochs=9, rate=0.08, seed=3)  # 108 steps
ONE, TWO, THREE = (1, 1), (2, 2), (3, 3)
LABELS = [i % CLASSES for i in range(SAMPLES)]


def network() -> tuple[Graph, Scheme]:
    """Residuals, strides with asymmetric pads, depthwise and grouped layers, a dilation, odd channel counts, a clip,
    overlapping pools with borders, a vector's layer. All learn weights but one."""
    b = GraphBuilder((13, 15, 3), seed=1)
    x = b.conv2d(b.input, 7, THREE, stride=TWO, pad_before=(0, 0), pad_after=ONE, zero=-128, name="stem")
    y = b.conv2d(x, 18, zero=-128, limits=(-128, 100), name="expand")
    y = b.depthwise(y, THREE, pad_before=ONE, pad_after=ONE, zero=-128, name="depthwise")
    x = b.add(x, b.conv2d(y, 7, name="project"))
    x = b.max_pool(x, THREE, stride=(1, 2), pad_before=ONE, pad_after=(0, 1), name="winners")
    x = b.avg_pool(x, (3, 2), stride=(2, 1), pad_before=ONE, pad_after=(0, 1), name="pool")
    x = b.conv2d(x, 15, THREE, pad_before=ONE, pad_after=ONE, zero=-128, name="wide")
    x = b.conv2d(x, 10, (3, 2), groups=5, dilation=(1, 2), pad_before=ONE, pad_after=ONE, zero=-128, name="grouped")
    x = b.depthwise(x, THREE, stride=TWO, pad_before=(0, 1), pad_after=ONE, zero=-128, name="strided")
    x = b.conv2d(b.avg_pool(x, name="global"), 13, name="frozen weights")
    features = b.fully_connected(b.reshape(x), 24, name="vector")
    graph = b.build(b.fully_connected(features, 5, name="classifier"), features)
    layers = {
        "stem": TrainedLayer((0, 2)),
        "expand": TrainedLayer((0, 2, 3, 6)),
        "depthwise": TrainedLayer((17, 0, 5, 6, 7, 12)),
        "project": TrainedLayer(tuple(range(0, 18, 3))),
        "wide": TrainedLayer((6, 1, 2)),
        "grouped": TrainedLayer((1, 14, 3, 4, 5)),
        "strided": TrainedLayer(tuple(range(10))),
        "frozen weights": TrainedLayer(),
        "vector": TrainedLayer((2, 3, 12, 4)),
    }
    return graph, Scheme(layers)


def samples(graph: Graph) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Clean inputs, a cluster a class, and an augmented copy for each epoch."""
    rng = np.random.default_rng(5)
    centres = random_inputs(graph, CLASSES, seed=2).astype(int)
    clean = np.clip(centres[LABELS] + rng.integers(-60, 61, (SAMPLES, centres.shape[1])), -128, 127)
    noisy = np.clip(clean + rng.integers(-20, 21, (OPTIONS.epochs, *clean.shape)), -128, 127)
    return clean.astype(np.int8), noisy.astype(np.int8)


class Case:
    """The network written as C, and its training by the reference."""

    def __init__(
        self, directory: Path, board: str = "stm32f746", head: HeadKind = PROTOTYPE, layers: bool = True,
        gradients: str = "int16", rounding: str = "nearest", learnt: tuple[Graph, Scheme] | None = None,
    ) -> None:  # fmt: skip
        """layers: whether any of them learn. learnt: another network and what it trains."""
        self.graph, self.scheme = learnt or network()
        if not layers:
            self.scheme = Scheme({})
        scheme = self.scheme if layers or head.learns else None
        self.head, self.options = head, LearningOptions(head, formats(gradients, rounding))
        self.lowered: Lowered = lower(self.graph, load_board(board), "net", CLASSES, scheme, options=self.options)
        sources = emit(self.lowered, ModelInfo("net", (), (), CLASSES, None, head.name))
        self.directory = directory / "model"
        write_files(self.directory, {path: text.encode() for path, text in sources.items()})
        self.clean, self.noisy = samples(self.graph)

    def sample(self, index: int, epoch: int) -> NDArray[np.int8]:
        return self.clean[index] if epoch < 0 else self.noisy[epoch, index]

    def host(self) -> HostModel:
        return HostModel(self.directory, layout_of(self.graph, self.lowered, "net"))

    def training_state(self, host: HostModel) -> bytes:
        place, plan = self.lowered.plan.scratch[TRAINING_STATE], self.lowered.training
        assert plan is not None
        return host.region(place.region)[place.offset : place.offset + plan.training_state_bytes].tobytes()

    def reference(self) -> ReferenceTrainer:
        return ReferenceTrainer(self.graph, self.scheme, CLASSES, self.options)

    def check(self, host: HostModel, reference: ReferenceTrainer) -> None:
        """After a training: every byte of the training state, and every answer, is the reference's."""
        state = np.frombuffer(self.training_state(host), np.uint8)
        answers = [host.infer(x) for x in self.clean]
        assert self.lowered.training is not None
        for layer in self.lowered.training.layers:
            name = layer.node.name
            count = len(layer.node.constants["bias"])
            biases = state[layer.bias_offset :][: 4 * count].view(np.int32)
            assert biases.tolist() == reference.biases[name].deltas.tolist()
            assert biases.any(), "the layer must have moved"
            running = state[layer.running_offset :][:16].view(np.float32)
            assert running[2] == reference.biases[name].running.mean
            if layer.chosen:
                kept = self.options.formats.rounding
                stored = state[layer.deltas_offset :][: kept.delta_bytes * layer.deltas]
                deltas = stored.view({1: np.int8, 2: np.int16}[kept.delta_bytes])
                assert deltas.tolist() == reference.weights[name].deltas.reshape(-1).tolist()
                assert running[0] == reference.weights[name].running.mean
                assert np.abs(deltas).max() > (64 >> 8 - kept.fraction_bits), "the layer must have moved"
        assert state[self.lowered.training.head_offset :].tobytes() == head_bytes(reference)
        assert [(a.label, a.score) for a in answers] == [reference.infer(x) for x in self.clean]


OPTIONS_OF = [
    ("prototype", "int16", "nearest"),
    ("prototype", "float32", "nearest"),
    ("prototype", "int16", "stochastic"),
    ("linear", "int16", "nearest"),
    ("linear", "float32", "stochastic"),
]


@pytest.fixture(scope="module", params=OPTIONS_OF, ids="/".join)
def case(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Case:
    head, gradients, rounding = request.param
    return Case(tmp_path_factory.mktemp("training"), head=HEADS[head], gradients=gradients, rounding=rounding)


@pytest.fixture(scope="module")
def reference(case: Case) -> ReferenceTrainer:
    trainer = case.reference()
    trainer.train(case.sample, LABELS, OPTIONS)
    return trainer


def head_bytes(trainer: ReferenceTrainer) -> bytes:
    """The state of the reference's head, as the C side lays it out."""
    if not isinstance(trainer.head, LinearHead):
        return b""
    running = trainer.head.running
    return struct.pack("<fi", running.mean, running.seen) + trainer.head.deltas.astype("<i2").tobytes()


def test_a_hundred_steps_on_the_host_are_the_references_in_every_byte(
    case: Case, host: HostModel, reference: ReferenceTrainer
) -> None:
    trained = host.train(case.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
    case.check(host, reference)
    tensors = [*reference.weights.values(), *reference.biases.values()]
    saturated = reference.head.saturated if isinstance(reference.head, LinearHead) else 0
    assert trained.saturated == saturated + sum(tensor.saturated for tensor in tensors)


def right(answers: list[int]) -> int:
    return sum(answer == label for answer, label in zip(answers, LABELS, strict=True))


def test_training_lowers_the_error_and_answers_the_support_set(case: Case, host: HostModel) -> None:
    repeated = host.train(lambda i, e: case.sample(i, e % OPTIONS.epochs if e >= 0 else e), LABELS, 400, DEFAULT_RATE)
    answers = [host.infer(x).label for x in case.clean]
    assert np.mean(repeated.errors[-5:]) < 0.5 * repeated.errors[0]
    assert right(answers) >= SAMPLES - 1  # two classes of noise look alike: at any rate 11 or 12, as chance has it


def test_other_labels_teach_something_else(case: Case, host: HostModel) -> None:
    host.train(case.sample, LABELS, 2, 0.2)
    first = case.training_state(host)
    host.unlearn()
    assert not any(case.training_state(host)), "unlearn leaves factory weights"
    host.train(case.sample, [LABELS[1], LABELS[0], *LABELS[2:]], 2, 0.2)
    assert case.training_state(host) != first
    host.unlearn()
    host.train(case.sample, LABELS, 2, 0.2)
    assert case.training_state(host) == first, "the same task teaches the same bytes"


def test_inference_before_training_is_the_pretrained_networks(case: Case, host: HostModel) -> None:
    fresh = ReferenceTrainer(case.graph, Scheme({}), CLASSES)
    for x in case.clean:
        assert host.infer(x).features.tobytes() == fresh.features(x).tobytes()


def test_ten_thousand_steps_neither_drift_nor_break(case: Case, host: HostModel) -> None:
    epochs = 10_000 // SAMPLES + 1
    trained = host.train(lambda i, e: case.sample(i, e % OPTIONS.epochs if e >= 0 else e), LABELS, epochs, DEFAULT_RATE)
    answers = [host.infer(x).label for x in case.clean]
    assert np.isfinite(trained.errors).all()
    assert max(trained.errors[-100:]) < trained.errors[0]
    assert right(answers) >= SAMPLES - 1


BOARDS = ("stm32f746", "nrf52840dk", "stm32u575", "corstone300", "mps2_an385", "rp2040")
CORES = [("prototype", "int16", "nearest", board) for board in BOARDS]
CORES += [(*kind, board) for kind in (("prototype", "int16", "stochastic"), ("linear", "int16", "nearest"))
          for board in ("stm32f746", "rp2040")]  # fmt: skip
CORES += [("prototype", "float32", "nearest", "stm32f746"), ("linear", "float32", "stochastic", "nrf52840dk")]
SLOW_CORES = [(*kind, board) for kind in (("prototype", "int16", "stochastic"), ("linear", "int16", "nearest"))
              for board in ("nrf52840dk", "mps2_an385")]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "gradients", "rounding", "board"),
    [*CORES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW_CORES)],
)
def test_emulated_cores_learn_the_same_bytes(
    head: str, gradients: str, rounding: str, board: str, tmp_path: Path
) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = Case(tmp_path, board, HEADS[head], gradients=gradients, rounding=rounding)
    cores_learn_like_the_host(case, board, tmp_path)


@pytest.mark.parametrize("board", ["stm32f746", "mps2_an385"])
def test_emulated_cores_train_a_head_alone(board: str, tmp_path: Path) -> None:
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    cores_learn_like_the_host(Case(tmp_path, board, HEADS["linear"], layers=False), board, tmp_path)


def cores_learn_like_the_host(case: Case, board: str, tmp_path: Path) -> None:
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    steps = OPTIONS.epochs * SAMPLES
    ran = run_training(
        firmware, machine, pack_training(case.sample, LABELS, OPTIONS, case.head), steps, tmp_path / "run"
    )
    with case.host() as host:
        host.train(case.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
        flash = SimulatedFlash(host.state_bytes)
        host.save(flash)
        state = case.training_state(host)
        prototypes = 2 * CLASSES * (1 + case.graph.tensors[case.graph.features].bytes)
        payload = flash.slot(0)[64:][: int.from_bytes(flash.slot(0)[20:24], "little")]
    assert any(state)
    assert ran.training_state == state + payload[-prototypes:], "trained, saved, and loaded into a new session"
    assert len(ran.steps) == steps
    parts = list(zip(*ran.steps, strict=True))
    assert all(min(part) > 1000 for part in parts[:2])
    assert max(parts[0]) < 1.01 * min(parts[0]), "a forward pass takes the same every time"
    if case.scheme.layers:
        assert 1000 < ran.steps[0].backward < min(parts[2][1:]), "the first step updates nothing"
    assert sum(ran.per_step) == ran.per_step.total
    assert ran.stack_bytes < 4096


def test_a_session_survives_every_error(case: Case, host: HostModel) -> None:
    calls = []

    def failing(index: int, epoch: int) -> NDArray[np.int8]:
        calls.append(index)
        return case.sample(index, epoch)

    with pytest.raises(TinyTrainError, match="status -4"):
        host.train(failing, [*LABELS[:-1], CLASSES], 1, 0.2)
    with pytest.raises(TinyTrainError, match="status -1"):
        host.train(case.sample, LABELS, 1, -0.1)
    with pytest.raises(TinyTrainError, match="status -1"):
        host.train(case.sample, [], 1, 0.2)
    host.unlearn()
    host.train(case.sample, LABELS, 1, 0.2)
    assert case.training_state(host) != bytes(len(case.training_state(host)))
    assert not calls, "labels are looked at before any sample"


def test_no_rate_is_the_policys_own(case: Case, host: HostModel) -> None:
    state = []
    for rate in (0.0, DEFAULT_RATE, 2 * DEFAULT_RATE):
        host.unlearn()
        host.train(case.sample, LABELS, 2, rate)
        state.append(case.training_state(host))
    assert state[0] == state[1] != state[2]


@pytest.mark.parametrize("wrong", [0, 2**15])
def test_steps_are_in_proportion_to_the_first_epochs_error(case: Case, wrong: int) -> None:
    trainer = ReferenceTrainer(case.graph, case.scheme, CLASSES, case.options)
    rates = []

    def step(x: object, label: int, options: TrainOptions, samples: int, random: object) -> int:
        rates.append(options.rate)
        return wrong if len(rates) <= SAMPLES else 2**14

    trainer.step = step  # type: ignore[method-assign,assignment]
    trainer.train(case.sample, LABELS, TrainOptions(epochs=2, rate=0.5))
    share = wrong / 2**15
    assert rates == [0, *[0.5 * share] * (SAMPLES - 1), *[0.25 * share] * SAMPLES]


def test_a_stopped_training_keeps_what_it_learnt_and_answers(case: Case, host: HostModel) -> None:
    from tinytrain_compiler.targets import host as ffi

    seen = []

    def stop(user: int, at: ctypes._Pointer) -> int:  # type: ignore[type-arg]
        seen.append(at[0].sample)
        return int(len(seen) == 5)

    def get(user: int, index: int, epoch: int, target: object, label: object) -> int:
        if target:
            data = np.ascontiguousarray(case.sample(index, epoch))
            ctypes.memmove(target, data.ctypes.data, data.size)
        label[0] = LABELS[index]  # type: ignore[index]
        return 0

    options = ffi._Options(3, 0.2, 1)
    wanted = ffi._Samples(SAMPLES, ffi._GET(get), None)
    with pytest.raises(TinyTrainError, match="status -7"):
        host._call("train", ctypes.byref(options), ctypes.byref(wanted), ffi._PROGRESS(stop), None)
    assert len(seen) == 5
    assert any(case.training_state(host))
    assert all(host.infer(x).label >= 0 for x in case.clean)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12, 49, 50, 97, 256])
def test_an_epoch_visits_every_sample_once(count: int) -> None:
    orders = [visiting_order(count, epoch, seed=7) for epoch in range(6)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert count < 10 or len({tuple(order) for order in orders}) > 1
