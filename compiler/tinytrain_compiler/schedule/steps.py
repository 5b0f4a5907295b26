"""The kinds of steps. Each says what it reads, what it writes, and what it needs as scratch memory while it runs.

A new kind is a class here, a function that writes its C (codegen/), and a place in a plan that makes it (training/):
memory planning and reports see it through `reads`, `writes` and `scratch`. What is updated in place is read and
written. Steps are compared by identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..graph import Node
from ..ops import Kernel
from .places import Activation, BufferSpec, Place


class Step:
    """One thing that is done at one moment."""

    @property
    def reads(self) -> tuple[Place, ...]:
        return ()

    @property
    def writes(self) -> tuple[Place, ...]:
        return ()

    @property
    def scratch(self) -> tuple[BufferSpec, ...]:
        """Buffers whose contents mean nothing before and after the step."""
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelStep(Step):
    """A step that calls a C function made for its node's shape, besides the node's forward kernel."""

    node: Node
    kernel: Kernel


def _given(place: BufferSpec | None) -> tuple[BufferSpec, ...]:
    return () if place is None else (place,)


# -- forward -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Forward(Step):
    """A node's operator computes its output."""

    node: Node
    parameters: BufferSpec | None = None  # effective weights and biases of a layer that trains
    working: BufferSpec | None = None

    @property
    def inputs(self) -> tuple[Activation, ...]:
        return tuple(Activation(name) for name in self.node.inputs)

    @property
    def output(self) -> Activation:
        return Activation(self.node.output)

    @property
    def reads(self) -> tuple[Place, ...]:
        return (*self.inputs, *_given(self.parameters))

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.output,)

    @property
    def scratch(self) -> tuple[BufferSpec, ...]:
        return _given(self.working)


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveParameters(Step):
    """A layer's weights and biases in flash plus their deltas, as the kernels of this moment read them."""

    node: Node
    state: BufferSpec
    target: BufferSpec
    weight_bytes: int  # of the target, in front of the biases; 0 where only the bias trains
    selecting: bool = False  # only while Fisher information is measured

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.state,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target,)


@dataclass(frozen=True, eq=False, kw_only=True)
class KeepFisherInput(Step):
    """A candidate's whole input is kept for the Fisher pass of its group."""

    node: Node
    source: Activation
    target: BufferSpec
    offset: int  # inside the target
    group: int

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target,)


@dataclass(frozen=True, eq=False, kw_only=True)
class SaveInput(Step):
    """The input channels whose weights train are kept for the weight gradient."""

    node: Node
    source: Activation
    target: BufferSpec
    channels: int  # of the whole input

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target,)


@dataclass(frozen=True, eq=False, kw_only=True)
class SaveMask(Step):
    """One bit for each output element: whether it lies strictly between the clip limits."""

    node: Node
    source: Activation
    mask: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.mask,)


@dataclass(frozen=True, eq=False, kw_only=True)
class SaveArgmaxIndices(KernelStep):
    """What an operator saves for its own backward kernel, such as the argmax indices of a max pool."""

    source: Activation
    argmax_indices: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.argmax_indices,)


# -- loss ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Loss(Step):
    """The head compares the embedding with the label, updates its own weights if it has any, and gives the gradient
    of the embedding."""

    features: Activation
    state: BufferSpec
    gradient: BufferSpec
    working: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.features, self.state)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.gradient, self.state)

    @property
    def scratch(self) -> tuple[BufferSpec, ...]:
        return (self.working,)


# -- backward ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class ApplyMask(Step):
    """The gradient of output elements that were clipped becomes 0."""

    node: Node
    mask: BufferSpec
    gradient: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.mask, self.gradient)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.gradient,)


@dataclass(frozen=True, eq=False, kw_only=True)
class UpdateBias(Step):
    """A layer's bias deltas move by the gradient of its output, summed over pixels."""

    node: Node
    gradient: BufferSpec
    state: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.gradient, self.state)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.state,)


@dataclass(frozen=True, eq=False, kw_only=True)
class UpdateWeights(KernelStep):
    """The weight gradient of a layer's selected input channels, and the update of their deltas."""

    gradient: BufferSpec
    inputs: BufferSpec  # what SaveInput kept
    state: BufferSpec
    working: BufferSpec | None = None

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.gradient, self.inputs, self.state)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.state,)

    @property
    def scratch(self) -> tuple[BufferSpec, ...]:
        return _given(self.working)


@dataclass(frozen=True, eq=False, kw_only=True)
class InputGradient(KernelStep):
    """The gradient of one of a node's inputs from that of its output, which may be scaled in place on the way.

    target may be the gradient: the kernel works in place.
    """

    gradient: BufferSpec
    target: BufferSpec
    values: Mapping[str, Activation] = field(default_factory=dict)  # inputs that the kernel reads, by its parameter
    parameters: BufferSpec | None = None  # effective weights of a layer that trains; else those in flash
    argmax_indices: BufferSpec | None = None
    working: BufferSpec | None = None
    selecting: bool = False  # only while Fisher information is measured: no earlier layer is trained

    @property
    def scales(self) -> bool:
        """Whether the gradient passes through weights, and is multiplied by their scales first, in place."""
        return "weights" in self.node.constants

    @property
    def has_operand(self) -> bool:
        """Whether the kernel reads a constant that takes the place of an input."""
        return "operand" in self.node.constants

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.gradient, *self.values.values(), *_given(self.parameters), *_given(self.argmax_indices))

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target, self.gradient)

    @property
    def scratch(self) -> tuple[BufferSpec, ...]:
        return _given(self.working)


@dataclass(frozen=True, eq=False, kw_only=True)
class FisherScore(Step):
    """A candidate's input times the gradient that it passes there joins the scores of its input channels."""

    node: Node
    gradient: BufferSpec
    inputs: BufferSpec  # what KeepFisherInput kept
    offset: int  # inside these
    group: int

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.gradient, self.inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class Accumulate(Step):
    """A gradient is added to what has reached the tensor from elsewhere. source may be the target: it doubles."""

    node: Node
    tensor: str
    source: BufferSpec
    target: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source, self.target)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target,)


@dataclass(frozen=True, eq=False, kw_only=True)
class CopyGradient(Step):
    """The output's gradient is also that of one of several inputs."""

    node: Node
    tensor: str
    source: BufferSpec
    target: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.target,)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShareGradient(Step):
    """The output's gradient becomes that of an input, in the same bytes: no code."""

    node: Node
    tensor: str
    gradient: BufferSpec

    @property
    def reads(self) -> tuple[Place, ...]:
        return (self.gradient,)

    @property
    def writes(self) -> tuple[Place, ...]:
        return (self.gradient,)
