"""What log-mel or MFCC features are made of: the settings file of --audio."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import UsageError
from ..toml_file import read_toml

SPECTRA = ("amplitude", "power")
FILTERS = ("tensorflow", "htk")
LOGS = ("natural", "log10", "decibel")
LEVELS = ("none", "peak")
MAX_FFT = 4096
MAX_BANDS = 256


@dataclass(frozen=True)
class AudioSettings:
    """Numbers of samples, Hz, and which definition is meant where libraries differ."""

    rate: int  # samples a second
    window: int  # samples of a frame, multiplied by a periodic Hann window
    hop: int  # samples from a frame to the next, at most `window`
    bands: int  # mel bands
    low: float  # Hz, lower edge of the first band
    high: float  # Hz, upper edge of the last band, at most rate / 2
    coefficients: int = 0  # cepstra of each frame, from the first; 0: log-mel
    fft: int = 0  # points, a power of two; 0: the smallest that holds a window
    spectrum: str = "amplitude"  # what the bands add up: amplitude, or power
    filters: str = "tensorflow"  # tensorflow: triangles over mel; htk: triangles over Hz, as torchaudio has them
    log: str = "natural"  # natural, log10 or decibel (10 log10)
    floor: float = 1e-6  # added to each band before the logarithm; samples are -1 .. 1
    level: str = "none"  # peak: as if the window had been divided by its largest sample
    quietest: float = 0.01  # of level = "peak": windows with a smaller peak are not made louder than this would be
    mean: float = 0.0  # input = (feature - mean) / std
    std: float = 1.0

    @property
    def points(self) -> int:
        """Of the FFT."""
        return self.fft or 1 << max(self.window - 1, 1).bit_length()

    @property
    def values(self) -> int:
        """Of a frame."""
        return self.coefficients or self.bands


def read_audio_settings(path: Path) -> AudioSettings:
    """The settings in a TOML file. Raises UsageError for a file that is missing or wrong, naming the key."""
    try:
        _, table = read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file of audio settings") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({getattr(error, 'strerror', None) or error})") from error
    types = get_type_hints(AudioSettings)
    for key, value in table.items():
        if key not in types:
            near = get_close_matches(key, types, 1)
            raise UsageError(f"{path}: unknown key '{key}'" + (f", did you mean {near[0]}?" if near else ""))
        table[key] = _value(path, key, value, types[key])
    missing = [
        f.name for f in dataclasses.fields(AudioSettings) if f.name not in table and f.default is f.default_factory
    ]
    if missing:
        raise UsageError(f"{path}: {', '.join(missing)} missing; rate, window, hop, bands, low and high are needed")
    settings = AudioSettings(**table)
    _check(path, settings)
    return settings


def _value(path: Path, key: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        wanted = {int: "a whole number", float: "a number", str: "a text"}[kind]
        raise UsageError(f"{path}: {key} must be {wanted}, not {value!r}")
    return value


def _check(path: Path, s: AudioSettings) -> None:
    """Every limit, with what is wrong and what is allowed."""
    limits = (
        (1000 <= s.rate <= 192_000, f"rate is {s.rate} Hz; 1000 to 192000 are supported"),
        (8 <= s.window <= MAX_FFT, f"window is {s.window} samples; 8 to {MAX_FFT} are supported"),
        (1 <= s.hop <= s.window, f"hop is {s.hop} samples; it must lie between 1 and the window, {s.window}"),
        (1 <= s.bands <= MAX_BANDS, f"bands is {s.bands}; 1 to {MAX_BANDS} are supported"),
        (0 <= s.low < s.high <= s.rate / 2, f"low {s.low:g} and high {s.high:g} Hz must rise, up to rate / 2"),
        (0 <= s.coefficients <= s.bands, f"coefficients is {s.coefficients}; 0 (log-mel) to bands, {s.bands}"),
        (s.points.bit_count() == 1 and s.window <= s.points <= MAX_FFT and s.points >= 16,
         f"fft is {s.points}; a power of two from the window ({s.window}) to {MAX_FFT} is wanted, at least 16"),
        (s.spectrum in SPECTRA, f"spectrum is '{s.spectrum}'; choose one of {', '.join(SPECTRA)}"),
        (s.filters in FILTERS, f"filters is '{s.filters}'; choose one of {', '.join(FILTERS)}"),
        (s.log in LOGS, f"log is '{s.log}'; choose one of {', '.join(LOGS)}"),
        (s.level in LEVELS, f"level is '{s.level}'; choose one of {', '.join(LEVELS)}"),
        (1e-12 <= s.floor <= 1, f"floor is {s.floor:g}; 1e-12 to 1 is supported"),
        (1 / 32768 <= s.quietest <= 1, f"quietest is {s.quietest:g}; 1/32768 to 1 is supported"),
        (abs(s.mean) < 1e6 and 1e-6 < s.std < 1e6, f"mean {s.mean:g} and std {s.std:g}: std must be above 0"),
    )  # fmt: skip
    for holds, what in limits:
        if not holds:
            raise UsageError(f"{path}: {what}")
