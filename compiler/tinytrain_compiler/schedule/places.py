"""What steps read and write: the graph's activations, and buffers besides them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..runtime_abi import ALIGNMENT

Purpose = Literal["inference", "masks", "saved_inputs", "gradients", "scratch", "parameters", "training_state", "loss"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Activation:
    """A tensor of the graph, by name."""

    name: str


@dataclass(frozen=True)
class BufferSpec:
    """Working memory besides the activations. Its lifetime is that of the steps that use it."""

    name: str  # unique in its schedule
    bytes: int
    purpose: Purpose  # the report accounts for every byte by purpose
    persistent: bool = False  # its contents outlive a pass: live at every moment


Place = Activation | BufferSpec


@dataclass
class BufferNames:
    """Makes the buffers of one schedule; a name that is taken gets a number."""

    taken: set[str] = field(default_factory=set)

    def buffer(self, name: str, size: int, purpose: Purpose, persistent: bool = False) -> BufferSpec:
        unique, number = name, 2
        while unique in self.taken:
            unique, number = f"{name} ({number})", number + 1
        self.taken.add(unique)
        return BufferSpec(unique, size, purpose, persistent)
