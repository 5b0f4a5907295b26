"""Stochastic rounding: the generator's sequence, in NumPy and C; right on average; half the memory."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.compile import compile_model
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.lowering import lower
from tinytrain_compiler.reference.stochastic import SampleRandom, random_state, round_stochastically, xorshift
from tinytrain_compiler.resources import RUNTIME
from tinytrain_compiler.training.formats import formats
from tinytrain_compiler.training.options import LearningOptions
from tinytrain_compiler.training.scheme import Scheme, TrainedLayer
from tools import require_or_skip

PROBE = """
#include "tt_learn.h"
uint32_t probe_next(uint32_t state) { return tt_random_next(&state); }
uint32_t probe_state(uint32_t number) { return tt_random_state(number); }
int32_t probe_move(int8_t delta, int64_t move, uint32_t state, uint32_t *saturated)
{
    tt_rate rate = { 0 };
    tt_move_stochastic(&delta, move, &state, &rate);
    *saturated = rate.saturated;
    return delta;
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    require_or_skip("cc")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    command = ["cc", "-std=c11", "-O2", "-fPIC", "-shared", f"-I{RUNTIME}", "probe.c", "-o", "probe.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "probe.so"))
    library.probe_next.restype = library.probe_state.restype = ctypes.c_uint32
    return library


def test_the_generator_is_xorshift32(probe: ctypes.CDLL) -> None:
    """Marsaglia's numbers from 2463534242, and ours."""
    state, numbers = np.array([2463534242], np.uint32), []
    for _ in range(4):
        assert probe.probe_next(ctypes.c_uint32(int(state[0]))) == xorshift(state)[0]
        state = xorshift(state)
        numbers.append(int(state[0]))
    assert numbers == [723471715, 2497366906, 2064144800, 2008045182]
    seeds = np.array([0, 1, 2, 0xFFFFFFFF], np.uint32)
    assert random_state(seeds).tolist() == [probe.probe_state(ctypes.c_uint32(int(s))) for s in seeds] == STATES


STATES = [1, 1364076727, 821347078, 2180083513]


def test_the_sequence_of_a_sample_is_pinned() -> None:
    random = SampleRandom(seed=1, epoch=2, sample=3)
    assert random.layer((2, 1, 4)).reshape(2, 4).tolist() == FIRST
    assert random.layer((1, 4)).tolist() == SECOND


FIRST = [[102, 129, 31, 159], [60, 117, 213, 134]]
SECOND = [[130, 228, 247, 144]]


def test_every_seed_epoch_sample_layer_and_output_has_numbers_of_its_own() -> None:
    drawn = [
        tuple(SampleRandom(*of).layer((3, 32)).reshape(3, 32)[output])
        for of in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 0, 0))
        for output in range(3)
    ]
    twice = SampleRandom(0, 0, 0)
    twice.layer((3, 32))
    drawn.append(tuple(twice.layer((3, 32))[0]))
    assert len(set(drawn)) == len(drawn)
    correlation = np.corrcoef(np.array(drawn, float))
    assert np.abs(correlation - np.eye(len(drawn))).max() < 0.7  # 3.9 standard deviations of 32 values


def test_rounding_is_right_on_average() -> None:
    """Every fraction of a step, over samples and weights: mean within 4.5 standard deviations, none rounded twice."""
    moves = np.arange(-640, 641, 5)
    draws = np.concatenate(
        [SampleRandom(7, epoch, sample).layer((8, 32)).reshape(-1) for epoch in range(4) for sample in range(8)]
    )
    rounded = round_stochastically(moves[:, None], draws[None, :])
    exact = moves / 256
    spread = np.sqrt((exact - np.floor(exact)) * (1 - exact + np.floor(exact)) / len(draws))
    assert (np.abs(rounded.mean(1) - exact) <= 4.5 * spread).all()
    assert (np.abs(rounded - exact[:, None]) < 1).all()
    counts = np.bincount(draws, minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 360  # chi-square, 255 degrees: 1 in 50,000


def test_all_of_the_256_numbers_round_a_step_exactly() -> None:
    """Unbiased by construction: over r = 0 .. 255 the sum is the step."""
    for move in range(-1000, 1001, 37):
        assert round_stochastically(np.full(256, move), np.arange(256)).sum() == move


@pytest.mark.parametrize("delta", [-127, -126, -1, 0, 5, 126, 127])
def test_c_moves_a_delta_as_numpy_does(delta: int, probe: ctypes.CDLL) -> None:
    saturated = ctypes.c_uint32()
    for state in (1, 77, 0x80000000, 0xDEADBEEF):
        random = int(xorshift(np.array([state], np.uint32))[0]) >> 24
        for move in (0, 1, -1, 255, 256, -300, 70_000, -70_000, 2**40, -(2**40)):
            wanted = delta - int(round_stochastically(np.array([move]), np.array([random]))[0])
            found = probe.probe_move(
                ctypes.c_int8(delta), ctypes.c_int64(move), ctypes.c_uint32(state), ctypes.byref(saturated)
            )
            assert found == min(max(wanted, -127), 127)
            assert saturated.value == (abs(wanted) > 127)


def test_deltas_take_one_byte_and_biases_what_they_took() -> None:
    b = GraphBuilder((6, 6, 4))
    features = b.avg_pool(b.conv2d(b.input, 16, (3, 3), name="layer"))
    graph = b.build(b.fully_connected(b.reshape(features), 3), features)
    scheme = Scheme({"layer": TrainedLayer((0, 1, 3))})
    nearest, stochastic = (
        lower(
            graph,
            load_board("stm32f746"),
            "net",
            3,
            scheme,
            options=LearningOptions(formats=formats("int16", rounding)),
        ).training
        for rounding in ("nearest", "stochastic")
    )
    assert nearest is not None
    assert stochastic is not None
    deltas = 16 * 9 * 3
    assert nearest.training_state_bytes - stochastic.training_state_bytes == deltas
    assert stochastic.training_state_bytes == 4 * 16 + 16 + deltas


def test_an_unknown_rounding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--rounding up: choose one of nearest, stochastic") as e:
        compile_model(tmp_path / "no.onnx", "stm32f746", rounding="up")
    assert e.value.exit_code == 2
