"""What one operator record holds, and the registry of all records.

Everything the compiler knows of an operator is in its record: integer forward pass, MACs, scratch
memory, whether it may work in place, which C kernel computes it with which constants, how gradients
pass it and how its weights learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..graph import Node, Tensor
from ..resources import add_templates
from .arrays import Int8
from .backward import Backward, NoBackwardRuleError
from .kernel import Kernel
from .weight_rule import WeightRule


class Operator(ABC):
    """One operator of the quantised graph. Records are stateless; a node carries what varies.

    The class, a folder of templates (`templates/kernels/<name>/`), a builder of the importer and its support rule are
    all there is to an operator; docs/contributing/operator.md has an example.
    """

    name: str
    attributes: type  # the frozen dataclass of its nodes' attributes
    clips = False  # a Relu of the model may have become its limits: saturation there is the model's, not an accident
    keeps_scale = False  # output and input share scale and zero point
    keeps_order = False  # each output element comes from the input elements at its own place in memory
    classifies = False  # the last of these may be a network's classifier, and its input the embedding
    keeps_bytes = False  # the output is the input under another shape: no code, no memory
    backward: Backward | None = None  # how gradients pass it; None: they cannot
    weights: WeightRule | None = None  # how its weights learn; None: it has none

    @abstractmethod
    def forward(self, node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Int8]) -> Int8:
        """The integer arithmetic of docs/reference/numerics.md, in NumPy: the oracle of every test."""

    @abstractmethod
    def kernel(self, node: Node, tensors: Mapping[str, Tensor]) -> Kernel | None:
        """The C kernel, or None where the output is the input under another shape."""

    def macs(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Multiply-accumulates of one forward pass."""
        return 0

    def scratch_bytes(self, node: Node, tensors: Mapping[str, Tensor]) -> int:
        """Working memory of the kernel, live only while it runs; enough for every kernel variant."""
        return 0

    def in_place(self, node: Node, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Inputs (indices) whose memory the output may take over, when nobody else reads them later."""
        return ()


_REGISTRY: dict[str, Operator] = {}


def register(operator: Operator, templates: Path | None = None) -> Operator:
    """templates: a folder with the operator's kernels/<name>/, for one that is kept outside of this package."""
    _REGISTRY[operator.name] = operator
    if templates is not None:
        add_templates(templates)
    return operator


def operator_of(node: Node) -> Operator:
    return _REGISTRY[node.op]


def backward_of(node: Node) -> Backward:
    """Raises NoBackwardRuleError where gradients cannot pass."""
    operator = operator_of(node)
    if operator.backward is None:
        raise NoBackwardRuleError(f"{node.name}: {operator.name} has no backward rule")
    return operator.backward


def weights_of(node: Node) -> WeightRule:
    """Raises NoBackwardRuleError where there is nothing to learn."""
    operator = operator_of(node)
    if operator.weights is None:
        raise NoBackwardRuleError(f"{node.name}: {operator.name} cannot learn its weights")
    return operator.weights


def registered() -> Mapping[str, Operator]:
    return dict(sorted(_REGISTRY.items()))
