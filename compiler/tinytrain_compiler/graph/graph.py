"""Tensors, nodes and the graph, with the verifier that runs after every pass.

Layout: activations are NHWC with batch 1, so a shape is (H, W, C) for images and (F,) for vectors.
Nodes are kept in execution order. Each node writes one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .quantization import Quantization


class GraphError(AssertionError):
    """The graph is not well formed: a bug in the pass that made it."""


@dataclass(frozen=True)
class Tensor:
    """One int8 activation."""

    name: str
    shape: tuple[int, ...]  # (H, W, C) or (F,)
    quantization: Quantization

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Node:
    """One operator. `attributes` is the operator's own frozen dataclass; `constants` its arrays, by role."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Any
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass
class Graph:
    """A network: one int8 input, one int8 output, and the embedding that few-shot heads use."""

    input: str
    output: str
    features: str  # the tensor in front of the classifier; `output` where there is none
    tensors: dict[str, Tensor]
    nodes: list[Node]
    origins: dict[str, str] = field(default_factory=dict)  # tensor -> its name in the oracle's model

    def consumers(self, tensor: str) -> list[Node]:
        return [node for node in self.nodes if tensor in node.inputs]

    def producer(self, tensor: str) -> Node | None:
        return next((node for node in self.nodes if node.output == tensor), None)

    def input_tensors(self, node: Node) -> list[Tensor]:
        return [self.tensors[name] for name in node.inputs]

    def dump(self) -> str:
        """The graph as text, a line a node; also of one that is not well formed."""

        def shown(name: str, quantized: bool) -> str:
            tensor = self.tensors.get(name)
            if tensor is None:
                return f"{name} (unknown)"
            q = tensor.quantization
            return f"{name} {tensor.shape}" + (f" scale={q.scale:.6g} zero={q.zero_point}" if quantized else "")

        lines = [f"input {shown(self.input, quantized=False)}"]
        lines += [
            f"{shown(node.output, quantized=True)} = {node.op}({', '.join(node.inputs)}) '{node.name}'"
            for node in self.nodes
        ]
        return "\n".join([*lines, f"features {self.features}", f"output {self.output}"])


def verify(graph: Graph, after: str) -> None:
    """Raise GraphError, naming the pass, where the graph is not well formed."""

    def check(condition: bool, what: str) -> None:
        if not condition:
            raise GraphError(f"after {after}: {what}\n{graph.dump()}")

    known = {graph.input}
    check(graph.input in graph.tensors, f"input {graph.input} is not a tensor")
    names: set[str] = set()
    for node in graph.nodes:
        check(node.name not in names, f"two nodes are called {node.name}")
        names.add(node.name)
        for name in node.inputs:
            check(name in known, f"{node.name} reads {name} before it is written")
        check(node.output in graph.tensors, f"{node.name} writes the unknown tensor {node.output}")
        check(node.output not in known, f"{node.output} is written twice")
        known.add(node.output)
    check(graph.output in known, f"output {graph.output} is never written")
    check(graph.features in known, f"features {graph.features} are never written")
    for tensor in graph.tensors.values():
        q = tensor.quantization
        check(np.isfinite(q.scale) and q.scale > 0, f"{tensor.name} has scale {q.scale}")
        check(-128 <= q.zero_point <= 127, f"{tensor.name} has zero point {q.zero_point}")
        check(len(tensor.shape) in (1, 3) and min(tensor.shape) > 0, f"{tensor.name} has shape {tensor.shape}")
