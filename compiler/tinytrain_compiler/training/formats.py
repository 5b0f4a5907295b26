"""In which numbers gradients travel and what a weight keeps of its steps. Chosen once, in the training plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..boards import Board
from ..errors import UsageError
from ..graph import Node
from ..ops import Kernel
from ..ops.backward import NoBackwardRuleError
from ..ops.variants import PORTABLE
from ..resources import find_template


@dataclass(frozen=True)
class GradientFormat:
    """One format of the backward pass. The forward pass is int8 in all of them."""

    name: str
    element_bytes: int
    suffix: str  # of its kernels' templates
    needs_fpu: bool
    scratch: bool = True  # whether kernels take the scratch memory that their operators ask for
    ignores: tuple[str, ...] = ()  # constants of the integer kernels that its own have no use for
    code: int | None = None  # bytes of each of its kernels, at most; None: as the operators say

    def kernel(self, kernel: Kernel, node: Node) -> Kernel:
        """This format's version of an integer gradient kernel. Raises NoBackwardRuleError where there is none."""
        template = f"{kernel.template}{self.suffix}"
        if find_template(f"kernels/{template}.{PORTABLE.name}.c.j2") is None:
            raise NoBackwardRuleError(f"{node.name}: {node.op} has no backward rule in {self.name}")
        shape = {key: value for key, value in kernel.shape.items() if key not in self.ignores}
        code = kernel.code if self.code is None else {PORTABLE.name: self.code}
        return replace(kernel, template=template, shape=shape, code=code)

    def check(self, board: Board) -> None:
        """Raise UsageError where the board's core cannot compute in this format in reasonable time."""
        if self.needs_fpu and board.fpu == "none":
            raise UsageError(
                f"--gradients {self.name}: the {board.core} of {board.name} has no FPU; use --gradients int16, or a "
                f"board with one (see `tinytrain boards`)"
            )


@dataclass(frozen=True)
class Rounding:
    """What a selected weight keeps in RAM, and how a step in units of 2**-8 becomes that."""

    name: str
    delta_bytes: int
    c_type: str
    fraction_bits: int  # of a delta
    limit: int  # a delta's largest magnitude

    def kernel(self, kernel: Kernel) -> Kernel:
        """A learning kernel with what its template asks: the deltas' type, and the functions that move them."""
        names = {"delta_type": self.c_type, "move": f"tt_move_{self.name}", "learn": f"tt_learn_{self.name}"}
        return replace(kernel, inline={**kernel.inline, **names})


INT16 = GradientFormat("int16", 2, "", needs_fpu=False)
FLOAT32 = GradientFormat(
    "float32", 4, "_float32", needs_fpu=True, scratch=False, ignores=("COUNT", "EXPONENT", "OVERLAP"), code=2200
)
GRADIENTS: Mapping[str, GradientFormat] = {f.name: f for f in (INT16, FLOAT32)}

NEAREST = Rounding("nearest", 2, "int16_t", 8, 2**15 - 1)
STOCHASTIC = Rounding("stochastic", 1, "int8_t", 0, 2**7 - 1)
ROUNDINGS: Mapping[str, Rounding] = {r.name: r for r in (NEAREST, STOCHASTIC)}


@dataclass(frozen=True)
class Formats:
    """The numbers that one model trains in."""

    gradients: GradientFormat = INT16
    rounding: Rounding = NEAREST


DEFAULT = Formats()


def formats(gradients: str, rounding: str) -> Formats:
    """The formats of two options' values. Raises UsageError for an unknown one."""
    for option, name, known in (("gradients", gradients, GRADIENTS), ("rounding", rounding, ROUNDINGS)):
        if name not in known:
            raise UsageError(f"--{option} {name}: choose one of {', '.join(known)}")
    return Formats(GRADIENTS[gradients], ROUNDINGS[rounding])
