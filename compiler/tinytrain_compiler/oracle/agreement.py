"""Operator by operator: how many steps lie between the graph's integers and the oracle's.

Each operator is given the oracle's own inputs, so that one early rounding does not grow through the layers. What
remains is rounding, at most one step (docs/reference/numerics.md, "Against onnxruntime"); more is a wrong answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DisagreementError, shown
from ..graph import Graph, Node
from ..ops import Int8, operator_of
from .oracle import Oracle

STEPS = 256  # distances of two int8 values are below


@dataclass(frozen=True)
class OperatorDistances:
    """A node's output elements by their distance: steps[d] elements are d steps away from the oracle's."""

    node: Node
    steps: NDArray[np.int64]  # (STEPS,)

    @property
    def largest(self) -> int:
        return int(np.flatnonzero(self.steps).max(initial=0))


def distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Histogram (STEPS,) of |a - b|; what is farther counts as the farthest."""
    difference = np.abs(a.astype(np.int64) - b.astype(np.int64)).reshape(-1)
    return np.bincount(np.minimum(difference, STEPS - 1), minlength=STEPS)


def operator_distances(graph: Graph, values: Mapping[str, Int8], sample: int) -> Iterator[OperatorDistances]:
    """Every node whose output the oracle has too, in execution order, for one sample of its tensors.

    A node whose inputs the oracle does not have reads what the nodes before it made of the oracle's.
    """
    known = {name: value[sample] for name, value in values.items()}
    for node in graph.nodes:
        y = operator_of(node).forward(node, graph.tensors, [known[name] for name in node.inputs])
        if node.output in known:
            yield OperatorDistances(node, distances(y, known[node.output]))
        else:
            known[node.output] = y


def check_agreement(graph: Graph, oracle: Oracle, inputs: Int8) -> None:
    """Raise DisagreementError, naming the first operator, where a value is more than one step from the oracle's.

    inputs: int8 (n, bytes).
    """
    values = oracle.tensors(graph, inputs)
    for sample, x in enumerate(inputs):
        if largest := int(np.flatnonzero(distances(x, values[graph.input][sample].reshape(-1))).max(initial=0)):
            raise _disagreement(oracle, f"the input '{shown(graph.input)}'", "some", largest)
        for found in operator_distances(graph, values, sample):
            if found.largest > 1:
                wrong, of = int(found.steps[2:].sum()), int(found.steps.sum())
                where = f"{found.node.op} '{shown(found.node.name)}'"
                raise _disagreement(oracle, where, f"{wrong:,} of its {of:,}", found.largest)


def _disagreement(oracle: Oracle, where: str, wrong: str, largest: int) -> DisagreementError:
    return DisagreementError(
        f"{where} computes something else than {oracle.name} does: on a calibration sample, {wrong} values differ by "
        f"up to {largest} steps of int8, and rounding explains one; please report it with the model",
        {},
    )
