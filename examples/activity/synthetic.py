"""A pack of made-up accelerometer windows, to try the example without any data of people.

    python examples/activity/synthetic.py PACK.npz

Each person has a pace, a strength of movement and a way to wear the sensor. `signals` (n, 3, 128) are in g at 50 Hz,
with `labels`, `class_names` and `subject`. NumPy alone; the same numbers each time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PEOPLE, WINDOWS, STEPS, RATE = 8, 30, 128, 50
ACTIVITIES = {"sit": (0.0, 0.0), "walk": (1.7, 0.35), "stairs": (1.4, 0.5), "run": (2.6, 1.1)}  # Hz, g
NOISE = 0.08  # g


def window(rng: np.random.Generator, hertz: float, strength: float) -> NDArray[np.float64]:
    """(3, steps): gravity on the last axis, steps and half as fast a sway, before the sensor is turned."""
    phase = 2 * np.pi * (hertz * rng.uniform(0.93, 1.07) * np.arange(STEPS) / RATE + rng.random())
    up = 1 + strength * (np.sin(phase) + 0.4 * np.sin(2 * phase + 1))
    ahead, aside = 0.5 * strength * np.cos(phase), 0.3 * strength * np.sin(phase / 2)
    return np.stack([ahead, aside, up]) + NOISE * rng.standard_normal((3, STEPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    file = parser.parse_args().pack
    rng = np.random.default_rng(0)
    signals, labels, subject = [], [], []
    for person in range(PEOPLE):
        turned, upper = np.linalg.qr(np.eye(3) + 0.3 * rng.standard_normal((3, 3)))
        turned = turned * np.sign(np.diag(upper))
        pace, force = rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.3)
        for label, (hertz, strength) in enumerate(ACTIVITIES.values()):
            for _ in range(WINDOWS):
                signals.append(turned @ window(rng, pace * hertz, force * strength))
                labels.append(label)
                subject.append(person)
    names = np.array(list(ACTIVITIES))
    np.savez_compressed(file, signals=np.array(signals, np.float32), labels=labels, subject=subject, class_names=names)


if __name__ == "__main__":
    main()
