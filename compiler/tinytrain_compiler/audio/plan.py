"""The constants of a front end: what numerics.md, "Sound", calls by these names. All are made here, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log, log2, log10, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..graph import Tensor
from .settings import AudioSettings

WINDOW_BITS, WEIGHT_BITS, DCT_BITS, LOG_BITS, INPUT_BITS = 15, 15, 14, 16, 24
SAMPLE_BITS = 15  # PCM: 1.0 is 2^15
POWER_SHIFT = 16  # bits of a bin's power that are rounded away
_LOG_UNIT = {"natural": log(2), "log10": log10(2), "decibel": 10 * log10(2)}  # of a doubling

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class AudioPlan:
    """Settings, and the integers that make them. Arrays are what the C has as tables."""

    settings: AudioSettings
    frames: int  # of an input
    frame_step: int  # bytes of the input from a frame to the next
    value_step: int  # and from a value of a frame to the next
    cosines: NDArray[np.int32]  # (fft / 4 + 1,): cos(2 pi k / fft), Q31
    window: NDArray[np.uint16]  # (window / 2 + 1,): the first half of the Hann window and its middle, Q15
    starts: NDArray[np.uint16]  # (bands + 2,): the first bin at or above each edge
    weights: NDArray[np.uint16]  # of bins starts[0] .. starts[-1] - 1: how far each lies between two edges, Q15
    dct: NDArray[np.int16]  # (coefficients, bands), Q14; empty for log-mel
    scale_bits: int  # band sums are 2^scale_bits times those of samples -1 .. 1
    floor: int  # added to a band sum
    log_factor: int  # of a logarithm to base 2, Q16
    fraction: int  # bits of a feature
    level_factor: int  # of a change of level in log units, on features that it moves, Q14; 0: level = "none"
    quietest: int  # peak, in steps of a sample
    multiplier: int  # input = (feature multiplier + offset) >> 24
    offset: int

    @property
    def unit(self) -> int:
        """Doublings of a band sum when samples double."""
        return 2 if self.settings.spectrum == "power" else 1

    @property
    def state_bytes(self) -> int:
        """sizeof(<name>_audio) on a 32-bit core: the struct, samples, features, peaks, the FFT's and the logarithms."""
        s = self.settings
        halves = s.window + self.frames * (s.values + (self.level_factor != 0))
        return 28 + 4 * -(-2 * halves // 4) + 4 * (s.points + s.bands)

    @property
    def table_bytes(self) -> int:
        """Constants in flash."""
        arrays = (self.cosines, self.window, self.starts, self.weights, self.dct)
        return sum(-(-array.nbytes // 4) * 4 for array in arrays) + 80


def audio_plan(settings: AudioSettings, tensor: Tensor) -> AudioPlan:
    """The front end of a model with this input. Raises UsageError where the input is not made of such frames."""
    frames, frame_step, value_step = _places(settings, tensor.shape)
    s, points = settings, settings.points
    edges = mel_edges(s)
    bins = s.rate / points * np.arange(points // 2)
    position = mel(bins) if s.filters == "tensorflow" else bins
    starts = np.searchsorted(position[1:], edges, "left") + 1  # bin 0 belongs to no band
    interval = np.searchsorted(edges, position[starts[0] : starts[-1]], "right") - 1
    share = (position[starts[0] : starts[-1]] - edges[interval]) / np.diff(edges)[interval]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s.window // 2 + 1) / s.window)
    cosines = np.cos(2 * np.pi * np.arange(points // 4 + 1) / points)
    dct = dct_matrix(s)
    scale_bits = (30 - (points.bit_length() - 1)) * (2 if s.spectrum == "power" else 1) + WEIGHT_BITS
    scale_bits -= POWER_SHIFT if s.spectrum == "power" else 0
    unit = _LOG_UNIT[s.log]
    largest = (unit_sum(s) ** (2 if s.spectrum == "power" else 1)) * max(1, len(share))
    bound = unit * max(abs(log2(s.floor)), abs(log2(largest + s.floor)))
    bound *= float(np.abs(dct).sum(1).max()) if s.coefficients else 1.0
    fraction = min(LOG_BITS, floor(log2(32767 / bound)))
    q = tensor.quantization
    return AudioPlan(
        s, frames, frame_step, value_step,
        np.minimum(np.rint(2**31 * cosines), 2**31 - 1).astype(np.int32),
        np.rint(2**WINDOW_BITS * hann).astype(np.uint16),
        starts.astype(np.uint16),
        np.rint(2**WEIGHT_BITS * share).astype(np.uint16),
        np.rint(2**DCT_BITS * dct).astype(np.int16),
        scale_bits,
        max(1, round(s.floor * 2.0**scale_bits)),
        round(unit * 2**LOG_BITS),
        fraction,
        _level_factor(s, dct),
        ceil(s.quietest * 2**SAMPLE_BITS),
        round(2**INPUT_BITS / (s.std * q.scale * 2**fraction)),
        round(2**INPUT_BITS * (q.zero_point - s.mean / (s.std * q.scale)) + 2 ** (INPUT_BITS - 1)),
    )  # fmt: skip


def mel(hertz: Floats) -> Floats:
    found: Floats = 1127.0 * np.log1p(hertz / 700.0)
    return found


def mel_edges(s: AudioSettings) -> Floats:
    """(bands + 2,): equal steps of mel; in mel or in Hz, as the filters are triangles over one or the other."""
    low, high = mel(np.array([s.low, s.high]))
    edges = np.linspace(low, high, s.bands + 2)
    hertz: Floats = 700.0 * np.expm1(edges / 1127.0)
    return edges if s.filters == "tensorflow" else hertz


def dct_matrix(s: AudioSettings) -> Floats:
    """(coefficients, bands): DCT-II as TensorFlow scales it, sqrt(2 / bands) cos(pi k (j + 1/2) / bands)."""
    k, j = np.arange(s.coefficients)[:, None], np.arange(s.bands)
    matrix: Floats = np.sqrt(2 / s.bands) * np.cos(np.pi * k * (j + 0.5) / s.bands)
    return matrix


def unit_sum(s: AudioSettings) -> float:
    """The most that a bin's amplitude can be: all samples of the window in phase."""
    return s.window / 2


def _level_factor(s: AudioSettings, dct: Floats) -> int:
    if s.level == "none":
        return 0
    return round((float(dct[0].sum()) if s.coefficients else 1.0) * (1 << DCT_BITS))


def _places(s: AudioSettings, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(frames, frame step, value step) in an input of this shape, whose last axis lies innermost."""
    axes, values = tuple(n for n in shape if n != 1), s.values
    if len(axes) == 2 and axes[1] == values:
        return axes[0], values, 1
    if len(axes) == 2 and axes[0] == values:
        return axes[1], 1, axes[1]
    if len(axes) == 1 and prod(shape) % values == 0:
        return prod(shape) // values, values, 1
    raise UsageError(
        f"--audio: frames of {values} values do not fit the model's input {tuple(shape)}; "
        f"{'coefficients' if s.coefficients else 'bands'} must be one of its axes"
    )
