"""Pictures to calibrate on when there are none: noise with the 1/f spectrum of natural scenes.

Their local statistics resemble a photograph's, so layers see ranges of the right size; what the network
was trained to find is not in them, so accuracy stays unverified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PICTURES = 64
_GREY_EVERY = 4  # every fourth picture has no colour, the others more or less


def noise_pixels(shape: Sequence[int], seed: int, count: int = PICTURES) -> NDArray[np.uint8]:
    """uint8 (count, *shape), shape (C, H, W) or (F,); each sample reaches from 0 to 255. Same seed, same bytes."""
    rng = np.random.default_rng(seed)
    size = tuple(shape[1:]) if len(shape) == 3 else tuple(shape)
    channels = shape[0] if len(shape) == 3 else 1
    samples = np.empty((count, channels, *size), dtype=np.uint8)
    for i in range(count):
        # Amplitude falls with frequency**slope: 1 for most scenes, less for texture, more for sky and walls.
        slope = rng.uniform(0.7, 1.4)
        grey = _field(rng, size, slope)
        colour = 0.0 if i % _GREY_EVERY == 0 else rng.uniform(0.1, 1.0)
        layers = np.stack([grey + colour * _field(rng, size, slope) for _ in range(channels)])
        low, high = layers.min(), layers.max()
        samples[i] = np.rint((layers - low) / max(high - low, 1e-12) * 255)
    return samples.reshape(count, *shape)


def _field(rng: np.random.Generator, size: tuple[int, ...], slope: float) -> NDArray[np.float64]:
    """One noise field of this size with amplitude ~ 1 / frequency**slope, zero mean, unit variance."""
    grids = np.meshgrid(*(np.fft.fftfreq(n) * n for n in size), indexing="ij")
    frequency = np.sqrt(sum(g**2 for g in grids))
    frequency.flat[0] = 1.0
    spectrum = np.fft.fftn(rng.standard_normal(size)) / frequency**slope
    field: NDArray[np.float64] = np.fft.ifftn(spectrum).real
    field -= field.mean()
    return field / max(float(field.std()), 1e-12)
