"""In which numbers gradients travel. The choice is made once, in the training plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..boards import Board
from ..errors import UsageError
from ..graph import Node
from ..ops.base import Kernel, NoBackwardRuleError
from ..resources import TEMPLATES


@dataclass(frozen=True)
class GradientFormat:
    """One format of the backward pass. The forward pass is int8 in all of them."""

    name: str
    element_bytes: int
    folder: str  # of its kernel templates, below templates/kernels/<variant>/
    needs_fpu: bool
    ignores: tuple[str, ...] = ()  # constants of the integer kernels that its own have no use for

    def kernel(self, kernel: Kernel, node: Node) -> Kernel:
        """This format's version of an integer gradient kernel. Raises NoBackwardRuleError where there is none."""
        template = f"{self.folder}{kernel.template}"
        if not (TEMPLATES / f"kernels/portable/{template}.c.j2").exists():
            raise NoBackwardRuleError(f"{node.name}: {node.op} has no backward rule in {self.name}")
        shape = {key: value for key, value in kernel.shape.items() if key not in self.ignores}
        return replace(kernel, template=template, shape=shape)

    def check(self, board: Board) -> None:
        """Raise UsageError where the board's core cannot compute in this format in reasonable time."""
        if self.needs_fpu and board.fpu == "none":
            raise UsageError(
                f"--gradients {self.name}: the {board.core} of {board.name} has no FPU; use --gradients int16, or a "
                f"board with one (see `tinytrain boards`)"
            )


INT16 = GradientFormat("int16", 2, "", needs_fpu=False)
FLOAT32 = GradientFormat(
    "float32", 4, "float32/", needs_fpu=True, ignores=("L1", "DROP", "COUNT", "EXPONENT", "OVERLAP")
)
GRADIENTS: Mapping[str, GradientFormat] = {f.name: f for f in (INT16, FLOAT32)}


def gradient_format(name: str) -> GradientFormat:
    """The format of an option's value. Raises UsageError for an unknown one."""
    if name not in GRADIENTS:
        raise UsageError(f"--gradients {name}: choose one of {', '.join(GRADIENTS)}")
    return GRADIENTS[name]
