"""Draws and augmentation: what docs and devices must reproduce, value by value."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tinytrain_compiler.evaluate.augment import Augmentation, apply, augment, draw
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.reference.draws import Draws, mix
from tinytrain_compiler.resources import RUNTIME

# -- draws ---------------------------------------------------------------------------------------


def test_draws_are_marsaglias() -> None:
    draws = Draws(1)
    assert [draws.next() for _ in range(4)] == [270369, 67634689, 2647435461, 307599695]
    draws = Draws(1)
    assert [draws.below(10) for _ in range(10)] == [0, 0, 6, 0, 5, 1, 1, 1, 4, 6]
    assert Draws(0).next() == Draws(2**32).next() != 0


def test_mix_is_fixed_and_separates_neighbours() -> None:
    assert [mix(0), mix(0, 0), mix(1, 2, 3), mix(-1)] == [0x92CA2F0E, 0xD3D29F24, 0xDB7B3ADB, 0x36DEB503]
    seeds = {mix(*values) for values in np.ndindex(8, 8, 8)}
    assert len(seeds) == 512
    bits = [seed >> bit & 1 for seed in seeds for bit in range(32)]
    assert 0.48 < np.mean(bits) < 0.52


def test_draws_cover_their_range_evenly() -> None:
    draws = Draws(mix(3))
    counts = np.bincount([draws.between(-2, 2) + 2 for _ in range(5000)])
    assert len(counts) == 5
    assert counts.min() > 900
    assert sorted(Draws(9).choose(list(range(20)), 20)) == list(range(20))


# -- augmentation --------------------------------------------------------------------------------


def image(shape: tuple[int, ...], seed: int = 0) -> Int8:
    return np.random.default_rng(seed).integers(-128, 128, shape, np.int8)


def by_the_specification(x: Int8, zero: int, seed: int) -> Int8:
    """augment.py's docstring, pixel by pixel."""
    height, width, channels = x.shape
    draws = Draws(seed)
    dy = draws.below(2 * (height // 8) + 1) - height // 8
    dx = draws.below(2 * (width // 8) + 1) - width // 8
    contrast, brightness = draws.below(129) + 192, draws.below(13057) - 6528

    def reflect(i: int, n: int) -> int:
        return -i if i < 0 else 2 * (n - 1) - i if i >= n else i

    y = np.empty_like(x)
    for i, j, c in np.ndindex(height, width, channels):
        value = int(x[reflect(i - dy, height), reflect(j - dx, width), c])
        y[i, j, c] = max(-128, min(127, zero + (((value - zero) * contrast + brightness + 128) >> 8)))
    return y


@pytest.mark.parametrize("shape", [(16, 24, 3), (9, 8, 1), (7, 5, 2), (1, 1, 1), (1, 20, 4)])
@pytest.mark.parametrize("zero", [-128, -5, 0, 127])
def test_augmentation_follows_its_specification(shape: tuple[int, ...], zero: int) -> None:
    x = image(shape)
    for seed in (1, 99, mix(4), mix(5)):
        assert (augment(x, zero, seed) == by_the_specification(x, zero, seed)).all()


def test_augmentation_golden_values() -> None:
    x = (np.arange(64) * 4 - 128).astype(np.int8).reshape(8, 8, 1)
    assert draw(x.shape, mix(5)) == Augmentation(dy=-1, dx=-1, contrast=266, brightness=3278)
    assert augment(x, 3, mix(5))[:2, :, 0].tolist() == [
        [-83, -79, -75, -70, -66, -62, -58, -62],
        [-50, -45, -41, -37, -33, -29, -25, -29],
    ]
    assert draw((32, 24, 3), 1) == Augmentation(dy=-4, dx=-3, contrast=271, brightness=-5593)


def test_no_change_is_the_identity() -> None:
    x = image((10, 12, 3))
    for zero in (-128, 0, 31, 127):
        assert (apply(x, zero, Augmentation()) == x).all()


def test_shift_and_its_opposite_meet_in_the_middle() -> None:
    x = image((16, 16, 2))
    there = apply(x, 0, Augmentation(dy=2, dx=-1))
    assert (there[2:, :-1] == x[:-2, 1:]).all()
    assert (there[0] == there[4]).all()
    assert (there[:, -1] == there[:, -3]).all()
    back = apply(there, 0, Augmentation(dy=-2, dx=1))
    assert (back[:-2, 1:] == x[:-2, 1:]).all()


def test_mirrored_image_shifts_the_other_way() -> None:
    x = image((16, 24, 3))
    left = apply(x, 4, Augmentation(dy=-2, dx=3, contrast=300, brightness=77))
    right = apply(x[:, ::-1].copy(), 4, Augmentation(dy=-2, dx=-3, contrast=300, brightness=77))
    assert (left == right[:, ::-1]).all()


def test_contrast_and_brightness_keep_their_fixed_points_and_saturate() -> None:
    x = np.arange(-128, 128, dtype=np.int16).astype(np.int8).reshape(16, 16, 1)
    stretched = apply(x, 10, Augmentation(contrast=320)).reshape(-1)
    assert stretched[128 + 10] == 10
    assert stretched[0] == -128
    assert stretched[-1] == 127
    assert stretched[128 + 10 + 40] == 60
    assert stretched[128 + 10 - 40] == -40
    brighter = apply(x, 10, Augmentation(brightness=25 * 256)).reshape(-1).astype(int)
    assert (brighter == np.minimum(np.arange(-128, 128) + 25, 127)).all()


def test_draws_reach_every_shift_and_stay_in_range() -> None:
    found = [draw((16, 8, 1), mix(i)) for i in range(2000)]
    assert {a.dy for a in found} == {-2, -1, 0, 1, 2}
    assert {a.dx for a in found} == {-1, 0, 1}
    contrasts, brightness = [a.contrast for a in found], [a.brightness for a in found]
    assert (min(contrasts), max(contrasts)) == (192, 320)
    assert abs(np.mean(contrasts) - 256) < 3
    assert -6528 <= min(brightness) < -6400
    assert 6400 < max(brightness) <= 6528
    assert abs(np.corrcoef(contrasts, brightness)[0, 1]) < 0.08


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("augment") / "augment.so"
    command = [
        "cc",
        "-std=c11",
        "-O1",
        "-fsanitize=undefined",
        "-fno-sanitize-recover",
        "-Wall",
        "-Wextra",
        "-Wconversion",
    ]
    subprocess.run(
        [*command, "-Werror", "-fPIC", "-shared", str(RUNTIME / "tt_augment.c"), "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library))


@given(st.integers(1, 33), st.integers(1, 33), st.integers(1, 4), st.integers(-128, 127), st.integers(0, 2**32 - 1))
@example(128, 128, 3, -1, 7)
def test_the_runtime_augments_the_same_bytes(
    runtime: ctypes.CDLL, height: int, width: int, channels: int, zero: int, seed: int
) -> None:
    x = image((height, width, channels), seed)
    guarded = np.full(x.size + 32, 77, np.int8)
    guarded[16:-16] = x.reshape(-1)
    runtime.tt_augment(ctypes.c_void_p(guarded.ctypes.data + 16), height, width, channels, zero, ctypes.c_uint32(seed))
    assert (guarded[16:-16].reshape(x.shape) == augment(x, zero, seed)).all()
    assert (guarded[:16] == 77).all()
    assert (guarded[-16:] == 77).all()


def test_the_runtimes_seeds_are_mixed_alike(runtime: ctypes.CDLL) -> None:
    runtime.tt_augment_seed.restype = ctypes.c_uint32
    for seed, epoch, index in [(0, 0, 0), (1, 2, 3), (2**32 - 1, 39, 49)]:
        assert runtime.tt_augment_seed(ctypes.c_uint32(seed), epoch, index) == mix(seed, epoch, index)
