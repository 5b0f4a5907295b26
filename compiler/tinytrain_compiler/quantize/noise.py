"""Images to calibrate on when there are none: noise with the spectrum and the edges of natural scenes.

Amplitude falls as 1/f, and every other image also has things in front of each other (the dead-leaves model:
Lee, Mumford, Huang, "Occlusion models for natural images", 2001), because networks answer strongest to edges
and pure noise makes ranges too small. What the network was trained to find is not in them, so accuracy stays
unverified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IMAGES = 64
_GREY_EVERY = 4  # every fourth image has no colour, the others more or less
_LEAVES = 40  # ellipses an image
_LEAF_SIZES = (0.03, 0.5)  # of the image's shorter side

Floats = NDArray[np.float64]


def noise_pixels(shape: Sequence[int], seed: int, count: int = IMAGES) -> NDArray[np.uint8]:
    """uint8 (count, *shape), shape (C, *pixels) or (F,); each sample reaches from 0 to 255. Same seed, same bytes."""
    rng = np.random.default_rng(seed)
    size = tuple(shape[1:]) if len(shape) > 1 else tuple(shape)
    channels = shape[0] if len(shape) > 1 else 1
    samples = np.empty((count, channels, *size), dtype=np.uint8)
    for i in range(count):
        # Amplitude falls with frequency**slope: 1 for most scenes, less for texture, more for sky and walls.
        slope = rng.uniform(0.7, 1.4)
        colour = 0.0 if i % _GREY_EVERY == 0 else rng.uniform(0.1, 1.0)
        grey = _field(rng, size, slope)
        layers = np.stack([grey + colour * _field(rng, size, slope) for _ in range(channels)])
        if i % 2 and len(size) == 2:
            _add_leaves(rng, layers, colour)
        low, high = layers.min(), layers.max()
        samples[i] = np.rint((layers - low) / max(high - low, 1e-12) * 255)
    return samples.reshape(count, *shape)


def _field(rng: np.random.Generator, size: tuple[int, ...], slope: float) -> Floats:
    """One noise field of this size with amplitude ~ 1 / frequency**slope, zero mean, unit variance."""
    grids = np.meshgrid(*(np.fft.fftfreq(n) * n for n in size), indexing="ij")
    frequency = np.sqrt(sum(g**2 for g in grids))
    frequency.flat[0] = 1.0
    spectrum = np.fft.fftn(rng.standard_normal(size)) / frequency**slope
    field: Floats = np.fft.ifftn(spectrum).real
    field -= field.mean()
    return field / max(float(field.std()), 1e-12)


def _add_leaves(rng: np.random.Generator, layers: Floats, colour: float) -> None:
    """Cover (C, H, W) of about unit variance with ellipses, each of one colour and some of the texture below."""
    channels, height, width = layers.shape
    y, x = np.mgrid[:height, :width]
    for _ in range(_LEAVES):
        radius = min(height, width) * np.exp(rng.uniform(*np.log(_LEAF_SIZES)))
        dy, dx = (y - rng.uniform(0, height)) / radius, (x - rng.uniform(0, width)) / radius
        inside = dy**2 + (dx / rng.uniform(0.3, 1)) ** 2 < 1
        paint = rng.uniform(-2.5, 2.5) + colour * rng.uniform(-2.5, 2.5, (channels, 1))
        layers[:, inside] = paint + rng.uniform(0, 0.6) * layers[:, inside]
