"""The C kernel of a node: which template, with which constants, and how large it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..boards import Board
from .variants import PORTABLE, variants_of

WIDE_CODE = 300  # bytes of code of a requantisation in 64 bits


def input_names(count: int) -> tuple[str, ...]:
    """What a kernel calls its inputs."""
    return {1: ("x",), 2: ("a", "b")}.get(count) or tuple(f"x{i}" for i in range(count))


@dataclass(frozen=True)
class Kernel:
    """A C function, and what one node gives to it.

    Nodes whose kernels are equal in `template`, `shape` and `inline` share one function; `arrays` and `scalars` are
    the node's own and reach it through a parameter struct in flash, `arguments` in the call.

    `code` holds bytes of machine code by variant. Not of each shape alone but summed over a network they are upper
    bounds, with a margin for other versions of GCC than the 12.2 they were measured with; tests/test_code_size.py
    holds real firmware against them.
    """

    template: str  # templates/kernels/<template>.<variant>.c.j2
    symbol: str  # C identifier without the model's prefix, says operator and shape
    params_type: str  # struct of runtime_c/tt_kernel.h
    shape: Mapping[str, int]  # constants baked into the function
    code: Mapping[str, int]  # variant -> bytes at most; the portable one at least
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # by struct member
    scalars: Mapping[str, int] = field(default_factory=dict)  # by struct member
    inline: Mapping[str, Any] = field(default_factory=dict)  # small tables that the template writes out
    arguments: Mapping[str, int] = field(default_factory=dict)  # the node's own numbers, for whoever writes the call

    def __post_init__(self) -> None:
        if PORTABLE.name not in self.code:
            raise ValueError(f"{self.template}: its record does not say how large the portable kernel gets")

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.template, tuple(sorted(self.shape.items())), repr(self.inline))

    @property
    def flash_bytes(self) -> int:
        return sum(int(array.nbytes) for array in self.arrays.values())

    def code_bytes(self, board: Board) -> int:
        """Of the variant that the board's core runs, at most."""
        return next(self.code[variant.name] for variant in variants_of(board) if variant.name in self.code)
