"""What a compile can be told, in one record: command line, banner and manifest are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .training.heads import HEADS, PROTOTYPE, HeadKind
from .training.option import Option, given_options, options_of
from .training.policies import NoPolicy, make_policy, policy_options
from .training.policy import Policy

MEAN = Option(
    "mean", "M[,M,M]", "Subtracted from a pixel, 0..255; one number, or one per channel. Where --mean and --std are at "
    "most 1, pixels are 0..1 (torchvision's way).", tuple,
)  # fmt: skip
STD = Option("std", "S[,S,S]", "Then divided by this.", tuple)
CALIBRATION = Option(
    "calibration", "FILE.npz|DIR",
    "Images or arrays that the int8 ranges come from (default: generated noise, accuracy unverified).", Path,
)  # fmt: skip
NAME = Option("name", "PREFIX", "Prefix of all symbols and files (default: the model file's name).")
CLASSES = Option("classes", "N", "Few-shot classes that can be enrolled.", int, 1)
HEAD = Option("head", "H", "What classifies: see below.", choices=HEADS)
GRADIENTS = Option("gradients", "G", "Number format of the backward pass: int16, or float32 (needs an FPU).")
ROUNDING = Option("rounding", "R", "Of weight updates: nearest, or stochastic (half the training state).")
SRAM = Option("sram", "KIB", "SRAM the model may use, stack included (default: all that the board has).", int, 1)
STORAGE = Option(
    "storage", "S", "Where saved training states go: auto (the last sectors of the board's flash, if they are free), "
    "flash (the same, or it does not fit), none (a place of the application's own).",
)  # fmt: skip
AUDIO = Option(
    "audio", "FILE.toml", "A front end for sound, from these settings of log-mel or MFCC: <name>_audio.h.", Path,
)  # fmt: skip
NO_POLICY = NoPolicy()


@dataclass(frozen=True)
class CompileOptions:
    """All that shapes the output of a compile besides the model and the board. Every field has a default."""

    calibration: Path | None = field(default=None, metadata=CALIBRATION.metadata)  # None: generated noise
    mean: tuple[float, ...] = field(default=(127.5,), metadata=MEAN.metadata)
    std: tuple[float, ...] = field(default=(127.5,), metadata=STD.metadata)
    name: str | None = field(default=None, metadata=NAME.metadata)  # None: the model file's
    classes: int = field(default=10, metadata=CLASSES.metadata)
    policy: Policy = NO_POLICY  # what trains; a record with options of its own
    head: HeadKind = field(default=PROTOTYPE, metadata=HEAD.metadata)
    gradients: str = field(default="int16", metadata=GRADIENTS.metadata)  # training/formats.py
    rounding: str = field(default="nearest", metadata=ROUNDING.metadata)
    sram: int | None = field(default=None, metadata=SRAM.metadata)  # KiB; None: all that the board has
    storage: str = field(default="auto", metadata=STORAGE.metadata)  # fit/storage.py
    audio: Path | None = field(default=None, metadata=AUDIO.metadata)  # None: the application makes the input
    own_normalization: bool = field(default=False, compare=False)  # mean and std are not the model file's to say

    @property
    def sram_bytes(self) -> int | None:
        return None if self.sram is None else 1024 * self.sram

    def normalized_as(self, mean: tuple[float, ...], std: tuple[float, ...]) -> CompileOptions:
        """With what the model file says of mean and std, unless they were given. Either way they then belong to the
        options, at their defaults too, so that the command and the manifest make the same again."""
        default = CompileOptions()
        if self.own_normalization or (self.mean, self.std) != (default.mean, default.std):
            return replace(self, own_normalization=True)
        return replace(self, mean=mean, std=std, own_normalization=True)

    def given(self) -> dict[str, str]:
        """Options by name that differ from their defaults, as the command takes them; of files the name alone."""
        found = {} if self.policy.name == NoPolicy.name else {"policy": self.policy.name}
        if self.own_normalization:
            found |= {"mean": MEAN.text(self.mean), "std": STD.text(self.std)}
        return given_options(self) | found | given_options(self.policy)

    def as_json(self) -> dict[str, Any]:
        """All options by name as JSON values, those at their defaults too."""
        return {
            **{option.name: option.as_json(getattr(self, key)) for key, option in options_of(self).items()},
            "policy": self.policy.name,
            **{
                option.name: option.as_json(getattr(self.policy, key))
                for key, option in options_of(self.policy).items()
            },
        }

    def files(self) -> dict[str, Path]:
        """Files and folders that are read, by option."""
        found = {}
        for record in (self, self.policy):
            for key, option in options_of(record).items():
                path = getattr(record, key)
                if isinstance(path, Path):
                    found[option.name] = path
        return found


def _as_json(record: Any) -> dict[str, Any]:
    return {option.name: option.as_json(getattr(record, key)) for key, option in options_of(record).items()}


def compile_options(given: Mapping[str, Any]) -> CompileOptions:
    """Options from values by option name, of the command line, a manifest or a caller; None: not given.

    A policy is its record or its name; its own options stand beside it.
    Errors: UsageError for an option that does not exist, or does not belong to the policy, and for a wrong value.
    """
    fields, own = options_of(CompileOptions), {option.name for option in policy_options()}
    unknown = set(given) - set(fields) - own - {"policy"}
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    policy = given.get("policy") or NoPolicy.name
    if not isinstance(policy, Policy):
        policy = make_policy(policy, {name: given.get(name) for name in own})
    values = {name: option.parse(given[name]) for name, option in fields.items() if given.get(name) is not None}
    return CompileOptions(policy=policy, own_normalization="mean" in values or "std" in values, **values)
