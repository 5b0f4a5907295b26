"""Selection on the device: NumPy reference = host C, in every byte, and every choice fits."""

from __future__ import annotations

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
from tinytrain_compiler.compile import emit, lower, write_files
from tinytrain_compiler.errors import DoesNotFitError
from tinytrain_compiler.graph import Graph
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.host import WARNINGS, HostModel
from tinytrain_compiler.targets.qemu import emulation_banks, emulation_board
from tinytrain_compiler.targets.qemu_personalisation import personalise_on_qemu
from tinytrain_compiler.targets.qemu_training import pack_training, train_on_qemu
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.linear import LinearHead
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.pool import LEARNT
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tinytrain_compiler.training.selection import (
    LIST_BYTES,
    MULTIPLE,
    SELECTORS,
    Budget,
    Candidate,
    choose,
    l2_scores,
    selected_norm,
)
from tinytrain_compiler.training.trainer import FISHER_SAMPLES, ReferenceTrainer, SelectOptions, weight_norm
from tools import require_or_skip

POOL = 4096


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

    def __init__(self, directory: Path, options: LearningOptions, board: str = "stm32f746") -> None:
        self.graph, self.scheme = network()
        self.options, self.kept = options, options.formats.rounding
        self.lowered = lower(self.graph, load_board(board), "net", CLASSES, self.scheme, options=options)
        sources = emit(self.lowered, ModelInfo("net", "0" * 64, "", CLASSES, None, options.head.name))
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

    def budget(self, pool: int = 0) -> Budget:
        whole = self.selection.budget(self.training.learnt_bytes)
        return Budget(pool or whole.pool, whole.saved)

    def learnt(self, host: HostModel) -> np.ndarray:
        place = self.lowered.plan.scratch[LEARNT]
        return host.region(place.region)[place.offset : place.offset + self.training.learnt_bytes]

    def selected(self, host: HostModel) -> dict[str, list[int]]:
        """Channels by candidate, read out of the pool."""
        learnt = self.learnt(host)
        found = {}
        for layer in self.training.layers:
            if layer.selected_offset is not None:
                channels, _, _, chosen, _ = learnt[layer.selected_offset :][:20].view(np.uint32)
                found[layer.node.name] = learnt[channels:][: 2 * chosen].view(np.uint16).tolist()
        return found


LEARNING = {
    "integers": LearningOptions(pool=POOL),
    "floats": LearningOptions(formats=formats("float32", "nearest"), pool=POOL),
    "linear, stochastic": LearningOptions(HEADS["linear"], formats("int16", "stochastic"), POOL),
    "linear, floats, stochastic": LearningOptions(HEADS["linear"], formats("float32", "stochastic"), POOL),
}


@pytest.fixture(scope="module", params=LEARNING.values(), ids=LEARNING.keys())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("selection"), request.param)


@pytest.mark.parametrize("selector", range(4), ids=SELECTORS[:4])
@pytest.mark.parametrize("pool", [0, 700])
def test_the_device_chooses_what_the_reference_chooses(case: Case, selector: int, pool: int) -> None:
    reference = ReferenceTrainer(case.graph, case.scheme, CLASSES, case.options)
    reference.select(case.sample, LABELS, SelectOptions(SELECTORS[selector], 5, 3), case.budget(pool))
    with case.host() as host:
        host.select(case.sample, LABELS, selector, 5, 3, pool)
        assert case.selected(host) == {
            name: list(reference.scheme.layers[name].channels) for name in case.scheme.candidates
        }
        host.train(case.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
        learnt = case.learnt(host)
    reference.train(case.sample, LABELS, OPTIONS)
    assert any(reference.weights), "some channels learn"
    for layer in case.training.layers:
        biases = learnt[layer.bias_offset :][: 4 * len(layer.node.constants["bias"])].view(np.int32)
        assert biases.tolist() == reference.biases[layer.node.name].deltas.tolist()
        if layer.node.name in reference.weights:
            assert layer.selected_offset is not None
            expected = reference.weights[layer.node.name].deltas.reshape(-1)
            start = int(learnt[layer.selected_offset + 4 :][:4].view(np.uint32)[0])
            stored = learnt[start:][: case.kept.delta_bytes * len(expected)]
            assert stored.view({1: np.int8, 2: np.int16}[case.kept.delta_bytes]).tolist() == expected.tolist()
            assert np.abs(expected).max() > (64 >> 8 - case.kept.fraction_bits), "the layer must have moved"
    if isinstance(reference.head, LinearHead):
        head = learnt[case.training.head_offset :][: case.training.head_bytes]
        assert head[8:].view(np.int16).tolist() == reference.head.deltas.reshape(-1).tolist()
        assert case.training.head_offset + case.training.head_bytes <= case.selection.pool_offset


def test_training_selects_where_nothing_was_selected(case: Case) -> None:
    with case.host() as host:
        host.select(case.sample, LABELS, 0, 16)
        host.train(case.sample, LABELS, 2, 0.2)
        explicit = case.learnt(host)
        host.unlearn()
        host.train(case.sample, LABELS, 2, 0.2)
        assert (case.learnt(host) == explicit).all()


def test_cached_features_change_nothing_but_the_number_of_pictures(case: Case) -> None:
    """With as many copies as epochs every picture is the same as without a cache."""
    with case.host() as host:
        host.train(case.sample, LABELS, OPTIONS.epochs, 0.2)
        fresh = case.learnt(host)
        host.unlearn()
        host.train(case.sample, LABELS, OPTIONS.epochs, 0.2, copies=OPTIONS.epochs)
        assert (case.learnt(host) == fresh).all()
        host.unlearn()
        asked: set[tuple[int, int]] = set()

        def sample(index: int, epoch: int) -> Int8:
            asked.add((index, epoch))
            return case.sample(index, epoch)

        host.select(case.sample, LABELS)
        host.train(sample, LABELS, OPTIONS.epochs, 0.2, copies=2)
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
    whole = case.budget()
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


@pytest.mark.parametrize("board", ["stm32f746", "nrf52840dk", "mps2_an385", "rp2040"])
def test_emulated_cores_choose_and_learn_the_same_bytes(board: str, tmp_path: Path) -> None:
    """Selection, training, saving and loading: the firmware does all four."""
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = Case(tmp_path, LearningOptions(pool=POOL), board)
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    options = replace(OPTIONS, epochs=2)
    data = pack_training(case.sample, LABELS, options, fisher_passes=case.selection.groups)
    ran = train_on_qemu(firmware, machine, data, 2 * len(LABELS), tmp_path / "run")
    with case.host() as host:
        host.train(case.sample, LABELS, options.epochs, options.rate, options.seed)
        learnt = case.learnt(host).tobytes()
        assert any(case.selected(host).values())
    assert ran.learnt[: len(learnt)] == learnt
    assert len(ran.fisher) == case.selection.groups * min(FISHER_SAMPLES, len(LABELS))
    assert ran.stack_bytes < 4096


@pytest.mark.parametrize("board", ["stm32f746", "mps2_an385"])
@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_a_personalisation_is_counted_pass_by_pass(board: str, head: str, tmp_path: Path) -> None:
    """Enrolling, selecting and training with a feature cache: the host's bytes, and frozen layers run once a copy."""
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    case = Case(tmp_path, LearningOptions(HEADS[head], pool=POOL), board)
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", tmp_path / "build")
    options = replace(OPTIONS, epochs=3)
    ran = personalise_on_qemu(
        firmware, machine, case.sample, LABELS, options, HEADS[head], case.selection.groups, 2, tmp_path / "run"
    )
    with case.host() as host:
        host.train(case.sample, LABELS, options.epochs, options.rate, options.seed, copies=2)
        learnt = case.learnt(host).tobytes()
    assert ran.learnt[: len(learnt)] == learnt
    count = len(LABELS)
    assert len(ran.enroll) == count
    assert [p.visit.what for p in ran.select].count("fisher") == case.selection.groups * min(FISHER_SAMPLES, count)
    recomputed = 4 if HEADS[head].recomputes else 1
    assert [p.visit.what for p in ran.train].count("prototype") == recomputed * count
    fresh, kept = ([p.instructions for p in ran.train if p.visit[::3] == ("step", c)] for c in (False, True))
    assert (len(fresh), len(kept)) == (2 * count, count)
    assert max(kept) < min(fresh[1:]), "a frozen prefix is left out"
    assert max(ran.enroll) < min(fresh[1:]), "an enrolment is a forward pass"
    assert 1000 < ran.choice < ran.enroll[0]
