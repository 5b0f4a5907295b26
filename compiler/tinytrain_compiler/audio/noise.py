"""Sounds to calibrate on when there are none, as a network takes them: voices of noise and tones in a quiet room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph import Quantization, Tensor
from .front_end import FrontEnd
from .plan import audio_plan
from .settings import AudioSettings

SOUNDS = 64
_PITCHES = (80.0, 300.0)  # Hz
_LEVELS = (-30.0, 0.0)  # dB of full scale: peak of the voice
_ROOMS = (-55.0, -30.0)  # dB of the voice: the noise around it

Floats = NDArray[np.float64]


def noise_features(
    settings: AudioSettings, shape: Sequence[int], seed: int = 0, count: int = SOUNDS
) -> NDArray[np.float32]:
    """float32 (count, *shape): features of generated sounds. shape: the model's input without batch.

    Raises UsageError where the input is not made of such frames.
    """
    plan = audio_plan(settings, Tensor("input", tuple(shape), Quantization(1.0, 0)))
    front_end, rng = FrontEnd(plan), np.random.default_rng(seed)
    found = np.stack([front_end.floats(_sound(rng, front_end.samples, settings.rate)) for _ in range(count)])
    return np.ascontiguousarray(found if plan.value_step == 1 else found.transpose(0, 2, 1)).reshape(count, *shape)


def _sound(rng: np.random.Generator, samples: int, rate: int) -> NDArray[np.int16]:
    """(samples,): some syllables of a voice with its formants, hissed or sung, and a room's noise."""
    voice, t = np.zeros(samples), np.arange(samples) / samples
    for _ in range(int(rng.integers(1, 4))):
        envelope = np.exp(-(((t - rng.uniform(0.2, 0.8)) / rng.uniform(0.05, 0.2)) ** 2))
        source = _tones(rng, samples, rate) if rng.random() < 0.7 else rng.standard_normal(samples)
        voice += envelope * _shaped(rng, source, rate)
    voice *= 10 ** (rng.uniform(*_LEVELS) / 20) / max(float(np.abs(voice).max()), 1e-12)
    room = _shaped(rng, rng.standard_normal(samples), rate)
    room *= 10 ** (rng.uniform(*_ROOMS) / 20) * np.abs(voice).max()
    return np.clip(np.rint(32768 * (voice + room)), -32768, 32767).astype(np.int16)


def _tones(rng: np.random.Generator, samples: int, rate: int) -> Floats:
    """A pulse a period, the pitch falling or rising by up to a fifth."""
    pitch = rng.uniform(*_PITCHES) * np.linspace(1, rng.uniform(0.8, 1.2), samples)
    phase = np.cumsum(pitch / rate)
    return np.diff(np.floor(phase), prepend=0.0)


def _shaped(rng: np.random.Generator, source: Floats, rate: int) -> Floats:
    """The source through three resonances and a slope of some dB an octave; of unit variance."""
    hertz = np.fft.rfftfreq(len(source), 1 / rate)
    gain = np.full(len(hertz), 0.03)
    for low, high in ((250, 900), (900, 2500), (2300, 3500)):
        gain += np.exp(-(((hertz - rng.uniform(low, high)) / rng.uniform(60, 250)) ** 2))
    gain /= (1 + hertz / 500) ** rng.uniform(0, 1.5)
    gain[0] = 0
    shaped: Floats = np.fft.irfft(np.fft.rfft(source) * gain, len(source))
    return shaped / max(float(shaped.std()), 1e-12)
