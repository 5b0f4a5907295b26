"""Tensors, nodes and the graph, with the verifier that runs after every pass.

Activations have batch 1, which no shape shows. Images are (H, W, C), vectors (F,), and operators that need neither
take any shape of up to MAX_RANK axes. Nodes are kept in execution order. Each node writes one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layout import MAX_RANK, Layout
from .quantization import Quantization


class GraphError(AssertionError):
    """The graph is not well formed: a bug in the pass that made it."""


@dataclass(frozen=True)
class Tensor:
    """One int8 activation."""

    name: str
    shape: tuple[int, ...]  # (H, W, C), (F,), or as its operators need it
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


@dataclass(frozen=True)
class Origin:
    """A tensor of the oracle's model, and how it lies on the device."""

    name: str
    layout: Layout


@dataclass
class Graph:
    """A network: one int8 input, one int8 output, and the embedding that few-shot heads use."""

    input: str
    output: str
    features: str  # the tensor in front of the classifier; `output` where there is none
    tensors: dict[str, Tensor]
    nodes: list[Node]
    origins: dict[str, Origin] = field(default_factory=dict)  # by tensor: what it is in the oracle's model
    input_layout: Layout | None = None  # of the file's input and output; None: as images and vectors lie
    output_layout: Layout | None = None

    def consumers(self, tensor: str) -> list[Node]:
        return [node for node in self.nodes if tensor in node.inputs]

    def producer(self, tensor: str) -> Node | None:
        return next((node for node in self.nodes if node.output == tensor), None)

    def input_tensors(self, node: Node) -> list[Tensor]:
        return [self.tensors[name] for name in node.inputs]

    @property
    def sample_layout(self) -> Layout:
        """How a sample of the file's input lies in the input tensor."""
        return self.input_layout or _usual_layout(self.tensors[self.input])

    @property
    def answer_layout(self) -> Layout:
        """How the file's output lies in the output tensor."""
        return self.output_layout or _usual_layout(self.tensors[self.output])

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


def _usual_layout(tensor: Tensor) -> Layout:
    """Of an image (1, C, H, W) or a vector (1, F)."""
    shape = tensor.shape
    return Layout.image((1, shape[2], *shape[:2])) if len(shape) == 3 else Layout.row_major((1, *shape))


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
        possible = 1 <= len(tensor.shape) <= MAX_RANK and min(tensor.shape) > 0
        check(possible, f"{tensor.name} has shape {tensor.shape}")
    for name, origin in graph.origins.items():
        check(name in graph.tensors, f"{name} has an origin and is no tensor")
        check(origin.layout.device == graph.tensors[name].shape, f"{name} lies on the device as {origin.layout}")
    for layout, name in ((graph.sample_layout, graph.input), (graph.answer_layout, graph.output)):
        check(layout.device == graph.tensors[name].shape, f"{name} lies on the device as {layout}")
