"""Training that selects by itself: it asks for no image twice that it can keep, and learns the same bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_selection import POOL, TRAINING, Case
from test_training import CLASSES
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.runtime_abi import FISHER_SAMPLES
from tinytrain_compiler.targets import host as ffi
from tinytrain_compiler.targets.emulation import emulation_banks, emulation_board
from tinytrain_compiler.targets.firmware import build_firmware
from tinytrain_compiler.targets.flash import SimulatedFlash
from tinytrain_compiler.targets.harness_personalisation import Personalisation, run_personalisation
from tinytrain_compiler.targets.harness_training import training_visits
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.selectors import RANDOM, SELECTORS
from tools import require_or_skip

COUNT, EPOCHS = 21, 3  # more samples than are measured
LABELS = [i % CLASSES for i in range(COUNT)]
MEASURED = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]  # i * 21 // 16
OPTIONS = replace(TRAINING, epochs=EPOCHS)
CLEAN = -1
SMALL = 896  # bytes of a pool that takes two Fisher passes a sample


def images(case: Case) -> Callable[[int, int], Int8]:
    """COUNT different ones, and as many copies of each as there are epochs."""

    def sample(index: int, epoch: int) -> Int8:
        flipped: Int8 = case.sample(index % 12, epoch)[:: 1 if index < 12 else -1]
        return flipped

    return sample


@pytest.fixture(scope="module", params=[("prototype", POOL), ("prototype", SMALL), ("linear", SMALL)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    head, pool = request.param
    case = Case(tmp_path_factory.mktemp("personalisation"), LearningOptions(HEADS[head], pool=pool))
    assert case.selection.groups == (2 if pool == SMALL else 1)
    return case


def trained(
    case: Case, host: HostModel, copies: int = 0, of: Callable[[int, int], Int8] | None = None
) -> tuple[bytes, list[tuple[int, int]]]:
    """The training state, and the images that were asked for, in order."""
    asked = []

    def sample(index: int, epoch: int) -> Int8:
        asked.append((index, epoch))
        return (of or images(case))(index, epoch)

    host.train(sample, LABELS, EPOCHS, OPTIONS.rate, OPTIONS.seed, copies)
    return state(case, host), asked


def state(case: Case, host: HostModel) -> bytes:
    """What layers, head and selection hold, and the prototypes, which end what is saved."""
    flash = SimulatedFlash(host.state_bytes)
    host.save(flash)
    prototypes = 2 * CLASSES * (case.graph.tensors[case.graph.features].bytes + 1)
    assert case.training_state(host).any()
    payload = flash.slot(0)[64:][: int.from_bytes(flash.slot(0)[20:24], "little")]
    return case.training_state(host).tobytes() + payload[-prototypes:]


# -- images ------------------------------------------------------------------------------------


def test_what_selection_computed_training_does_not_ask_for_again(case: Case, host: HostModel) -> None:
    """Without a cache: prototypes. With one: also what the Fisher passes after the first, and the first epoch, need."""
    passes, rounds = case.selection.groups, EPOCHS + 1 if case.options.head.recomputes else 1
    _, asked = trained(case, host)
    assert asked[:COUNT] == [(index, CLEAN) for index in range(COUNT)]
    assert asked[COUNT:][: passes * len(MEASURED)] == passes * [(index, 0) for index in MEASURED]
    assert len(asked) == rounds * COUNT + passes * len(MEASURED) + EPOCHS * COUNT
    for copies in (1, 2, EPOCHS):
        host.unlearn()
        _, asked = trained(case, host, copies)
        assert len(asked) == COUNT + copies * COUNT, "each once"
        assert len(set(asked)) == len(asked)
        assert asked[COUNT:][: len(MEASURED)] == [(index, 0) for index in MEASURED]


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_the_emulator_is_told_the_same_order(case: Case, host: HostModel, copies: int) -> None:
    _, asked = trained(case, host, copies)
    visits = training_visits(COUNT, OPTIONS, case.options.head, copies, case.selection.groups)
    assert asked == [(v.sample, v.epoch) for v in visits if not v.cached]


@pytest.mark.parametrize("copies", [0, 1, 2, EPOCHS])
def test_an_explicit_selection_leads_to_the_same_bytes(case: Case, host: HostModel, copies: int) -> None:
    """It keeps nothing for a training: that asks for all images again."""
    sharing, asked = trained(case, host, copies)
    host.select(images(case), LABELS, seed=OPTIONS.seed)
    explicit, again = trained(case, host, copies)
    assert explicit == sharing
    assert again[:COUNT] == [(index, CLEAN) for index in range(COUNT)]
    assert {(index, 0) for index in range(COUNT)} == set(again[COUNT:][:COUNT]) == {a for a in asked if a[1] == 0}


@pytest.mark.parametrize("selector", ["random", "l2", "layer-score", "fisher-resample"])
def test_other_selectors_share_as_far_as_they_look_at_samples(selector: str, tmp_path: Path) -> None:
    require_or_skip("cc")
    case = Case(tmp_path, LearningOptions(pool=POOL, selector=SELECTORS[selector]))
    passes = 0 if selector in ("random", "l2") else case.selection.groups
    with case.host() as host:
        for copies in (0, EPOCHS):
            host.unlearn()
            sharing, asked = trained(case, host, copies)
            measured = passes * len(MEASURED)
            assert len(asked) == (COUNT * (1 + EPOCHS) if copies else COUNT * (1 + 2 * EPOCHS) + measured)
            host.select(images(case), LABELS, seed=OPTIONS.seed)
            assert trained(case, host, copies)[0] == sharing


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("calls", [5, COUNT + 5], ids=["enrolling", "measuring"])
def test_a_selection_that_fails_leaves_a_session_as_new(case: Case, host: HostModel, calls: int, copies: int) -> None:
    """Whether the application has no image or its cache no room: nothing is trained, the next training is whole."""
    expected, _ = trained(case, host, copies)
    for broken in ("image", "cache") if copies else ("image",):
        host.unlearn()
        with pytest.raises(TinyTrainError, match="status -12"):
            train_with_a_failure(case, host, copies, calls, broken)
        assert not case.training_state(host).any()
        assert host.infer(case.clean[0]).features.any()
        assert trained(case, host, copies)[0] == expected


def train_with_a_failure(case: Case, host: HostModel, copies: int, calls: int, broken: str) -> None:
    """The application fails after so many images, or after so many features that were stored."""
    left = {"image": calls if broken == "image" else 1000, "cache": calls if broken == "cache" else 1000}

    def answer(what: str) -> int:
        left[what] -= 1
        return 0 if left[what] >= 0 else -12

    def get(user: int, index: int, epoch: int, target: ctypes.c_void_p, label: ctypes.Array[ctypes.c_int32]) -> int:
        label[0] = LABELS[index]  # type: ignore[call-overload]
        if not target:
            return 0
        flat = np.ascontiguousarray(images(case)(index, epoch))
        ctypes.memmove(target, flat.ctypes.data, flat.size)
        return answer("image")

    def store(user: int, slot: int, features: ctypes.c_void_p, size: int) -> int:
        return answer("cache")

    def load(user: int, slot: int, features: ctypes.c_void_p, size: int) -> int:
        raise AssertionError("nothing is loaded in front of the second Fisher pass")

    cache = ffi._Cache(ffi._SLOT(store), ffi._SLOT(load), None, copies)
    options = ffi._Options(EPOCHS, OPTIONS.rate, OPTIONS.seed, ctypes.pointer(cache) if copies else None)
    samples = ffi._Samples(COUNT, ffi._GET(get), None)
    host._call("train", ctypes.byref(options), ctypes.byref(samples), ffi._PROGRESS(), None)


# -- the emulated core -------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["stm32f746", pytest.param("mps2_an385", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("head", "pool"), [("prototype", SMALL), ("linear", POOL)])
def test_a_personalisation_is_counted_pass_by_pass(board: str, head: str, pool: int, tmp_path: Path) -> None:
    """Enrolling and training, which selects, with a feature cache and none: frozen layers run once a copy."""
    case = Case(tmp_path, LearningOptions(HEADS[head], pool=pool), board)
    for copies, ran in zip((0, 2), personalised(case, board, case.selection.groups, (0, 2), tmp_path), strict=True):
        check_counts(case, ran, copies)


def check_counts(case: Case, ran: Personalisation, copies: int) -> None:
    passes = case.selection.groups
    assert len(ran.enroll) == COUNT
    assert [p.visit.what for p in ran.select] == ["fisher"] * passes * FISHER_SAMPLES
    again = EPOCHS if case.options.head.recomputes else 0
    assert [p.visit.what for p in ran.train].count("prototype") == (1 + again) * COUNT
    assert [p.visit.what for p in ran.train].count("step") == EPOCHS * COUNT
    frozen = [p.frozen for p in (*ran.select, *ran.train) if p.frozen]
    everything = (1 + again + EPOCHS) * COUNT + passes * FISHER_SAMPLES
    assert len(frozen) == ((1 + copies) * COUNT if copies else everything)
    assert max(frozen) < 1.01 * min(frozen), "the same layers"
    steps = [p.instructions - p.frozen for p in ran.train if p.visit.what == "step"]
    assert 1000 < max(frozen) < min(ran.enroll) < max(frozen) + min(steps[1:])
    assert 1000 < ran.choice < ran.enroll[0]


def test_a_personalisation_chooses_as_compiled(tmp_path: Path) -> None:
    """Where the selector needs no samples, none is asked for."""
    case = Case(tmp_path, LearningOptions(pool=POOL, selector=RANDOM))
    (ran,) = personalised(case, "stm32f746", 0, (2,), tmp_path)
    assert ran.select == []
    assert 1000 < ran.choice < ran.enroll[0]


def personalised(
    case: Case, board: str, fisher_passes: int, copies: Sequence[int], directory: Path
) -> list[Personalisation]:
    """On the emulated core, a run for each of `copies`; what it learns, prototypes too, is what this machine learns."""
    require_or_skip("arm-none-eabi-gcc", "qemu-system-arm")
    machine = emulation_board(load_board(board))
    banks = emulation_banks(machine, case.lowered.plan.region_banks)
    firmware = build_firmware(case.directory, "net", machine, banks, "train", directory / "build")
    runs = []
    with case.host() as host:
        for kept in copies:
            runs.append(
                run_personalisation(
                    firmware, machine, images(case), LABELS, OPTIONS, case.options.head, fisher_passes, kept,
                    directory / str(kept),
                )
            )  # fmt: skip
            host.unlearn()
            assert runs[-1].training_state == trained(case, host, kept)[0]
    return runs
