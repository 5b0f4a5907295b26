"""Selection on the device: NumPy reference = host C, in every byte, and every choice fits."""

from __future__ import annotations

import ctypes
import itertools
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, layout_of, model_sources
from hypothesis import given
from hypothesis import strategies as st
from test_training import CLASSES, LABELS, ONE, OPTIONS, THREE, TWO, samples
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.errors import DoesNotFitError, TinyTrainError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.lowering import emit, lower
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.output_folder import write_files
from tinytrain_compiler.reference.linear import LinearHead
from tinytrain_compiler.reference.selection import choose, l2_scores, selected_norm
from tinytrain_compiler.reference.trainer import ReferenceTrainer
from tinytrain_compiler.runtime_abi import FISHER_SAMPLES
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.harness_training import pack_training, run_training
from tinytrain_compiler.targets.host import WARNINGS, HostModel, _SelectOptions
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.norms import weight_norm
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.pool import TRAINING_STATE
from tinytrain_compiler.training.scheme import MULTIPLE, Scheme, TrainedLayer
from tinytrain_compiler.training.selection import LIST_BYTES, Budget, Candidate
from tinytrain_compiler.training.selectors import FISHER, FISHER_RESAMPLE, SELECTORS, Selector
from tinytrain_compiler.training.visits import SelectOptions
from tools import require_or_skip

POOL = 4096


TRAINING = replace(OPTIONS, epochs=4)  # 48 steps


def network() -> tuple[Graph, Scheme]:
    """Three candidates: one whose input nobody in front of it learns from, one in a residual, one 3x3."""
    b = GraphBuilder((9, 11, 3), seed=1)
    x = b.conv2d(b.input, 8, THREE, stride=TWO, pad_before=(0, 0), pad_after=ONE, zero=-128, name="stem")
    y = b.conv2d(x, 18, zero=-128, limits=(-128, 100), name="expand")
    y = b.depthwise(y, THREE, pad_before=ONE, pad_after=ONE, zero=-128, name="depthwise")
    x = b.add(x, b.conv2d(y, 8, name="project"))
    x = b.conv2d(x, 13, THREE, pad_before=ONE, pad_after=ONE, zero=-128, name="last")
    features = b.reshape(b.avg_pool(x, name="global"))
    graph = b.build(b.fully_connected(features, 5, name="classifier"), features)
    layers = {
        "expand": TrainedLayer(limit=4),
        "depthwise": TrainedLayer(),
        "project": TrainedLayer(limit=12),
        "last": TrainedLayer(limit=8),
    }
    return graph, Scheme(layers)


class Case:
    """The network as C with a pool, and its inputs."""

    def __init__(
        self, directory: Path, options: LearningOptions, board: str = "stm32f746",
        learnt: tuple[Graph, Scheme] | None = None,
    ) -> None:  # fmt: skip
        """learnt: another network and its candidates."""
        self.graph, self.scheme = learnt or network()
        self.options, self.kept = options, options.formats.rounding
        self.lowered = lower(self.graph, load_board(board), "net", CLASSES, self.scheme, options=options)
        sources = emit(self.lowered, ModelInfo("net", (), (), CLASSES, None, options.head.name))
        self.directory = directory / "model"
        write_files(self.directory, {path: text.encode() for path, text in sources.items()})
        self.clean, self.noisy = samples(self.graph)
        assert self.lowered.training is not None
        assert self.lowered.training.selection is not None
        self.training, self.selection = self.lowered.training, self.lowered.training.selection

    def sample(self, index: int, epoch: int) -> Int8:
        return self.clean[index] if epoch < 0 else self.noisy[epoch, index]

    def host(self) -> HostModel:
        return HostModel(self.directory, layout_of(self.graph, self.lowered, "net"))

    def budget(self, selector: Selector = FISHER, pool: int = 0) -> Budget:
        whole = self.selection.budget(selector, self.options.macs)
        return replace(whole, pool=pool or whole.pool)

    def training_state(self, host: HostModel) -> np.ndarray:
        place = self.lowered.plan.scratch[TRAINING_STATE]
        return host.region(place.region)[place.offset : place.offset + self.training.training_state_bytes]

    def selected(self, host: HostModel) -> dict[str, list[int]]:
        """Channels by candidate, read out of the pool."""
        state = self.training_state(host)
        found = {}
        for layer in self.training.layers:
            if layer.selected_offset is not None:
                channels, _, _, chosen, *_ = state[layer.selected_offset :][:24].view(np.uint32)
                found[layer.node.name] = state[channels:][: 2 * chosen].view(np.uint16).tolist()
        return found

    def selected_by(self, reference: ReferenceTrainer) -> dict[str, list[int]]:
        return {name: list(reference.scheme.layers[name].channels) for name in self.scheme.candidates}

    def check(self, host: HostModel, reference: ReferenceTrainer) -> None:
        """After a training: every byte of the training state is the reference's."""
        state = self.training_state(host)
        assert self.selected(host) == self.selected_by(reference)
        assert any(reference.weights), "some channels learn"
        for layer in self.training.layers:
            biases = state[layer.bias_offset :][: 4 * len(layer.node.constants["bias"])].view(np.int32)
            assert biases.tolist() == reference.biases[layer.node.name].deltas.tolist()
            if layer.node.name in reference.weights:
                assert layer.selected_offset is not None
                tensor = reference.weights[layer.node.name]
                expected = tensor.deltas.reshape(-1)
                start = int(state[layer.selected_offset + 4 :][:4].view(np.uint32)[0])
                stored = state[start:][: self.kept.delta_bytes * len(expected)]
                assert stored.view({1: np.int8, 2: np.int16}[self.kept.delta_bytes]).tolist() == expected.tolist()
                assert np.abs(expected).max() > (64 >> 8 - self.kept.fraction_bits), "the layer must have moved"
                assert state[layer.selected_offset + 16 :][:4].view(np.float32)[0] == tensor.norm
                assert state[layer.running_offset :][:4].view(np.float32)[0] == tensor.running.mean
        if isinstance(reference.head, LinearHead):
            head = state[self.training.head_offset :][: self.training.head_bytes]
            assert head[8:].view(np.int16).tolist() == reference.head.deltas.reshape(-1).tolist()
            assert self.training.head_offset + self.training.head_bytes <= self.selection.pool_offset


LEARNING = {
    "integers": LearningOptions(pool=POOL),
    "floats": LearningOptions(formats=formats("float32", "nearest"), pool=POOL),
    "linear, stochastic": LearningOptions(HEADS["linear"], formats("int16", "stochastic"), POOL),
    "linear, floats, stochastic": LearningOptions(HEADS["linear"], formats("float32", "stochastic"), POOL),
}


@pytest.fixture(scope="module", params=LEARNING.values(), ids=LEARNING.keys())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("selection"), request.param)


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@pytest.mark.parametrize("pool", [0, 700])
def test_the_device_chooses_what_the_reference_chooses(
    case: Case, host: HostModel, selector: Selector, pool: int
) -> None:
    reference = ReferenceTrainer(case.graph, case.scheme, CLASSES, case.options)
    reference.select(case.sample, LABELS, SelectOptions(selector, 5, 3), case.budget(selector, pool))
    host.select(case.sample, LABELS, selector, 5, 3, pool)
    assert case.selected(host) == case.selected_by(reference)
    host.train(case.sample, LABELS, TRAINING.epochs, TRAINING.rate, TRAINING.seed)
    reference.train(case.sample, LABELS, TRAINING)
    case.check(host, reference)


def test_training_selects_as_compiled_where_nothing_was_selected(case: Case, host: HostModel) -> None:
    host.select(case.sample, LABELS, case.options.selector, 16)
    host.train(case.sample, LABELS, 2, 0.2)
    explicit = case.training_state(host)
    host.select(case.sample, LABELS)
    host.train(case.sample, LABELS, 2, 0.2)
    assert (case.training_state(host) == explicit).all(), "options of 0"
    host.unlearn()
    host.train(case.sample, LABELS, 2, 0.2)
    assert (case.training_state(host) == explicit).all(), "no selection"


def test_a_selector_that_does_not_exist_is_refused(case: Case, host: HostModel) -> None:
    options = _SelectOptions(1 + len(SELECTORS), 0, 0, 0, 0)
    with pytest.raises(TinyTrainError, match="status -1"):
        host._call("select", ctypes.byref(options), ctypes.byref(host._samples(case.sample, LABELS)))


def test_cached_features_change_nothing_but_the_number_of_images(case: Case, host: HostModel) -> None:
    """With as many copies as epochs every image is the same as without a cache."""
    host.train(case.sample, LABELS, TRAINING.epochs, 0.2)
    fresh = case.training_state(host)
    host.unlearn()
    host.train(case.sample, LABELS, TRAINING.epochs, 0.2, copies=TRAINING.epochs)
    assert (case.training_state(host) == fresh).all()
    asked: set[tuple[int, int]] = set()

    def sample(index: int, epoch: int) -> Int8:
        asked.add((index, epoch))
        return case.sample(index, epoch)

    host.select(case.sample, LABELS)
    host.train(sample, LABELS, TRAINING.epochs, 0.2, copies=2)
    assert {epoch for _, epoch in asked} == {-1, 0, 1}


def channel_costs(c: Candidate) -> tuple[int, int, int]:
    """Of one channel: bytes of the pool, bytes of saved inputs, MACs."""
    return LIST_BYTES + c.delta_bytes, c.saved_bytes, c.macs


@given(st.data())
def test_any_selection_fits(case: Case, data: st.DataObject) -> None:
    """Random scores and budgets: what is handed out never exceeds what there is."""
    candidates = case.selection.candidates
    count = sum(c.channels for c in candidates)
    scores = np.array(data.draw(st.lists(st.floats(0, 2.0**100, width=32), min_size=count, max_size=count)), np.float32)
    ranking = [np.float32(v) for v in data.draw(st.permutations(range(len(candidates))))]
    whole = case.budget(data.draw(st.sampled_from([*SELECTORS.values()])))
    budget = Budget(*(data.draw(st.integers(0, most)) for most in (whole.pool, whole.saved, 2**20)))
    chosen = choose(candidates, scores, ranking, budget)
    used = [0, 0, 0]
    for c in candidates:
        channels = chosen[c.node.name]
        assert len(channels) <= c.limit
        assert len(channels) % MULTIPLE == 0
        assert list(channels) == sorted(set(channels))
        lowest = min((scores[c.first + i] for i in channels), default=np.float32(0))
        left_out = [scores[c.first + i] for i in range(c.channels) if i not in channels]
        assert not channels or all(score <= lowest for score in left_out)
        for i, cost in enumerate(channel_costs(c)):
            used[i] += len(channels) * cost
    assert all(u <= b for u, b in zip(used, (budget.pool, budget.saved, budget.macs), strict=True))


def test_kept_scores_lie_behind_all_that_can_be_handed_out(case: Case) -> None:
    kept, lent = case.budget(FISHER_RESAMPLE).pool, case.budget().pool
    assert lent - kept == 4 * sum(c.channels for c in case.selection.candidates)
    assert case.selection.pool_offset + kept == case.selection.table_offset


@pytest.mark.parametrize("pool", [2048, POOL])
def test_every_choice_fits(pool: int, tmp_path: Path) -> None:
    """All orders of the candidates and all budgets; in the smaller pool not all channels fit at once."""
    require_or_skip("cc")
    case = Case(tmp_path, LearningOptions(pool=pool))
    program, here = tmp_path / "choices", Path(__file__).parent / "c"
    includes = [f"-I{path}" for path in (case.directory, case.directory / "runtime", here)]
    sources = [here / "choices.c", *model_sources(case.directory, "net")]
    command = ["cc", "-std=c11", "-O2", *WARNINGS, *includes, *map(str, sources), "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "ok"), ran.stdout + ran.stderr
    candidates, whole = case.selection.candidates, case.budget()
    counts = list(itertools.product(*(range(0, c.limit + 1, MULTIPLE) for c in candidates)))
    budgets = [
        {min(most, sum(n * costs[b] for n, costs in zip(chosen, map(channel_costs, candidates), strict=True)))
         for chosen in counts}
        for b, most in enumerate((whole.pool, whole.saved, whole.macs))
    ]  # fmt: skip
    tried = math.factorial(len(candidates)) * math.prod(map(len, budgets))
    different = int(ran.stdout.split()[2])
    assert ran.stdout.startswith(f"{tried} choices, ")
    assert different == len(counts) if pool == POOL else 1 < different < len(counts)


def test_a_pool_that_is_too_small_says_how_large_it_must_be() -> None:
    graph, scheme = network()
    with pytest.raises(DoesNotFitError, match=r"training pool of 256 bytes is too small.*--pool 1"):
        lower(graph, load_board("stm32f746"), "net", CLASSES, scheme, options=LearningOptions(pool=256))


def test_the_norm_of_what_is_selected_is_that_of_the_real_weights(case: Case) -> None:
    for candidate in case.selection.candidates:
        channels = tuple(range(1, candidate.channels, 2))
        assert selected_norm(candidate.node, channels) == pytest.approx(weight_norm(candidate.node, channels), rel=1e-3)
        norms = np.array([weight_norm(candidate.node, (c,)) for c in range(candidate.channels)])
        assert np.corrcoef(np.sqrt(l2_scores(candidate.node)), norms)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("board", "selector"),
    [
        ("stm32f746", "fisher"),
        ("nrf52840dk", "random"),
        ("mps2_an385", "layer-score"),
        ("rp2040", "fisher"),
        ("stm32f746", "fisher-resample"),
        ("rp2040", "fisher-resample"),
    ],
)
def test_emulated_cores_choose_and_learn_the_same_bytes(board: str, selector: str, tmp_path: Path) -> None:
    """Selection, training, saving and loading: the firmware does all four."""
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = Case(tmp_path, LearningOptions(pool=POOL, selector=SELECTORS[selector]), board)
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    options = replace(TRAINING, epochs=3)
    data = pack_training(case.sample, LABELS, options, fisher_passes=case.training.fisher_passes)
    ran = run_training(firmware, machine, data, 3 * len(LABELS), tmp_path / "run")
    with case.host() as host:
        host.train(case.sample, LABELS, options.epochs, options.rate, options.seed)
        state = case.training_state(host).tobytes()
        assert any(case.selected(host).values())
    assert ran.training_state[: len(state)] == state
    passes = 0 if selector == "random" else case.selection.groups
    assert len(ran.fisher) == passes * min(FISHER_SAMPLES, len(LABELS))
    assert ran.stack_bytes < 4096
