"""Calibration data in all the shapes people have it, and messages for those that don't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tinytrain_compiler.errors import UsageError
from tinytrain_compiler.quantize.calibration import load_calibration, pixels_to_input

RGB = (1, 3, 8, 10)
GREY = (1, 1, 8, 10)


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def error_of(source: Path | None, shape: tuple[int, ...] = RGB, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_calibration(source, shape, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_of_the_right_size_are_only_normalised(tmp_path: Path) -> None:
    images = random_images(5, 8, 10, 3)
    c = load_calibration(npz(tmp_path, images=images, labels=np.arange(5)), RGB, mean=(1, 2, 3), std=(4, 5, 6))
    expected = (images.transpose(0, 3, 1, 2) - np.float32([1, 2, 3])[:, None, None]) / np.float32([4, 5, 6])[
        :, None, None
    ]
    np.testing.assert_array_equal(c.samples, expected)
    assert c.samples.dtype == np.float32
    assert c.samples.flags.c_contiguous
    assert (c.source, c.array, c.available) == ("data.npz", "images", 5)
    assert not c.is_generated


@settings(max_examples=20, deadline=None)
@given(
    have=st.sampled_from([(), (1,), (3,), (4,)]),
    want=st.sampled_from([1, 3]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
)
def test_images_are_resized_and_recoloured(have: tuple[int, ...], want: int, height: int, width: int) -> None:
    x = pixels_to_input(np.full((2, height, width, *have), 255, np.uint8), (1, want, 8, 10), 127.5, 127.5)
    assert x.shape == (2, want, 8, 10)
    np.testing.assert_array_equal(x, 1.0)


def test_grey_and_colour_as_pil_converts_them() -> None:
    image = random_images(8, 10, 3)
    grey = pixels_to_input(image[None], GREY, 0, 1)[0, 0]
    np.testing.assert_array_equal(grey, np.asarray(Image.fromarray(image).convert("L"), np.float32))


def test_a_vector_input_takes_images_of_as_many_values() -> None:
    images = random_images(2, 4, 5)
    np.testing.assert_array_equal(pixels_to_input(images, (1, 20), 0, 1), images.reshape(2, 20))
    with pytest.raises(UsageError, match="20 values"):
        pixels_to_input(images, (1, 21), 0, 1)


@pytest.mark.parametrize("shape", [(7, 8, 10), (7, 1, 8, 10), (7, 8, 10, 1), (7, 1, 1, 8, 10)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_taken_as_they_are(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    source = npz(tmp_path, a_labels=np.arange(7.0), mfcc=values)
    c = load_calibration(source, GREY, mean=5, std=7)
    np.testing.assert_array_equal(c.samples, values.reshape(7, 1, 8, 10).astype(np.float32))
    assert (c.source, c.array, c.available) == ("data.npz", "mfcc", 7)


def test_float_nhwc_is_transposed_and_nchw_is_not(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((4, 8, 10, 3)).astype(np.float32)
    for stored in (values, values.transpose(0, 3, 1, 2)):
        c = load_calibration(npz(tmp_path, x=stored), RGB)
        np.testing.assert_array_equal(c.samples, values.transpose(0, 3, 1, 2))


def test_npy_files(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 640)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    np.testing.assert_array_equal(load_calibration(tmp_path / "v.npy", (1, 640)).samples, vectors)
    np.save(tmp_path / "p.npy", random_images(4, 9, 9, 3))
    assert load_calibration(tmp_path / "p.npy", RGB).samples.shape == (4, 3, 8, 10)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for i, name in enumerate(["b/2.png", "a/1.jpg", "c/3.BMP", "0.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        mode = "L" if i % 2 else "RGB"
        Image.new(mode, (20 + i, 30), 10 * i if mode == "L" else (10 * i,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    for shape in (RGB, GREY):
        c = load_calibration(tmp_path, shape, mean=0, std=1)
        np.testing.assert_allclose(c.samples.mean((1, 2, 3)), [30, 10, 0, 20], atol=1)  # sorted by path
        assert (c.source, c.array, c.available) == (tmp_path.name, None, 4)


@pytest.mark.parametrize(("limit", "chosen"), [(3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))])
def test_the_choice_is_spread_evenly_and_fixed(tmp_path: Path, limit: int, chosen: list[int]) -> None:
    images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 8, 10))
    c = load_calibration(npz(tmp_path, images=images), GREY, mean=0, std=1, limit=limit)
    assert c.samples[:, 0, 0, 0].tolist() == chosen
    assert (len(c.samples), c.available) == (len(chosen), 10)


@pytest.mark.parametrize("shape", [RGB, GREY, (1, 5, 8, 10), (1, 640), (1, 1, 1, 1)])
def test_generated_noise(shape: tuple[int, ...]) -> None:
    c = load_calibration(None, shape, seed=3)
    assert c.is_generated
    assert (c.source, c.available) == (None, 64)
    assert c.samples.shape == (64, *shape[1:])
    assert np.abs(c.samples).max() <= 1
    np.testing.assert_array_equal(c.samples, load_calibration(None, shape, seed=3).samples)
    if np.prod(shape) > 1:
        assert (c.samples.reshape(64, -1).min(1) == -1).all()
        assert (c.samples.reshape(64, -1).max(1) == 1).all()
        assert (c.samples != load_calibration(None, shape, seed=4).samples).any()


def test_noise_has_grey_and_coloured_images_and_a_falling_spectrum() -> None:
    x = load_calibration(None, (1, 3, 32, 32)).samples
    is_grey = (x == x[:, :1]).all((1, 2, 3))
    assert 0 < is_grey.sum() < len(x)
    power = np.abs(np.fft.fft(x[:, 0], axis=2))[:, :, 1:17].mean((0, 1))
    assert power[0] > 2 * power[4] > 4 * power[15]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mean": (1, 2)}, "--mean has 2 numbers, this model's input takes 1 or 3"),
        ({"std": (1, 2, 3, 4)}, "--std has 4 numbers"),
        ({"std": (1, 0, 1)}, "--std must be greater than 0, not 1,0,1"),
        ({"mean": float("nan")}, "--mean must be finite"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], named: str) -> None:
    assert named in error_of(None, **options)


def test_sources_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    assert "does not exist" in error_of(tmp_path / "nowhere.npz")
    assert "holds no images" in error_of(tmp_path)
    (tmp_path / "data.csv").write_text("1,2")
    assert "neither a folder" in error_of(tmp_path / "data.csv")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    assert "bad.npz cannot be read" in error_of(tmp_path / "bad.npz")
    (tmp_path / "bad.npy").write_bytes(b"")
    assert "bad.npy cannot be read" in error_of(tmp_path / "bad.npy")
    assert "cannot be read" in error_of(npz(tmp_path, images=np.array([{}], dtype=object)))
    (tmp_path / "p.png").write_bytes(b"\x89PNG no image")
    assert "p.png cannot be read" in error_of(tmp_path)
    assert "not a grey or RGB image" in error_of(tmp_path, (1, 640))


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_npz_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = npz(tmp_path_factory.mktemp("cut"), images=random_images(3, 8, 10, 3))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    error_of(path)


@pytest.mark.parametrize(
    ("arrays", "shape"),
    [
        ({"x": np.zeros((4, 3, 9, 9), np.float32)}, RGB),
        ({"x": np.zeros((4, 641), np.float32)}, (1, 640)),
        ({"images": np.zeros((0, 8, 10, 3), np.uint8)}, RGB),
        ({"labels": np.arange(4)}, RGB),
        ({"images": np.float32(1)}, RGB),
        ({}, RGB),
    ],
)
def test_arrays_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, Any], shape: tuple[int, ...]) -> None:
    message = error_of(npz(tmp_path, **arrays), shape)
    assert "data.npz does not fit the model's input" in message
    assert f"a float array (N, {', '.join(map(str, shape[1:]))})" in message
    for key, array in arrays.items():
        assert f"{key} {np.asarray(array).dtype} {np.shape(array)}" in message


def test_images_of_the_wrong_kind(tmp_path: Path) -> None:
    message = error_of(npz(tmp_path, images=random_images(4, 3, 8, 10)))
    assert "data.npz, images: images with 10 channels" in message
    assert "(N, H, W, 3)" in message
    assert "do not fit" in error_of(npz(tmp_path, images=random_images(4, 8, 8, 3)), (1, 640))


def test_values_that_are_not_numbers(tmp_path: Path) -> None:
    values = np.zeros((4, 640), np.float32)
    values[1, 3], values[2, 5] = np.nan, np.inf
    assert "2 of 4 samples hold NaN or infinity" in error_of(npz(tmp_path, x=values), (1, 640))
