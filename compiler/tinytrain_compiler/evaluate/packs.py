"""Labelled data from an .npz, and its samples as the bytes a compiled model takes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import CompiledModel
from ..errors import UsageError
from ..ops import Int8
from ..quantize.calibration import channels_first, fit_floats, in_file_order, pixels_to_input
from ..quantize.input_bytes import quantize_samples

FLOAT_KEYS = ("mfcc", "signals")  # looked for by name before any other float array
GROUP_KEYS = ("groups", "track", "speaker", "subject")  # samples that show one thing, one person, ...
_OTHER_KEYS = ("labels", "class_names", "source", *GROUP_KEYS)


@dataclass(frozen=True)
class Pack:
    """A labelled data set."""

    name: str  # the file's name without .npz
    values: NDArray[Any]  # images: uint8 (N, H, W, C) or (N, H, W); else floats (N, ...) in the model's units
    labels: NDArray[np.int64]  # (N,), indices into class_names
    class_names: tuple[str, ...]
    source: str  # the array the values come from, as "file.npz (key)"
    groups: NDArray[Any] | None = None  # (N,): what must not be on both sides of an episode; None: nothing known
    keys: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,) each: by what samples may be told apart

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_images(self) -> bool:
        return self.values.dtype == np.uint8

    def members(self, key: str) -> dict[str, list[int]]:
        """Indices of the samples by their value of a key, in the order of values. UsageError where there is none."""
        if key not in self.keys:
            near = get_close_matches(key, self.keys, 1)
            hint = f", did you mean {near[0]}?" if near else f"; it has {', '.join(self.keys) or 'none'}"
            raise UsageError(f"{self.source}: has no key '{key}' with one value a sample{hint}")
        values = self.keys[key]
        return {str(value): np.flatnonzero(values == value).tolist() for value in np.unique(values)}


def load_pack(path: str | Path) -> Pack:
    """Read an .npz with `labels` (N,) and either `images` (uint8 (N, H, W, C) or (N, H, W)) or one float array
    (`mfcc`, `signals` or any other name) whose first dimension is N; `class_names` and arrays (N,) that say what
    belongs together, such as `speaker`, are optional.

    Raises UsageError, saying what was found and what is wanted.
    """
    file = Path(path)
    arrays = _read(file)
    if "labels" not in arrays:
        raise UsageError(f"{file}: holds no `labels`, only {_listed(arrays)}; save one class number a sample under it")
    labels = arrays["labels"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise UsageError(f"{file}: `labels` is {labels.dtype} {labels.shape}; whole numbers of shape (N,) are wanted")
    labels = labels.astype(np.int64)
    if labels.min() < 0:
        raise UsageError(f"{file}: `labels` holds {labels.min()}; classes are numbered from 0")
    key = _values_key(file, arrays, len(labels))
    return Pack(
        file.stem, arrays[key], labels, _class_names(file, arrays, labels), f"{file.name} ({key})",
        next((arrays[k] for k in GROUP_KEYS if k in arrays and arrays[k].shape == labels.shape), None),
        {k: a for k, a in arrays.items() if a.shape == labels.shape and k not in ("labels", "class_names")},
    )  # fmt: skip


def _read(file: Path) -> dict[str, NDArray[Any]]:
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give an .npz with samples and `labels`")
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise UsageError(f"{file}: is a single array; give an .npz with samples and `labels`")
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{file}: cannot be read ({reason}); save plain arrays with numpy.savez") from error


def _values_key(file: Path, arrays: Mapping[str, NDArray[Any]], count: int) -> str:
    """The key of the samples. Raises UsageError where there is none, more than one, or a wrong count."""
    if "images" in arrays:
        key = "images"
        if arrays[key].dtype != np.uint8 or arrays[key].ndim not in (3, 4):
            found = f"{arrays[key].dtype} {arrays[key].shape}"
            raise UsageError(f"{file}: `images` is {found}; uint8 (N, H, W, C) or (N, H, W) is wanted")
    else:
        floats = [k for k, a in arrays.items() if a.dtype.kind == "f" and a.ndim >= 2 and k not in _OTHER_KEYS]
        known = [k for k in FLOAT_KEYS if k in floats]
        if not floats:
            raise UsageError(f"{file}: holds no `images` and no float array, only {_listed(arrays)}")
        if len(floats) > 1 and len(known) != 1:
            raise UsageError(f"{file}: holds several float arrays ({', '.join(floats)}); leave one in the file")
        key = known[0] if known else floats[0]
    if len(arrays[key]) != count or 0 in arrays[key].shape:
        raise UsageError(f"{file}: `{key}` has shape {arrays[key].shape}, but there are {count} labels")
    return key


def _class_names(file: Path, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> tuple[str, ...]:
    highest = int(labels.max())
    if "class_names" not in arrays:
        return tuple(str(i) for i in range(highest + 1))
    names = arrays["class_names"]
    if names.ndim != 1 or len(names) <= highest:
        raise UsageError(f"{file}: `class_names` has shape {names.shape}, but labels go up to {highest}")
    return tuple(str(name) for name in names)


def _listed(arrays: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{key} {a.dtype} {a.shape}" for key, a in arrays.items()) or "nothing"


def to_inputs(pack: Pack, indices: Sequence[int], model: CompiledModel) -> Int8:
    """The chosen samples as the device takes them: int8 (n, *shape of the input tensor).

    Images are resized bilinearly, turned grey or RGB and normalised as the model was compiled; floats must
    have the input's shape, up to dimensions of 1, or be channels last. Raises UsageError where they don't fit.
    """
    tensor, layout = model.graph.tensors[model.graph.input], model.graph.sample_layout
    shape = channels_first(layout)
    chosen = list(indices)
    if pack.is_images:
        try:
            samples = pixels_to_input(pack.values[chosen], shape, model.mean, model.std)
        except UsageError as error:
            raise UsageError(f"{pack.source}: {error}") from error
    else:
        fitted = fit_floats(pack.values, shape, chosen)
        if fitted is None:
            raise UsageError(
                f"{pack.source}: samples of shape {pack.values.shape[1:]} do not fit the model's input "
                f"{shape[1:]}; give a pack made for this model"
            )
        if not np.isfinite(fitted).all():
            raise UsageError(f"{pack.source}: holds NaN or infinity; remove those samples")
        samples = fitted
    return quantize_samples(in_file_order(samples, layout), tensor, layout).reshape(-1, *tensor.shape)
