"""Means over episodes with their 95 % confidence interval, by Student's t.

"Student", "The probable error of a mean", Biometrika 6(1), 1908.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean in the unit of its values; half_width is of the interval around it, None for a single value."""

    mean: float
    half_width: float | None

    def __format__(self, sign: str) -> str:
        """63.0 ± 1.2; with a sign: f"{difference:+}"."""
        return f"{self.mean:{sign}.1f}" + ("" if self.half_width is None else f" ± {self.half_width:.1f}")

    @property
    def excludes_zero(self) -> bool:
        return self.half_width is not None and abs(self.mean) > self.half_width


@lru_cache(maxsize=256)
def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """t such that |T| <= t with probability `confidence`; degrees of freedom 1 or more."""
    low, high = 0.0, 1.0
    while _inside(high, degrees) < confidence:
        high *= 2
    for _ in range(80):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, degrees) < confidence else (low, middle)
    return high


def _inside(t: float, degrees: int) -> float:
    """P(|T| <= t): the finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine_squared = math.cos(angle) ** 2
    odd = degrees % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine_squared * k / (k + 1)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of independent values, at least one."""
    n = len(values)
    if n == 1:
        return Estimate(float(values[0]), None)
    return Estimate(math.fsum(values) / n, t_quantile(n - 1) * math.sqrt(_variance_of_mean(values)))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """The mean of a - b, episode by episode: both must have run the same ones.

    Episodes differ far more than policies do, so this interval is much narrower than those of a and b.
    """
    return estimate([x - y for x, y in zip(a, b, strict=True)])


def average(groups: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the groups' means, each group counting alike; groups (packs) are fixed, their episodes random.

    Degrees of freedom after Welch and Satterthwaite, rounded down. No interval where a group has one value.
    """
    mean = math.fsum(estimate(group).mean for group in groups) / len(groups)
    if any(len(group) < 2 for group in groups):
        return Estimate(mean, None)
    variances = [_variance_of_mean(group) for group in groups]
    total = math.fsum(variances)
    if total == 0:
        return Estimate(mean, 0.0)
    spread = math.fsum(v * v / (len(group) - 1) for v, group in zip(variances, groups, strict=True))
    degrees = math.floor(total * total / spread + 1e-9)
    return Estimate(mean, t_quantile(degrees) * math.sqrt(total) / len(groups))


def _variance_of_mean(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
