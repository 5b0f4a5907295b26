"""--mean and --std: how a raw pixel becomes what the network takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

PIXEL_MAX = 255
FLOATS = np.finfo(np.float32)  # in which samples are computed


@dataclass(frozen=True)
class Normalization:
    """input = (pixel - mean) / std for pixels 0..255; one number each, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scaled: bool = False  # given for pixels scaled to 0..1

    @property
    def note(self) -> str | None:
        """For the user, where the numbers are not used as they were given."""
        if not self.scaled:
            return None
        mean, std = (",".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"--mean and --std are of pixels scaled to 0..1; of raw pixels they are --mean {mean} --std {std}"


def normalization(mean: float | Sequence[float], std: float | Sequence[float]) -> Normalization:
    """The normalisation of raw pixels that `mean` and `std` stand for.

    Numbers up to 1 are of pixels scaled to 0..1, as torchvision and Keras have them: no network takes inputs of
    hundreds, which such a std would make of raw pixels. Mean 0 with std 1 are raw pixels, for networks that take
    those. Errors: UsageError for what is no number, and for a std that is not positive.
    """
    means, stds = (np.atleast_1d(np.asarray(v, np.float64)) for v in (mean, std))
    for name, values in (("mean", means), ("std", stds)):
        if not np.all(np.abs(values) <= FLOATS.max):  # nor is NaN
            raise UsageError(f"--{name} must be finite numbers, not {_listed(values)}")
    if np.any(stds < FLOATS.tiny):
        raise UsageError(f"--std must be greater than 0, not {_listed(stds)}: pixels become (pixel - mean) / std")
    raw = not means.any() and np.all(stds == 1)
    scaled = bool(not raw and np.all((means >= 0) & (means <= 1)) and np.all(stds <= 1))
    factor = PIXEL_MAX if scaled else 1
    return Normalization(tuple((means * factor).tolist()), tuple((stds * factor).tolist()), scaled)


def _listed(values: NDArray[np.float64]) -> str:
    return ",".join(f"{v:g}" for v in values)
