"""Steps as C. What each kind becomes is in forward_steps.py and, for each gradient format, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from ..graph import Graph, Node
from ..memory import MemoryPlan
from ..ops.kernel import input_names
from ..schedule import Activation, BufferSpec, KernelStep, Loss, Moment, Step
from ..training.layers import LayerState
from ..training.plan import TrainingPlan
from ..training.selection import Candidate
from .backward_kernels import BackwardKernels
from .kernels import KernelTable, KernelUse
from .layout import INDENT, statements
from .names import Names


@dataclass(frozen=True)
class Statement:
    """Lines of C; `when` is the condition under which they run, if not always."""

    lines: Sequence[str]
    when: str = ""


SAVING = "keep > 0"  # conditions: in a forward pass that a backward pass follows,
SELECTING = "fisher != NULL"  # in a backward pass that measures Fisher information,
UPDATING = "fisher == NULL"  # in one that does not

Kind = TypeVar("Kind", bound=Step)
Writer = Callable[["StepText", Any], list[Statement]]


class StepWriters:
    """What each kind of step becomes, by its class."""

    def __init__(self, base: StepWriters | None = None) -> None:
        """base: asked for the kinds that are not here."""
        self._base = base
        self._writers: dict[type[Step], Writer] = {}

    def writes(
        self, kind: type[Kind]
    ) -> Callable[[Callable[[StepText, Kind], list[Statement]]], Callable[[StepText, Kind], list[Statement]]]:
        """Decorator: this function writes steps of this kind."""

        def register(
            writer: Callable[[StepText, Kind], list[Statement]],
        ) -> Callable[[StepText, Kind], list[Statement]]:
            self._writers[kind] = writer
            return writer

        return register

    def of(self, kind: type[Step]) -> Writer:
        if kind in self._writers:
            return self._writers[kind]
        if self._base is None:
            raise NotImplementedError(f"no C is written for {kind.__name__}")
        return self._base.of(kind)


@dataclass
class Block:
    """The C of one moment while it is written: its local variables."""

    node: Node | None = None
    activations: dict[str, str] = field(default_factory=dict)  # tensor -> local pointer
    pointers: dict[BufferSpec, str] = field(default_factory=dict)  # gradient buffer -> local pointer
    has_state: bool = False  # a layer's tt_learn_state


class StepText:
    """Writes the steps of one model. What writers ask for: places, local variables, names."""

    def __init__(
        self, memory: MemoryPlan, names: Names, kernels: KernelTable, writers: StepWriters, element: str = "",
        training: TrainingPlan | None = None, backward: BackwardKernels | None = None,
    ) -> None:  # fmt: skip
        """element: C type of a gradient. training, backward: of models that train."""
        self.graph: Graph = memory.schedule.graph
        self.names, self._memory, self._writers, self._element = names, memory, writers, element
        self._training = training
        self._uses: Mapping[str, KernelUse] = {use.node.name: use for use in kernels.uses}
        self._symbols: Mapping[KernelStep, str] = {} if backward is None else backward.symbols
        self._layers = {} if training is None else {layer.node.name: layer for layer in training.layers}
        selection = None if training is None else training.selection
        self._candidates = {} if selection is None else {c.node.name: c for c in selection.candidates}
        losses = [step for step in memory.schedule.steps("loss") if isinstance(step, Loss)]
        self._exponents = {loss.gradient: "exponent" for loss in losses}
        self._block = Block()

    def lines(self, moment: Moment) -> list[str]:
        """The C of a moment: declarations first, where it needs any."""
        self._block = Block(moment.node)
        statements = [s for step in moment.steps for s in self._writers.of(type(step))(self, step)]
        lines = [line for when, group in groupby(statements, key=lambda s: s.when) for line in _guarded(when, group)]
        activations = [
            f"{'' if name == 'y' else 'const '}int8_t *const {name} = {self.names.address(tensor)};"
            for tensor, name in self._block.activations.items()
        ]
        gradients = [
            f"{self._element} *const {name} = {self.cast(self._element, buffer)};"
            for buffer, name in self._block.pointers.items()
        ]
        return [*activations, *gradients, *lines] if lines else []

    def block(self, moment: Moment) -> list[str]:
        """The same in braces, to stand inside a function."""
        lines = self.lines(moment)
        return ["{", *indented(statements(lines, 2 * INDENT)), "}"] if lines else []

    @property
    def exponents(self) -> list[str]:
        """Variables that backward() declares for the steps written so far."""
        return [name for name in self._exponents.values() if name != "exponent"]

    # -- places ----------------------------------------------------------------------------------

    def at(self, buffer: BufferSpec) -> str:
        """C expression of its address, an int8_t pointer."""
        return f"r{self._memory.scratch[buffer.name].region} + {self.names.scratch[buffer.name]}"

    def cast(self, c_type: str, buffer: BufferSpec) -> str:
        return f"({c_type} *)(void *)({self.at(buffer)})"

    def activation(self, tensor: Activation) -> str:
        """Its local pointer: x, or a and b, or x0, x1, ... are the inputs of the block's node, y is its output."""
        node = self._block.node
        assert node is not None
        inputs = [name for source, name in zip(node.inputs, input_names(len(node.inputs)), strict=True)
                  if source == tensor.name]  # fmt: skip
        return self._block.activations.setdefault(tensor.name, [*inputs, "y"][0])

    def working(self, buffer: BufferSpec | None) -> str:
        """A kernel's last argument, if it takes any scratch memory."""
        return "" if buffer is None else f", {self.at(buffer)}"

    def count(self, tensor: str) -> int:
        """Elements of a tensor."""
        return self.graph.tensors[tensor].bytes

    def saved_inputs(self, node: Node, buffer: BufferSpec) -> str:
        """The saved input channels of a layer; a candidate's lie where the selection put them."""
        return self.at(buffer) + (" + state.saved" if node.name in self._candidates else "")

    # -- local variables -------------------------------------------------------------------------

    def gradient(self, buffer: BufferSpec) -> str:
        """A gradient's local pointer: g is the output's, dx an input's."""
        taken = len(self._block.pointers)
        return self._block.pointers.setdefault(buffer, "g" if not taken else "dx" if taken == 1 else f"dx{taken}")

    def exponent(self, buffer: BufferSpec) -> str:
        """The C variable that holds a gradient's exponent."""
        name = self.names.local_buffer(buffer.name).removeprefix("gradient_of_")
        return self._exponents.setdefault(buffer, f"exponent_of_{name}")

    def state(self, node: Node, buffer: BufferSpec) -> list[str]:
        """The declaration of `state`, where a layer's training state is; once in a block."""
        if self._block.has_state:
            return []
        self._block.has_state = True
        return [f"const tt_learn_state state = {self.names.of('state_of', node)}({self.at(buffer)});"]

    # -- what trains -----------------------------------------------------------------------------

    def layer(self, node: Node) -> LayerState:
        return self._layers[node.name]

    def candidate(self, node: Node) -> Candidate:
        return self._candidates[node.name]

    @property
    def selects(self) -> bool:
        """Whether the backward pass also runs to measure Fisher information, without updates."""
        return bool(self._candidates)

    # -- functions -------------------------------------------------------------------------------

    def use(self, node: Node) -> KernelUse | None:
        """The forward kernel of a node; None where it has no code."""
        return self._uses.get(node.name)

    def symbol(self, step: KernelStep) -> str:
        """The C function of a step of the backward pass, or of one that saves something for it."""
        return self._symbols[step]


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _guarded(when: str, statements: Iterable[Statement]) -> list[str]:
    lines = [line for statement in statements for line in statement.lines]
    return [f"if ({when}) {{", *indented(lines), "}"] if when and lines else lines
