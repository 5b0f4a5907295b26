"""Calibration samples in the model's own layout and normalisation, from images, arrays, or generated noise."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import AudioSettings, noise_features
from ..errors import UsageError
from ..graph import Layout
from .noise import noise_pixels
from .normalization import normalization

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SHOWN = 8  # arrays listed in a message

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Numbers = float | Sequence[float]


@dataclass(frozen=True)
class Calibration:
    """What the quantiser learns its ranges from."""

    samples: Floats  # (n, C, H, W) or (n, F), as the model's input takes them
    source: str | None  # name of the folder or file, no path; None: generated noise
    available: int  # samples that the source has
    array: str | None = None  # its key in an .npz
    are_floats: bool = False  # in the model's own units: what it takes are not images

    @property
    def is_generated(self) -> bool:
        """Nobody's data, so accuracy is unverified."""
        return self.source is None


@dataclass(frozen=True)
class CalibrationData:
    """Where a model's calibration samples come from, while its input's shape is not known yet: see load_calibration."""

    source: Path | None = None
    mean: Numbers = 127.5
    std: Numbers = 127.5
    limit: int = 256
    audio: AudioSettings | None = None  # the front end in front of the model: what noise goes through

    def load(self, layout: Layout) -> Calibration:
        if self.source is None and self.audio is not None:
            samples = noise_features(self.audio, layout.shape[1:])
            return Calibration(samples, None, len(samples), are_floats=True)
        return load_samples(self.source, layout, self.mean, self.std, self.limit)


def load_samples(source: Path | None, layout: Layout, mean: Numbers, std: Numbers, limit: int) -> Calibration:
    """As load_calibration, for an input that lies like this: also for images that the file has channels last."""
    found = load_calibration(source, channels_first(layout), mean, std, limit)
    return replace(found, samples=in_file_order(found.samples, layout))


def channels_first(layout: Layout) -> tuple[int, ...]:
    """The shape of an input's samples in the file, of images as (1, C, H, W) whatever the file has."""
    return tuple(layout.shape[axis] for axis in (0, 3, 1, 2)) if layout.is_channels_last else layout.shape


def in_file_order(samples: Floats, layout: Layout) -> Floats:
    """Samples in the shape of channels_first as the file has them."""
    return np.ascontiguousarray(samples.transpose(0, 2, 3, 1)) if layout.is_channels_last else samples


def load_calibration(
    source: Path | None,
    input_shape: Sequence[int],
    mean: Numbers = 127.5,
    std: Numbers = 127.5,
    limit: int = 100,
    seed: int = 0,
) -> Calibration:
    """Read calibration samples for a model.

    source: a folder of images (searched recursively), an .npz with `images` (uint8 (N, H, W, C) or (N, H, W)) or
    a float array of the input's shape, an .npy with either, or None for generated noise.
    input_shape: the model's, (1, C, H, W) or (1, F). mean, std: pixel -> (pixel - mean) / std, one number or one
    per channel; float arrays are used as they are. At most `limit` samples, evenly spaced, always the same ones.

    Raises UsageError, naming the file, what was found, what was wanted and the fix.
    """
    _normalization(input_shape, mean, std)
    if limit < 1:
        raise UsageError(f"calibration needs at least 1 sample, the limit is {limit}")
    if source is None:
        pixels = noise_pixels(tuple(input_shape[1:]), seed)
        samples = _normalize(pixels, input_shape, mean, std)
        return Calibration(samples, None, len(samples))
    source = Path(source)
    if source.is_dir():
        found = _from_folder(source, input_shape, mean, std, limit)
    elif not source.exists():
        raise UsageError(f"calibration data {source} does not exist; pass a folder of images, an .npz or an .npy")
    elif source.suffix.lower() in (".npz", ".npy"):
        found = _from_arrays(source, input_shape, mean, std, limit)
    else:
        raise UsageError(
            f"calibration data {source} is neither a folder of images nor an .npz or .npy file; "
            "put images in a folder, or save an array with numpy.savez"
        )
    count = len(found.samples)
    wrong = int(np.count_nonzero(~np.isfinite(found.samples).reshape(count, -1).all(1)))
    if wrong:
        raise UsageError(f"calibration data {source}: {wrong} of {count} samples hold NaN or infinity; remove them")
    return found


def pixels_to_input(images: Pixels, input_shape: Sequence[int], mean: Numbers, std: Numbers) -> Floats:
    """Images as the model takes them: resized bilinearly, grey or RGB as it wants, (pixel - mean) / std.

    images: uint8 (N, H, W, C) or (N, H, W), C 1, 3 or 4 (alpha is dropped) or the model's own.
    Returns float32 (N, *input_shape[1:]). A vector input (1, F) takes images of F values, channel by channel.
    Raises UsageError where the shapes don't go together.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise UsageError(f"images must be a uint8 array (N, H, W, C) or (N, H, W), not {images.dtype} {images.shape}")
    if len(input_shape) != 4:
        values = prod(input_shape[1:])
        if images[0].size != values:
            raise UsageError(
                f"images of {images[0].size} values {images.shape[1:]} do not fit the model's input "
                f"{tuple(input_shape)}; give them {values} values"
            )
        return _normalize(images.transpose(0, 3, 1, 2).reshape(len(images), *input_shape[1:]), input_shape, mean, std)
    _, channels, height, width = input_shape
    images = _with_channels(images, channels)
    if images.shape[1:3] != (height, width):
        images = np.stack([_resize(image, height, width) for image in images])
    return _normalize(images.transpose(0, 3, 1, 2), input_shape, mean, std)


def _with_channels(images: Pixels, channels: int) -> Pixels:
    have = images.shape[-1]
    if have == channels:
        return images
    if have == 4 and channels in (1, 3):
        images, have = images[..., :3], 3
    if have == channels:
        return images
    if have == 1 and channels == 3:
        return np.repeat(images, 3, axis=-1)
    if have == 3 and channels == 1:
        # ITU-R 601 luma in 16-bit fixed point, the weights PIL's convert("L") uses.
        luma = images.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32) + 0x8000
        return (luma >> 16).astype(np.uint8)[..., None]
    raise UsageError(
        f"images with {have} channels (shape {images.shape}, read as N, H, W, C) do not fit a model whose input has "
        f"{channels}; store them as (N, H, W, {channels})"
    )


def _resize(image: Pixels, height: int, width: int) -> Pixels:
    """(H, W, C) -> (height, width, C), bilinear with the area filter PIL applies when shrinking."""
    from PIL import Image

    size = (width, height)
    if image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    layers = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[-1])]
    return np.stack([np.asarray(layer.resize(size, Image.Resampling.BILINEAR)) for layer in layers], axis=-1)


def _normalization(input_shape: Sequence[int], mean: Numbers, std: Numbers) -> tuple[Floats, Floats]:
    """mean and std of raw pixels, each float32 (1,) or (C,). Errors: as normalization, and for a wrong count."""
    channels = input_shape[1] if len(input_shape) == 4 else 1
    found = normalization(mean, std)
    values = []
    for name, given in (("mean", found.mean), ("std", found.std)):
        array = np.asarray(given, dtype=np.float32)
        if array.shape not in ((1,), (channels,)):
            wanted = f"1 or {channels}" if channels > 1 else "1"
            raise UsageError(f"--{name} has {array.size} numbers, this model's input takes {wanted}")
        values.append(array)
    return values[0], values[1]


def _normalize(pixels: Pixels, input_shape: Sequence[int], mean: Numbers, std: Numbers) -> Floats:
    """uint8 (n, C, H, W) or (n, F) -> float32 of the same shape."""
    m, s = _normalization(input_shape, mean, std)
    if len(input_shape) == 4:
        m, s = m.reshape(-1, 1, 1), s.reshape(-1, 1, 1)
    return np.ascontiguousarray((pixels.astype(np.float32) - m) / s)


def _choose(count: int, limit: int) -> list[int]:
    """Evenly spaced indices: data is often sorted by class, and each should be seen."""
    return list(range(count)) if count <= limit else [i * count // limit for i in range(limit)]


def data_digest(source: Path) -> str:
    """SHA-256 of a file, or of a folder's images with their names: what was calibrated on, wherever it lies."""
    if not source.is_dir():
        return hashlib.sha256(source.read_bytes()).hexdigest()
    lines = (
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(source).as_posix()}\n"
        for p in _image_files(source)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _image_files(folder: Path) -> list[Path]:
    """In a fixed order, wherever the folder lies."""
    files = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    return sorted(files, key=lambda p: p.relative_to(folder).as_posix())


def _from_folder(folder: Path, input_shape: Sequence[int], mean: Numbers, std: Numbers, limit: int) -> Calibration:
    from PIL import Image

    if len(input_shape) != 4 or input_shape[1] not in (1, 3):
        raise UsageError(
            f"calibration data {folder} is a folder of images, but the model's input {tuple(input_shape)} is not a "
            "grey or RGB image; pass an .npz with a float array of that shape"
        )
    files = _image_files(folder)
    if not files:
        raise UsageError(f"calibration data {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}), also not below")
    images = []
    for i in _choose(len(files), limit):
        try:
            with Image.open(files[i]) as opened:
                image = np.asarray(opened.convert("RGB" if input_shape[1] == 3 else "L"))
        except Exception as e:  # PIL's decoders raise whatever they come across
            raise UsageError(f"calibration image {files[i]} cannot be read: {e}; replace or remove it") from e
        images.append(pixels_to_input(image[None], input_shape, mean, std)[0])
    return Calibration(np.stack(images), folder.resolve().name, len(files))


def _from_arrays(file: Path, input_shape: Sequence[int], mean: Numbers, std: Numbers, limit: int) -> Calibration:
    arrays = _read_arrays(file)
    for key, array in arrays.items():
        total = len(array) if array.ndim else 0
        if key in ("images", "") and array.dtype == np.uint8 and array.ndim in (3, 4) and array.size:
            try:
                samples = pixels_to_input(array[_choose(total, limit)], input_shape, mean, std)
            except UsageError as e:
                raise UsageError(f"calibration data {file}, {key or 'array'}: {e}") from e
            return Calibration(samples, file.name, total, key or None)
        if array.dtype.kind == "f" and total:
            fitted = fit_floats(array, input_shape, _choose(total, limit))
            if fitted is not None:
                return Calibration(fitted, file.name, total, key or None, are_floats=True)
    raise UsageError(_no_array_fits(file, arrays, input_shape))


def _read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Arrays by key, `images` first; an .npy has the key "". Raises UsageError for a damaged file or Python objects."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {key: loaded[key] for key in sorted(loaded.files, key=lambda k: k != "images")}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as e:
        raise UsageError(
            f"calibration data {file} cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}; "
            "save plain numeric arrays with numpy.savez"
        ) from e


def fit_floats(array: NDArray[Any], input_shape: Sequence[int], chosen: list[int]) -> Floats | None:
    """Samples in the input's shape where the array has it up to dimensions of 1, or channels last; else None."""
    shape, wanted = array.shape[1:], tuple(input_shape[1:])
    if [n for n in shape if n != 1] == [n for n in wanted if n != 1]:
        return np.ascontiguousarray(array[chosen].reshape(-1, *wanted), dtype=np.float32)
    if len(wanted) in (2, 3) and shape == (*wanted[1:], wanted[0]):
        return np.ascontiguousarray(np.moveaxis(array[chosen], -1, 1), dtype=np.float32)
    return None


def _no_array_fits(file: Path, arrays: Mapping[str, NDArray[Any]], input_shape: Sequence[int]) -> str:
    listed = [f"{key or 'array'} {a.dtype} {a.shape}" for key, a in arrays.items()]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    found = f"it holds {', '.join(listed[:_SHOWN])}{more}" if listed else "it holds no arrays"
    wanted = ", ".join(str(n) for n in input_shape[1:])
    images = " or images as uint8 (N, H, W, C) under the key 'images'" if len(input_shape) == 4 else ""
    return (
        f"calibration data {file} does not fit the model's input {tuple(input_shape)}: {found}; wanted is a float "
        f"array (N, {wanted}){images}, with at least one sample"
    )
