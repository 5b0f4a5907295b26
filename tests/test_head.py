"""The prototype head: C and reference give the same label and score, and the score is the cosine."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.reference import PrototypeHead
from tinytrain_compiler.resources import RUNTIME
from tinytrain_compiler.runtime_abi import MAX_SHOTS
from tools import require_or_skip

FULL, LABEL_OUT_OF_RANGE = -5, -4
ONE = 1 << 15


class Model(ctypes.Structure):
    """tt_model of tinytrain.h; the heads read a few of its fields."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("region_count", ctypes.c_uint32),
        ("region_bytes", ctypes.c_uint32 * 4),
        ("places", ctypes.c_uint32 * 8),  # region, offset and bytes of input and output; region and offset of features
        ("features", ctypes.c_uint32),
        ("features_zero", ctypes.c_int32),
        ("classes", ctypes.c_uint32),
        ("run", ctypes.c_void_p),
        ("classify", ctypes.c_void_p),
        ("state", ctypes.c_uint32 * 3),  # region, offset and bytes of the training state
        ("head_offset", ctypes.c_uint32),
        ("head_bytes", ctypes.c_uint32),
        ("check", ctypes.c_void_p),
        ("learning", ctypes.c_void_p),
    )


class Session(ctypes.Structure):
    """tt_session of tinytrain.h."""

    _fields_ = (
        ("model", ctypes.c_void_p),
        ("regions", ctypes.c_void_p * 4),
        ("classes", ctypes.c_uint32),
        ("sums", ctypes.c_void_p),
        ("shots", ctypes.c_void_p),
        ("next", ctypes.c_void_p * 2),
    )


class CHead:
    """tt_prototype.c behind the reference's interface."""

    def __init__(self, library: ctypes.CDLL, classes: int, features: int, zero_point: int) -> None:
        self._library = library
        self._model = Model(features=features, features_zero=zero_point, classes=classes)
        self.sums = np.zeros((classes, features), np.int16)
        self.shots = np.zeros(classes, np.uint16)

    def enroll(self, features: Int8, label: int) -> int:
        return int(self._library.tt_head_enroll(*self._state(features), ctypes.c_int32(label)))

    def classify(self, features: Int8) -> tuple[int, int]:
        label, score = ctypes.c_int32(77), ctypes.c_int32(77)
        self._library.tt_prototype_classify(*self._state(features), ctypes.byref(label), ctypes.byref(score))
        return label.value, score.value

    def _state(self, features: Int8) -> list[object]:
        self._held = np.ascontiguousarray(features)
        places = (self.sums.ctypes.data, self.shots.ctypes.data)
        self._session = Session(ctypes.addressof(self._model), (ctypes.c_void_p * 4)(), len(self.shots), *places)
        return [ctypes.byref(self._session), ctypes.c_void_p(self._held.ctypes.data)]


Heads = Callable[[int, int, int], tuple[PrototypeHead, CHead]]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Heads:
    """heads(classes, features, zero_point): the same head twice."""
    require_or_skip("gcc")
    library = tmp_path_factory.mktemp("head") / "head.so"
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    sources = [str(RUNTIME / name) for name in ("tt_head.c", "tt_math.c", "tt_prototype.c")]
    subprocess.run(["gcc", *flags, *sources, "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    return lambda *sizes: (PrototypeHead(*sizes), CHead(loaded, *sizes))


def vectors(features: int, kind: str, count: int, rng: np.random.Generator, zero: int) -> Int8:
    """Embeddings (count, features) of a kind that heads find difficult."""
    if kind == "random":
        return rng.integers(-128, 128, (count, features), np.int8)
    if kind == "extreme":
        return rng.choice(np.array([-128, 127], np.int8), (count, features))
    if kind == "zero":
        return np.full((count, features), zero, np.int8)
    if kind == "sparse":
        steps = (rng.random((count, features)) < 0.05) * rng.integers(-3, 4, (count, features))
        return np.clip(zero + steps, -128, 127).astype(np.int8)
    return np.tile(rng.integers(-128, 128, features, np.int8), (count, 1))  # "same": ties


kinds = st.sampled_from(["random", "extreme", "zero", "sparse", "same"])
zeros = st.sampled_from([-128, -5, 0, 64, 127])


@given(kinds, kinds, st.sampled_from([1, 2, 7, 64, 160]), st.integers(1, 6), zeros, st.integers(0, 2**16))
def test_c_head_answers_like_the_reference(
    heads: Heads, enrolled: str, asked: str, features: int, classes: int, zero: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reference, c = heads(classes, features, zero)
    for x in vectors(features, enrolled, 8, rng, zero):
        label = int(rng.integers(classes))
        reference.enroll(x, label)
        assert c.enroll(x, label) == 0
    assert (c.sums == reference.sums).all()
    assert c.shots.tolist() == reference.shots
    for x in vectors(features, asked, 4, rng, zero):
        assert c.classify(x) == reference.classify(x)


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """In 80-bit floats: rounding noise must not hide the head's."""
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
    return float(a @ b / lengths) if lengths else 0.0


@given(
    st.sampled_from(["random", "extreme", "sparse"]), st.integers(1, 200), st.integers(1, 9), zeros, st.integers(0, 999)
)
def test_score_is_the_cosine_within_2_to_the_minus_13(
    kind: str, features: int, shots: int, zero: int, seed: int
) -> None:
    """A prototype's length has 7 fraction bits: one of less than 2^6 steps may add its own error to that."""
    rng = np.random.default_rng(seed)
    head = PrototypeHead(1, features, zero)
    examples = vectors(features, kind, shots, rng, zero)
    for x in examples:
        head.enroll(x, 0)
    p = examples.astype(np.float64).sum(0) - shots * zero
    error = 2**-13 + 2**-7 / max(float(np.sqrt(p @ p)), 1)
    for x in (*vectors(features, kind, 3, rng, zero), examples[0]):
        label, score = head.classify(x)
        assert label == 0
        assert abs(score / ONE - cosine(p, x.astype(np.float64) - zero)) < error


@pytest.mark.parametrize("value", [-128, 127])
def test_largest_embedding_and_256_examples_do_not_overflow(heads: Heads, value: int) -> None:
    """16384 features, the most a model may have, all as far from the zero point as int8 allows."""
    zero = -1 - value
    reference, c = heads(2, 16384, zero)
    x = np.full(16384, value, np.int8)
    for _ in range(MAX_SHOTS):
        assert c.enroll(x, 1) == 0
    reference.sums[1], reference.shots[1] = value * MAX_SHOTS, MAX_SHOTS
    assert (c.sums == reference.sums).all()
    for asked in (x, np.full(16384, zero - 1 if zero > 0 else zero + 1, np.int8)):
        assert c.classify(asked) == reference.classify(asked)
    assert abs(c.classify(x)[1] - ONE) <= 4
    before = c.sums.copy()
    assert c.enroll(x, 1) == FULL
    assert (c.sums == before).all()
    assert c.shots.tolist() == [0, MAX_SHOTS]
    with pytest.raises(OverflowError, match="class 1 already has 256 examples"):
        reference.enroll(x, 1)


def test_nobody_enrolled_zero_vectors_and_ties(heads: Heads) -> None:
    for head in heads(3, 4, 10):
        zero, x = np.full(4, 10, np.int8), np.array([13, 14, 10, 10], np.int8)
        assert head.classify(x) == (-1, 0)
        head.enroll(zero, 1)
        assert head.classify(x) == (1, 0), "a zero prototype is no reason for a crash"
        head.enroll(x, 2)
        assert head.classify(x) == (2, ONE)
        assert head.classify(zero) == (1, 0), "the lower label of two equal scores"
        opposite = (20 - x).astype(np.int8)
        assert head.classify(opposite) == (1, 0), "-1 is less than 0"
        head.enroll(x, 0)
        assert head.classify(x) == (0, ONE), "the lower label of two equal scores"


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_label_out_of_range_is_refused(heads: Heads, label: int) -> None:
    _, c = heads(3, 4, 0)
    assert c.enroll(np.ones(4, np.int8), label) == LABEL_OUT_OF_RANGE
    assert not c.sums.any()
    assert not c.shots.any()


def test_number_of_examples_does_not_change_the_direction(heads: Heads) -> None:
    """The mean is never divided out; a class with many examples must not win for that."""
    for head in heads(2, 8, -128):
        rng = np.random.default_rng(0)
        a, b = rng.integers(-128, 128, (2, 8), np.int8)
        head.enroll(a, 0)
        for _ in range(50):
            head.enroll(b, 1)
        assert head.classify(a)[0] == 0
        assert head.classify(b)[0] == 1
