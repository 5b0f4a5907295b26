"""The linear head: its loss against float64, C against the reference under a sanitizer, and what a session does."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_head import Model, Session, kinds, vectors, zeros
from test_training import CLASSES, LABELS, OPTIONS, Case
from tinytrain_compiler import Artifacts, compile_model
from tinytrain_compiler.errors import TinyTrainError
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.reference import PrototypeHead
from tinytrain_compiler.reference.heads import new_head
from tinytrain_compiler.reference.linear import CONSTANT, DELTA_MAX, HEAD_RATE_MULTIPLIER, LinearHead
from tinytrain_compiler.reference.steps import Running
from tinytrain_compiler.resources import RUNTIME
from tinytrain_compiler.runtime_abi import MAX_SHOTS
from tinytrain_compiler.targets.host import HostModel
from tinytrain_compiler.training.heads import HEADS, LINEAR
from tools import require_or_skip

ONE = 1 << 15
Floats = NDArray[np.float64]

# -- the loss against float64 --------------------------------------------------------------------


class FloatHead:
    """The same head in float64: the formulas of docs/reference/numerics.md, without a rounding."""

    def __init__(self, head: LinearHead) -> None:
        sums = head.sums.astype(np.float64)[head.enrolled]
        shots = np.array([head.shots[c] for c in head.enrolled], np.float64)
        means = sums / shots[:, None] - head.zero_point
        lengths = np.linalg.norm(means, axis=1)
        self.unit = lengths.mean()
        self.weights = np.hstack([means / lengths[:, None], np.zeros((len(means), 1))])
        self.weights += head.deltas[head.enrolled] / 2**head.delta_bits

    def probabilities(self, f: Floats) -> Floats:
        """f: the embedding less its zero point."""
        logits = 10 * self.weights @ np.append(f, CONSTANT) / self.unit
        e = np.exp(logits - logits.max())
        result: Floats = e / e.sum()
        return result

    def loss(self, f: Floats, label: int) -> float:
        return -float(np.log(self.probabilities(f)[label]))


def random_head(rng: np.random.Generator, features: int, zero: int, delta: int) -> LinearHead:
    """Classes 0, 1 and 3 of four enrolled, class 2 empty, and deltas up to a size."""
    head = LinearHead(4, features, zero)
    centres = rng.integers(-100, 101, (4, features))
    for label in (0, 1, 3, 3, 0, 1, 1):
        x = np.clip(centres[label] + rng.integers(-40, 41, features), -128, 127)
        head.enroll(x.astype(np.int8), label)
    head.deltas = rng.integers(-delta, delta + 1, head.deltas.shape)
    head.deltas[2] = 0
    return head


cases = pytest.mark.parametrize(("features", "zero", "delta"), [(7, -3, 0), (64, -128, 900), (160, 5, 4000)])


@cases
def test_gradient_of_the_embedding_is_the_float_losss(features: int, zero: int, delta: int) -> None:
    rng = np.random.default_rng(features)
    head = random_head(rng, features, zero, delta)
    for which in range(12):
        x = rng.integers(-128, 128, features, np.int8) // 2
        label = (0, 1, 3)[which % 3]
        exact, f = FloatHead(head), x.astype(np.float64) - zero
        step = 1e-4 * np.eye(features)
        at = head.enrolled.index(label)
        numeric = np.array([exact.loss(f + d, at) - exact.loss(f - d, at) for d in step]) / 2e-4
        gradient, error = head.learn(x, label, 1e-9, 1)
        found = gradient.real * 10 / exact.unit
        # Probabilities have 15 fraction bits and an exponential within 2^-13.
        assert np.abs(found - numeric).max() <= 2**-10 * 10 / exact.unit + 2**-13 * np.abs(numeric).max()
        assert abs(error / ONE - (1 - exact.probabilities(f)[at])) < 2**-11


@cases
def test_a_step_goes_down_the_float_losss_gradient_by_the_specified_length(
    features: int, zero: int, delta: int
) -> None:
    rng = np.random.default_rng(features + 1)
    head = random_head(rng, features, zero, delta)
    x, label = rng.integers(-128, 128, features, np.int8) // 2, 1
    exact, f = FloatHead(head), x.astype(np.float64) - zero
    a = exact.probabilities(f) - (np.array(head.enrolled) == label)
    by_hand = np.outer(a, np.append(f, CONSTANT)) * ONE  # 10 / unit of the loss's gradient, which no step depends on
    before = head.deltas.copy()
    head.learn(x, label, 0.06, 50)
    assert (head.deltas == before).all(), "the first sample only measures"
    measured = float(np.sqrt(head.running.mean))
    assert measured == pytest.approx(np.linalg.norm(by_hand), rel=0.02, abs=40 * np.linalg.norm(np.append(f, CONSTANT)))
    head.learn(x, label, 0.06, 50)
    moved = (head.deltas - before)[head.enrolled] / 2**head.delta_bits
    expected = -0.06 / np.sqrt(50) * HEAD_RATE_MULTIPLIER * np.sqrt(3) * by_hand / measured
    rate = 0.06 / np.sqrt(50) * HEAD_RATE_MULTIPLIER
    slack = 0.6 / 2**head.delta_bits + rate * 2 * 40 * np.abs(np.append(f, CONSTANT)).max() / measured
    assert np.abs(moved - expected).max() <= slack
    assert (head.deltas[2] == 0).all(), "a class without examples learns nothing"
    assert exact.loss(f, 1) > FloatHead(head).loss(f, 1)


# -- C under a sanitizer -------------------------------------------------------------------------


class Rate(ctypes.Structure):
    """tt_rate of tt_learn.h."""

    _fields_ = (("rate", ctypes.c_float), ("samples", ctypes.c_int32), ("saturated", ctypes.c_uint32))


class CHead:
    """tt_linear.c behind the reference's interface; 16 guard bytes in front of its state and behind it."""

    def __init__(self, library: ctypes.CDLL, classes: int, features: int, zero_point: int) -> None:
        self._library = library
        size = LINEAR.state_bytes(classes, features)
        self._memory = np.full(size + 32, 0xA5, np.uint8)
        self._memory[16:-16] = 0
        place = {"head_offset": 16, "head_bytes": size}
        self._model = Model(features=features, features_zero=zero_point, classes=classes, **place)
        self.sums, self.shots = np.zeros((classes, features), np.int16), np.zeros(classes, np.uint16)
        regions = (ctypes.c_void_p * 4)(self._memory.ctypes.data)
        places = (self.sums.ctypes.data, self.shots.ctypes.data)
        self._session = Session(ctypes.addressof(self._model), regions, classes, *places)
        first = ctypes.c_void_p.in_dll(library, "tt_linear_learning")  # a struct whose first member is the function
        arguments = (ctypes.c_void_p,) * 3 + (ctypes.c_int32,) + (ctypes.c_void_p,) * 3
        self._learn = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)(first.value)
        self.saturated = 0

    @property
    def deltas(self) -> NDArray[np.int16]:
        return self._memory[24:-16].view(np.int16).reshape(len(self.shots), -1)

    @property
    def running(self) -> tuple[float, int]:
        return float(self._memory[16:20].view(np.float32)[0]), int(self._memory[20:24].view(np.int32)[0])

    def copy(self, head: LinearHead) -> None:
        self.sums[:], self.shots[:], self.deltas[:] = head.sums, head.shots, head.deltas
        self._memory[16:20].view(np.float32)[0] = head.running.mean
        self._memory[20:24].view(np.int32)[0] = head.running.seen

    def classify(self, features: Int8) -> tuple[int, int]:
        label, score, x = ctypes.c_int32(77), ctypes.c_int32(77), np.ascontiguousarray(features)
        self._library.tt_linear_classify(
            ctypes.byref(self._session), ctypes.c_void_p(x.ctypes.data), ctypes.byref(label), ctypes.byref(score)
        )
        return label.value, score.value

    def learn(self, features: Int8, label: int, rate: float, samples: int) -> tuple[list[int], int, int]:
        x, gradient = np.ascontiguousarray(features), np.zeros(len(features) + 8, np.int16)
        gradient[len(features) :] = 77
        told, exponent, scratch = Rate(rate, samples, 0), ctypes.c_int32(), np.zeros(2 * len(self.shots), np.int64)
        error = self._learn(
            ctypes.addressof(self._session), ctypes.addressof(told), x.ctypes.data, label, gradient.ctypes.data,
            ctypes.addressof(exponent), scratch.ctypes.data,
        )  # fmt: skip
        self.saturated += told.saturated
        assert (gradient[len(features) :] == 77).all()
        assert (self._memory[:16] == 0xA5).all()
        assert (self._memory[-16:] == 0xA5).all()
        return gradient[: len(features)].tolist(), exponent.value, error


Heads = Callable[[int, int, int], tuple[LinearHead, CHead]]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    require_or_skip("gcc")
    library = tmp_path_factory.mktemp("head") / "head.so"
    flags = ["-std=c11", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-fsanitize=undefined"]
    sources = [
        str(RUNTIME / name) for name in ("tt_head.c", "tt_math.c", "tt_linear.c", "tt_linear_loss.c", "tt_learn.c")
    ]
    subprocess.run(["gcc", *flags, "-fno-sanitize-recover=all", *sources, "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    return lambda *sizes: (LinearHead(*sizes), CHead(loaded, *sizes))


def same_step(reference: LinearHead, c: CHead, x: Int8, label: int, rate: float, samples: int) -> None:
    gradient, error = reference.learn(x, label, rate, samples)
    assert c.learn(x, label, rate, samples) == (gradient.mantissa.tolist(), gradient.exponent, error)
    assert (c.deltas == reference.deltas).all()
    assert c.running == (float(reference.running.mean), reference.running.seen)
    assert c.saturated == reference.saturated


rates = st.sampled_from([1e-30, 1e-4, 0.06, 3.0, 1e30])


@given(kinds, kinds, st.sampled_from([1, 2, 7, 64, 160]), st.integers(1, 6), zeros, rates, st.integers(0, 2**16))
def test_c_head_learns_and_answers_like_the_reference(
    heads: Heads, enrolled: str, asked: str, features: int, classes: int, zero: int, rate: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reference, c = heads(classes, features, zero)
    x = vectors(features, asked, 1, rng, zero)[0]
    assert c.classify(x) == reference.classify(x) == (-1, 0)
    for example in vectors(features, enrolled, 8, rng, zero):
        reference.enroll(example, int(rng.integers(classes)))
    c.copy(reference)
    for x in vectors(features, asked, 6, rng, zero):
        assert c.classify(x) == reference.classify(x)
        kept, added = reference.deltas.copy(), int(rng.integers(classes))
        reference.deltas[added] = 0  # as if this class had been enrolled since
        c.copy(reference)
        assert c.classify(x) == reference.classify(x)
        reference.deltas = kept
        c.copy(reference)
        same_step(reference, c, x, int(rng.integers(classes)), rate, 5)
    label, score = reference.classify(x)
    assert reference.shots[label]
    assert 0 < score <= ONE


@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_embedding_and_the_largest_deltas_do_not_overflow(heads: Heads, value: int) -> None:
    zero = -1 - value
    reference, c = heads(2, 16384, zero)
    x = np.full(16384, value, np.int8)
    for label, sign in ((0, 1), (1, -1)):
        reference.sums[label], reference.shots[label] = value * MAX_SHOTS, MAX_SHOTS
        reference.deltas[label] = sign * DELTA_MAX
    for seen in (0, 2**31 - 2, 2**31 - 1):
        reference.running = Running(np.float32(1e9), seen)
        reference.running.seen = min(seen, 2**31 - 2)
        c.copy(reference)
        assert c.classify(x) == reference.classify(x)
        same_step(reference, c, x, int(reference.classify(x)[0] == 0), 1e4, 1)
    assert reference.saturated


def clusters(rng: np.random.Generator, classes: int, features: int, count: int) -> Int8:
    """int8 (classes, count, features): embeddings of classes that have much in common, as those of a backbone."""
    common = rng.integers(20, 90, features)
    centres = common + rng.normal(0, 14, (classes, features))
    found = centres[:, None] + rng.normal(0, 22, (classes, count, features))
    return np.clip(np.rint(found), -128, 127).astype(np.int8)


def trained_head(examples: Int8, classes: int, epochs: int) -> LinearHead:
    """Trained on the first of the classes, at a rate that falls as on the device."""
    count, samples = examples.shape[1], len(examples) * examples.shape[1]
    head = LinearHead(classes, examples.shape[2], 0)
    pairs = [(x, label) for label, of_class in enumerate(examples) for x in of_class]
    for x, label in pairs:
        head.enroll(x, label)
    for epoch in range(epochs):
        for i in range(samples):
            x, label = pairs[i * (count + 1) % samples]
            head.learn(x, label, 0.1 * (epochs - epoch) / epochs, samples)
    return head


def test_a_class_added_after_training_is_recognised_and_costs_the_others_little() -> None:
    """Four times in five, and of the others not one in ten is lost."""
    rng = np.random.default_rng(8)
    found = clusters(rng, 6, 64, 30)
    support, queries = found[:, :10], found[:, 10:]
    head = trained_head(support[:5], 6, 20)

    def right(label: int) -> float:
        return float(np.mean([head.classify(x)[0] == label for x in queries[label]]))

    before = np.mean([right(label) for label in range(5)])
    for x in support[5]:
        head.enroll(x, 5)
    assert head.trained == [0, 1, 2, 3, 4]
    assert right(5) >= 0.8
    assert np.mean([right(label) for label in range(5)]) >= before - 0.1


# -- a session -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["layers", "head alone"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("linear"), head=LINEAR, layers=request.param)


def test_enrolment_works_before_any_training(case: Case, host: HostModel) -> None:
    reference = case.reference()
    tensor = case.graph.tensors[case.graph.features]
    prototypes = PrototypeHead(CLASSES, tensor.bytes, tensor.quantization.zero_point)
    for x, label in zip(case.clean, LABELS, strict=True):
        host.enroll(x, label)
        reference.enroll(x, label)
        prototypes.enroll(reference.features(x), label)
    answers = [host.infer(x) for x in case.clean]
    assert [(a.label, a.score) for a in answers] == [reference.infer(x) for x in case.clean]
    assert [a.label for a in answers] == [prototypes.classify(a.features)[0] for a in answers]


def test_a_class_enrolled_after_training_starts_from_its_mean(case: Case, host: HostModel) -> None:
    known, new = [i for i in range(len(LABELS)) if LABELS[i] != 2], LABELS.index(2)
    labels, reference = [LABELS[i] for i in known], case.reference()

    def sample(index: int, epoch: int) -> Int8:
        return case.sample(known[index], epoch)

    host.train(sample, labels, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
    reference.train(sample, labels, OPTIONS)
    assert all(host.infer(x).label != 2 for x in case.clean), "a class without examples never wins"
    host.enroll(case.clean[new], 2)
    reference.enroll(case.clean[new], 2)
    answers = [host.infer(x) for x in case.clean]
    assert [(a.label, a.score) for a in answers] == [reference.infer(x) for x in case.clean]
    assert not reference.head.deltas[2].any()  # type: ignore[attr-defined]


def test_forget_drops_the_head_and_unlearn_the_layers_too(case: Case, host: HostModel) -> None:
    assert case.lowered.training is not None
    offset, reference = case.lowered.training.head_offset, case.reference()
    host.train(case.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
    reference.train(case.sample, LABELS, OPTIONS)
    trained = case.training_state(host)
    assert any(trained[offset:])
    host.forget()
    assert case.training_state(host) == trained[:offset] + bytes(len(trained) - offset)
    assert host.infer(case.clean[0]).score == host.infer(case.clean[0]).output.max(), "nothing is enrolled"
    before = reference.head
    assert isinstance(before, LinearHead)
    reference.head = new_head(LINEAR, CLASSES, before.features, before.zero_point)
    for x, label in zip(case.clean, LABELS, strict=True):
        host.enroll(x, label)
        reference.enroll(x, label)
    assert [(a.label, a.score) for a in map(host.infer, case.clean)] == [reference.infer(x) for x in case.clean]
    host.unlearn()
    assert not any(case.training_state(host))


def test_a_second_training_starts_from_the_means_again(case: Case, host: HostModel) -> None:
    host.train(case.sample, LABELS, 3, 0.2)
    first = case.training_state(host)
    host.train(case.sample, LABELS[::-1], 3, 0.2)
    assert case.training_state(host) != first
    if case.scheme.layers:
        host.unlearn()  # layers keep what an earlier training taught them
    host.train(case.sample, LABELS, 3, 0.2)
    assert case.training_state(host) == first


def test_a_head_alone_learns_and_leaves_the_embedding_as_it_was(tmp_path: Path) -> None:
    case = Case(tmp_path, head=LINEAR, layers=False)
    reference = case.reference()
    with case.host() as host:
        before = [host.infer(x).features for x in case.clean]
        trained = host.train(case.sample, LABELS, OPTIONS.epochs, OPTIONS.rate, OPTIONS.seed)
        answers = [host.infer(x) for x in case.clean]
        errors = reference.train(case.sample, LABELS, OPTIONS)
        with pytest.raises(TinyTrainError, match="status -4"):
            host.train(case.sample, [*LABELS[:-1], CLASSES], 1, 0.2)
        assert host.infer(case.clean[0]).label >= 0, "usable after an error"
    assert [a.features.tolist() for a in answers] == [f.tolist() for f in before]
    assert [(a.label, a.score) for a in answers] == [reference.infer(x) for x in case.clean]
    assert trained.errors == pytest.approx(errors, abs=2**-14)
    assert trained.errors[-1] < trained.errors[0]


def test_a_head_that_does_not_learn_and_no_policy_cannot_train(tmp_path: Path) -> None:
    case = Case(tmp_path, head=HEADS["prototype"], layers=False)
    assert case.lowered.training is None


def test_its_state_is_counted(small_model: Path, compiled_small: Artifacts) -> None:
    linear = compile_model(small_model, "stm32f746", classes=4, head="linear")
    size = LINEAR.state_bytes(4, linear.report["model"]["features"]["bytes"])
    training = linear.report["training"]
    assert (linear.report["policy"], linear.report["head"], training["head_bytes"]) == ("none", "linear", size)
    assert training["training_state_bytes"] == size
    assert (compiled_small.report["training"], compiled_small.report["head"]) == (None, "prototype")
    arenas = [a.report["memory"]["sram"]["arena_bytes"] for a in (compiled_small, linear)]
    assert size <= arenas[1] - arenas[0] <= size + 64
    assert b"--head linear" in linear.files["manifest.json"]
