"""The front end in NumPy integers: docs/reference/numerics.md, "Sound", and runtime_c/tt_audio.c, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .plan import DCT_BITS, INPUT_BITS, LOG_BITS, POWER_SHIFT, SAMPLE_BITS, WEIGHT_BITS, AudioPlan

Ints = NDArray[np.int64]

LOG_TABLE: Ints = np.rint(2**LOG_BITS * np.log2(1 + np.arange(65) / 64)).astype(np.int64)
_WHOLE = 1 << WEIGHT_BITS


@dataclass(frozen=True)
class FrontEnd:
    """16-bit PCM to frames, and frames to input bytes. Sound is int16 (samples,)."""

    plan: AudioPlan

    @property
    def samples(self) -> int:
        """Of one input."""
        s = self.plan.settings
        return s.window + (self.plan.frames - 1) * s.hop

    def log_mel(self, sound: NDArray[np.int16]) -> Ints:
        """(frames, bands), 16 fraction bits, of every whole window of the sound."""
        plan, windows = self.plan, self._windows(sound)
        re, im = spectrum(plan, windows)
        size = re * re + im * im
        is_power = plan.settings.spectrum == "power"
        size = (size + (1 << POWER_SHIFT >> 1)) >> POWER_SHIFT if is_power else root(size)
        first, weights = int(plan.starts[0]), plan.weights.astype(np.int64)
        bands = np.empty((len(windows), plan.settings.bands), np.int64)
        for band in range(plan.settings.bands):
            low, middle, high = (int(v) for v in plan.starts[band : band + 3])
            rising = size[:, low:middle] @ weights[low - first : middle - first]
            falling = size[:, middle:high] @ (_WHOLE - weights[middle - first : high - first])
            bands[:, band] = rising + falling
        logs = (log2(bands + plan.floor) - (plan.scale_bits << LOG_BITS)) * plan.log_factor
        return (logs + (1 << LOG_BITS >> 1)) >> LOG_BITS

    def features(self, sound: NDArray[np.int16]) -> NDArray[np.int16]:
        """(frames, values) with plan.fraction fraction bits: log-mel, or cepstra. No change of level."""
        plan, logs = self.plan, self.log_mel(sound)
        shift = LOG_BITS - plan.fraction
        if plan.settings.coefficients:
            logs, shift = logs @ plan.dct.T.astype(np.int64), shift + DCT_BITS
        half = 1 << shift >> 1
        found: NDArray[np.int16] = np.clip((logs + half) >> shift, -32768, 32767).astype(np.int16)
        return found

    def input(self, sound: NDArray[np.int16]) -> NDArray[np.int8]:
        """(bytes,): the model's input for the last `samples` of a sound, which has at least these many."""
        plan = self.plan
        last = sound[len(sound) - self.samples :]
        values = self.features(last).astype(np.int64) + self.level(last)
        values = np.clip((values * plan.multiplier + plan.offset) >> INPUT_BITS, -128, 127)
        ordered: NDArray[np.int8] = (values if plan.value_step == 1 else values.T).astype(np.int8)
        return ordered.reshape(-1)

    def level(self, sound: NDArray[np.int16]) -> Ints:
        """(values,): what level = "peak" adds to each frame's values; zeros for none."""
        plan = self.plan
        moved = np.zeros(plan.settings.values, np.int64)
        if plan.level_factor:
            peak = np.array(max(int(sound.max()), plan.quietest))
            doublings = (SAMPLE_BITS << LOG_BITS) - log2(peak)
            change = (doublings * plan.unit * plan.log_factor + (1 << LOG_BITS >> 1)) >> LOG_BITS
            shift = LOG_BITS + DCT_BITS - plan.fraction
            moved[: 1 if plan.settings.coefficients else None] = (
                change * plan.level_factor + (1 << shift >> 1)
            ) >> shift
        return moved

    def floats(self, sound: NDArray[np.int16]) -> NDArray[np.float32]:
        """(frames, values) as a network is trained on them, of the last `samples`: (feature - mean) / std."""
        s, last = self.plan.settings, sound[len(sound) - self.samples :]
        values = (self.features(last) + self.level(last)) / 2.0**self.plan.fraction
        return ((values - s.mean) / s.std).astype(np.float32)

    def _windows(self, sound: NDArray[np.int16]) -> Ints:
        """(frames, window): samples times the Hann window, Q30."""
        s = self.plan.settings
        windows = np.lib.stride_tricks.sliding_window_view(sound.astype(np.int64), s.window)[:: s.hop]
        half = self.plan.window.astype(np.int64)
        mirrored: Ints = windows * np.concatenate([half, half[1 : (s.window + 1) // 2][::-1]])
        return mirrored


def spectrum(plan: AudioPlan, windows: Ints) -> tuple[Ints, Ints]:
    """Real and imaginary parts (frames, fft / 2) of windows, divided by fft; bin 0 is left out (0)."""
    points = plan.settings.points
    half = points // 2
    padded = np.zeros((len(windows), points), np.int64)
    padded[:, : windows.shape[1]] = windows
    bits = half.bit_length() - 1
    order = [int(f"{n:0{bits}b}"[::-1], 2) for n in range(half)]
    re, im = padded[:, 0::2][:, order], padded[:, 1::2][:, order]
    length = 2
    while length <= half:
        step = length // 2
        cos, sin = _turn(plan, np.arange(step) * (points // length))
        r, i = (v.reshape(len(windows), -1, 2, step) for v in (re, im))
        if length == 2:
            tr, ti = r[:, :, 1] >> 1, i[:, :, 1] >> 1
        else:
            tr, ti = _times(r[:, :, 1], i[:, :, 1], cos, sin)
        ur, ui = r[:, :, 0] >> 1, i[:, :, 0] >> 1
        re = np.stack([ur + tr, ur - tr], 2).reshape(len(windows), half)
        im = np.stack([ui + ti, ui - ti], 2).reshape(len(windows), half)
        length *= 2
    return _split(plan, re, im)


def _split(plan: AudioPlan, re: Ints, im: Ints) -> tuple[Ints, Ints]:
    """From the FFT of even samples + i odd samples to that of all samples."""
    half = re.shape[1]
    k = np.arange(1, half // 2 + 1)
    a, b, c, d = re[:, k] >> 1, im[:, k] >> 1, re[:, half - k] >> 1, im[:, half - k] >> 1
    tr, ti = _times(b + d, c - a, *_turn(plan, k))
    er, ei = (a + c) >> 1, (b - d) >> 1
    x, y = np.zeros_like(re), np.zeros_like(im)
    x[:, k], y[:, k] = er + tr, ei + ti
    x[:, half - k], y[:, half - k] = er - tr, ei - ti
    return x, y


def _turn(plan: AudioPlan, k: Ints) -> tuple[Ints, Ints]:
    """cos and sin of 2 pi k / fft for k up to fft / 2, Q31."""
    table, quarter = plan.cosines.astype(np.int64), plan.settings.points // 4
    first = k <= quarter
    cos = np.where(first, table[np.where(first, k, 0)], -table[np.where(first, 0, 2 * quarter - k)])
    sin = np.where(first, table[np.where(first, quarter - k, 0)], table[np.where(first, 0, k - quarter)])
    return cos, sin


def _times(r: Ints, i: Ints, cos: Ints, sin: Ints) -> tuple[Ints, Ints]:
    """Half of (r + i i)(cos - i sin), rounded."""
    one = 1 << 31
    return (r * cos + i * sin + one) >> 32, (i * cos - r * sin + one) >> 32


def bit_length(v: Ints) -> Ints:
    """Of each value, 0 for 0."""
    n, rest = np.zeros_like(v), v.copy()
    for s in (32, 16, 8, 4, 2, 1):
        large = rest >= (1 << s)
        n += s * large
        rest = np.where(large, rest >> s, rest)
    found: Ints = n + (rest > 0)
    return found


def root(v: Ints) -> Ints:
    """Square root within 2^-15 of itself: two steps of Heron's rule on 32 bits."""
    shift = bit_length(v) - 32
    shift += shift & 1
    up, down = np.maximum(shift, 0), np.maximum(-shift, 0)
    m = np.maximum((v >> up) << down, 1 << 30)  # of 0, which is 0 in the end
    x = ((m >> 16) * 43691 >> 16) + 23000
    x = (x + m // x) >> 1
    x = (x + m // x) >> 1
    found: Ints = np.where(v > 0, x << (up >> 1) >> (down >> 1), 0)
    return found


def log2(v: Ints) -> Ints:
    """Base 2 of v >= 1, 16 fraction bits: 64 straight lines an octave."""
    n = bit_length(v) - 1
    m = np.where(n > 31, v >> np.maximum(n - 31, 0), v << np.maximum(31 - n, 0))
    i, rest = (m >> 25) & 63, (m & ((1 << 25) - 1)) >> 9
    line = (LOG_TABLE[i + 1] - LOG_TABLE[i]) * rest
    found: Ints = (n << LOG_BITS) + LOG_TABLE[i] + ((line + (1 << 15)) >> 16)
    return found
