"""Quantised graphs made by hand, without ONNX: a builder with a method per operator, seeded weights and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tinytrain_compiler.boards import load_board
from tinytrain_compiler.codegen.emit import ModelInfo
from tinytrain_compiler.graph import Graph, Node, Quantization, Tensor, verify
from tinytrain_compiler.lowering import Lowered, emit, lower
from tinytrain_compiler.memory import MemoryPlan, Placement
from tinytrain_compiler.ops.add import AddAttributes
from tinytrain_compiler.ops.avg_pool import AvgPoolAttributes
from tinytrain_compiler.ops.broadcast import BroadcastAttributes
from tinytrain_compiler.ops.broadcast_add import BroadcastAddAttributes
from tinytrain_compiler.ops.concat import ConcatAttributes
from tinytrain_compiler.ops.conv2d import Conv2dAttributes
from tinytrain_compiler.ops.fully_connected import FullyConnectedAttributes
from tinytrain_compiler.ops.layer_norm import LayerNormAttributes
from tinytrain_compiler.ops.lookup import LookupAttributes
from tinytrain_compiler.ops.matmul import MatMulAttributes
from tinytrain_compiler.ops.max_pool import MaxPoolAttributes
from tinytrain_compiler.ops.reshape import ReshapeAttributes
from tinytrain_compiler.ops.softmax import SoftmaxAttributes
from tinytrain_compiler.ops.take import TakeAttributes
from tinytrain_compiler.ops.transpose import TransposeAttributes
from tinytrain_compiler.ops.window import Window
from tinytrain_compiler.targets.host import HostLayout
from tinytrain_compiler.training.scheme import Scheme

Shape = tuple[int, ...]
Limits = tuple[int, int]
ALL = (-128, 127)
SPREAD = 60.0  # standard deviation, in steps, that outputs of weighted layers aim at
UNIFORM = 74.0  # standard deviation of uniform bytes


class GraphBuilder:
    """Adds nodes one by one; every method returns the name of the node's output tensor.

    factor: the real requantisation factor of the layer's first channel; None for one that spreads the
    output over its range. 0.5 and more make the layer's shift positive. wide: biases so large that the
    accumulator does not fit 32 bits once it is shifted.
    """

    def __init__(self, shape: Shape, scale: float = 0.05, zero: int = -3, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.input = "input"
        self.tensors = {"input": Tensor("input", shape, Quantization(scale, zero))}
        self.nodes: list[Node] = []

    def build(self, output: str | None = None, features: str | None = None) -> Graph:
        output = output or self.nodes[-1].output
        graph = Graph(self.input, output, features or output, dict(self.tensors), list(self.nodes))
        verify(graph, after="the test's builder")
        return graph

    # -- operators with weights ------------------------------------------------------------------

    def conv2d(
        self,
        x: str,
        out: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        groups: int = 1,
        zero: int = 5,
        limits: Limits = ALL,
        factor: float | None = None,
        wide: bool = False,
        name: str | None = None,
        **window: tuple[int, int],
    ) -> str:
        h, w, c = self.tensors[x].shape
        win = Window(kernel, **window)
        constants, scale = self._weights(x, (out, *kernel, c // groups), factor, wide)
        shape = (*win.output_size(h, w), out)
        return self._add(
            "conv2d", (x,), shape, Quantization(scale, zero), Conv2dAttributes(win, groups, *limits), constants, name
        )

    def depthwise(
        self,
        x: str,
        kernel: tuple[int, int] = (3, 3),
        *,
        zero: int = 5,
        limits: Limits = ALL,
        factor: float | None = None,
        wide: bool = False,
        name: str | None = None,
        **window: tuple[int, int],
    ) -> str:
        h, w, c = self.tensors[x].shape
        win = Window(kernel, **window)
        constants, scale = self._weights(x, (c, *kernel, 1), factor, wide)
        attributes = Conv2dAttributes(win, c, *limits)
        shape = (*win.output_size(h, w), c)
        return self._add("depthwise_conv2d", (x,), shape, Quantization(scale, zero), attributes, constants, name)

    def fully_connected(
        self,
        x: str,
        out: int,
        *,
        zero: int = 5,
        limits: Limits = ALL,
        factor: float | None = None,
        wide: bool = False,
        name: str | None = None,
    ) -> str:
        constants, scale = self._weights(x, (out, self.tensors[x].bytes), factor, wide)
        attributes = FullyConnectedAttributes(*limits)
        return self._add("fully_connected", (x,), (out,), Quantization(scale, zero), attributes, constants, name)

    # -- operators without -----------------------------------------------------------------------

    def add(
        self,
        a: str,
        b: str,
        *,
        scale: float | None = None,
        zero: int = 2,
        limits: Limits = ALL,
        name: str | None = None,
    ) -> str:
        scale = scale or 1.2 * max(self.tensors[t].quantization.scale for t in (a, b))
        q = Quantization(scale, zero)
        return self._add("add", (a, b), self.tensors[a].shape, q, AddAttributes(*limits), name=name)

    def transpose(
        self, x: str, sizes: Sequence[int], perm: Sequence[int], shape: Shape, name: str | None = None
    ) -> str:
        """The input's memory as an array of these sizes, its axes permuted, in this shape."""
        attributes = TransposeAttributes(tuple(sizes), tuple(perm))
        return self._add("transpose", (x,), shape, self.tensors[x].quantization, attributes, name=name)

    def avg_pool(
        self,
        x: str,
        kernel: tuple[int, int] | None = None,
        *,
        ratio: float = 0.8,
        zero: int = -1,
        limits: Limits = ALL,
        count_include_pad: bool = False,
        raw_mean: bool = False,
        name: str | None = None,
        **window: tuple[int, int],
    ) -> str:
        """ratio: the output's scale in the input's. No kernel: the whole image. raw_mean: with the input's scale."""
        tensor = self.tensors[x]
        h, w, c = tensor.shape
        win = Window(kernel, **window) if kernel else Window((h, w), (h, w))
        q = tensor.quantization if raw_mean else Quantization(tensor.quantization.scale * ratio, zero)
        attributes = AvgPoolAttributes(win, count_include_pad, *limits, raw_mean=raw_mean)
        return self._add("avg_pool", (x,), (*win.output_size(h, w), c), q, attributes, name=name)

    def max_pool(
        self,
        x: str,
        kernel: tuple[int, int],
        *,
        limits: Limits = ALL,
        name: str | None = None,
        **window: tuple[int, int],
    ) -> str:
        tensor = self.tensors[x]
        h, w, c = tensor.shape
        win = Window(kernel, **window)
        attributes = MaxPoolAttributes(win, *limits)
        return self._add("max_pool", (x,), (*win.output_size(h, w), c), tensor.quantization, attributes, name=name)

    def lookup(
        self, x: str, *, ratio: float = 0.7, zero: int = 9, limits: Limits = ALL, name: str | None = None
    ) -> str:
        tensor = self.tensors[x]
        q = Quantization(tensor.quantization.scale * ratio, zero)
        return self._add("lookup", (x,), tensor.shape, q, LookupAttributes(*limits), name=name)

    def table(self, x: str, *, limits: Limits = ALL, zero: int = 9, name: str | None = None) -> str:
        """x tanh(x), or so, of an input of any scale."""
        tensor = self.tensors[x]
        real = 3 * (np.arange(256, dtype=np.uint8).view(np.int8) - tensor.quantization.zero_point) / 128
        q = Quantization(tensor.quantization.scale, zero)
        steps = real * np.tanh(real) * 128 / 3 + zero
        constants = {
            "table": np.clip(np.rint(steps), -128, 127).astype(np.int8),
            "slopes": np.tanh(real) + real / np.cosh(real) ** 2,
        }
        return self._add("lookup", (x,), tensor.shape, q, LookupAttributes(*limits), constants, name)

    def mul(
        self, a: str, b: str | Shape, *, factor: float = 2e-3, zero: int = -4, limits: Limits = ALL,
        name: str | None = None,
    ) -> str:  # fmt: skip
        """b: a tensor, or the shape of a constant. factor: the requantisation's."""
        inputs, operand, constants, shape = self._operands(a, b)
        scale = self.tensors[a].quantization.scale
        scale *= operand[0] if isinstance(b, tuple) else self.tensors[b].quantization.scale
        attributes = BroadcastAttributes(*limits, *operand)
        return self._add("mul", inputs, shape, Quantization(scale / factor, zero), attributes, constants, name)

    def broadcast_add(
        self, a: str, b: str | Shape, *, signs: tuple[int, int] = (1, 1), scale: float | None = None, zero: int = 2,
        limits: Limits = ALL, name: str | None = None,
    ) -> str:  # fmt: skip
        """b: a tensor, or the shape of a constant."""
        inputs, operand, constants, shape = self._operands(a, b)
        scale = scale or 1.2 * max(
            operand[0] if constants else 0.0, *(self.tensors[t].quantization.scale for t in (a, inputs[-1]))
        )
        attributes = BroadcastAddAttributes(*limits, *operand, *signs)
        return self._add("broadcast_add", inputs, shape, Quantization(scale, zero), attributes, constants, name)

    def _operands(
        self, a: str, b: str | Shape
    ) -> tuple[tuple[str, ...], tuple[float, int], dict[str, NDArray[np.generic]], Shape]:
        """Inputs, scale and zero point of a constant, the constant, the output's shape."""
        shape = self.tensors[a].shape
        if isinstance(b, str):
            return (a, b), (1.0, 0), {}, np.broadcast_shapes(shape, self.tensors[b].shape)
        operand = self.rng.integers(-128, 128, b, np.int8)
        return (a,), (0.03, 7), {"operand": operand}, np.broadcast_shapes(shape, b)

    def softmax(
        self, x: str, *, scale: float = 1 / 256, zero: int = -128, axis: int = -1, name: str | None = None
    ) -> str:
        q = Quantization(scale, zero)
        return self._add("softmax", (x,), self.tensors[x].shape, q, SoftmaxAttributes(axis), name=name)

    def matmul(
        self, a: str, b: str, attributes: MatMulAttributes, shape: Shape, *, factor: float | None = None,
        zero: int = 5, name: str | None = None,
    ) -> str:  # fmt: skip
        """factor: the real requantisation factor, without the node's own; None for one that spreads the output."""
        s_a, s_b = (self.tensors[x].quantization.scale for x in (a, b))
        factor = factor or SPREAD / (UNIFORM**2 * attributes.inner**0.5)
        scale = s_a * s_b * attributes.factor / factor
        return self._add("matmul", (a, b), shape, Quantization(scale, zero), attributes, name=name)

    def layer_norm(
        self, x: str, n: int | None = None, *, scale: float = 0.03, epsilon: float = 1e-5, zero: int = 5,
        limits: Limits = ALL, name: str | None = None,
    ) -> str:  # fmt: skip
        """n: elements of a row; None for the last axis. Scales of either sign."""
        tensor = self.tensors[x]
        n = n or tensor.shape[-1]
        parameters = {"scale": self.rng.normal(0.5, 1, n), "shift": self.rng.normal(0, 1, n)}
        attributes = LayerNormAttributes(epsilon, *limits)
        return self._add("layer_norm", (x,), tensor.shape, Quantization(scale, zero), attributes, parameters, name)

    def reshape(self, x: str, shape: Shape | None = None, name: str | None = None) -> str:
        """No shape: a vector."""
        tensor = self.tensors[x]
        return self._add("reshape", (x,), shape or (tensor.bytes,), tensor.quantization, ReshapeAttributes(), name=name)

    def take(self, x: str, *indices: Sequence[int], fill: int = 0, name: str | None = None) -> str:
        """An index list an axis; an empty one is the whole axis."""
        tensor = self.tensors[x]
        shape = tuple(len(some) or size for some, size in zip(indices, tensor.shape, strict=True))
        attributes = TakeAttributes(tuple(map(tuple, indices)), fill)
        return self._add("take", (x,), shape, tensor.quantization, attributes, name=name)

    def concat(
        self, *inputs: str, axis: int, scale: float | None = None, zero: int = 3, limits: Limits = ALL,
        name: str | None = None,
    ) -> str:  # fmt: skip
        """No scale: scale and zero point of the first input."""
        tensors = [self.tensors[x] for x in inputs]
        shape = list(tensors[0].shape)
        shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
        q = Quantization(scale, zero) if scale else tensors[0].quantization
        return self._add("concat", inputs, tuple(shape), q, ConcatAttributes(axis, *limits), name=name)

    # -- internals -------------------------------------------------------------------------------

    def _add(
        self,
        op: str,
        inputs: Sequence[str],
        shape: Shape,
        quantization: Quantization,
        attributes: object,
        constants: dict[str, NDArray[np.generic]] | None = None,
        name: str | None = None,
    ) -> str:
        name = name or f"{op}_{len(self.nodes)}"
        output = f"{name}_out"
        self.tensors[output] = Tensor(output, shape, quantization)
        self.nodes.append(Node(name, op, tuple(inputs), output, attributes, constants or {}))
        return output

    def _weights(
        self, x: str, shape: Shape, factor: float | None, wide: bool
    ) -> tuple[dict[str, NDArray[np.generic]], float]:
        """Constants of a weighted layer, and the scale of its output."""
        out, k = shape[0], int(np.prod(shape[1:]))
        s_x = self.tensors[x].quantization.scale
        aim = SPREAD / (UNIFORM * np.sqrt(k))  # factor times weights' deviation
        if factor is None:
            largest, density, factor = 127, 1.0, aim / 73
        else:
            largest = int(np.clip(aim / factor * 1.7, 1, 127))
            density = min(1.0, (aim / factor) ** 2 * 1.5)
        weights = self.rng.integers(-largest, largest + 1, shape, np.int8)
        weights[self.rng.random(shape) > density] = 0
        weights.reshape(-1)[:1] = largest  # never all zero
        if largest == 127:
            weights.reshape(-1)[-1:] = -128
        weight_scales = 2e-3 * self.rng.uniform(0.4, 1.0, out)
        weight_scales[0] = 2e-3
        bias = np.rint(self.rng.normal(0, 30 / factor, out)).astype(np.int64)
        if wide:
            bias = np.where(self.rng.random(out) < 0.5, -1, 1) * (
                2**31 - 1 - 128 * 255 * k - self.rng.integers(0, 2**20, out)
            )
            weight_scales[1:] = 2e-3 / factor * self.rng.uniform(10, 90, max(out - 1, 0)) / 2**31
        constants = {"weights": weights, "bias": bias.astype(np.int32), "weight_scales": weight_scales}
        return constants, s_x * 2e-3 / factor


def random_inputs(graph: Graph, count: int, seed: int = 0) -> NDArray[np.int8]:
    """(count, bytes): random ones, then all lowest, all highest and both mixed."""
    size = graph.tensors[graph.input].bytes
    rng = np.random.default_rng(seed)
    extremes = [np.full(size, -128), np.full(size, 127), rng.choice([-128, 127], size)]
    return np.concatenate([rng.integers(-128, 128, (count, size), np.int8), np.array(extremes, np.int8)])


def describe(graph: Graph) -> str:
    """What a failing test prints: every node with its attributes."""
    attributes = "\n".join(f"  {node.name}: {node.attributes}" for node in graph.nodes)
    return f"{graph.dump()}\n{attributes}"


def write_model(
    graph: Graph,
    name: str,
    directory: Path,
    board: str | Path = "stm32f746",
    classes: int = 3,
    spaced: bool = False,
    scheme: Scheme | None = None,
) -> Lowered:
    """Plan, generate and write all C of a graph into `directory`.

    spaced: no two buffers share memory and GAP bytes lie between them, which nobody may touch.
    """
    lowered = lower(graph, load_board(board), name, classes, scheme)
    if spaced:
        lowered = replace(lowered, plan=spaced_plan(lowered.plan))
    for path, text in emit(lowered, ModelInfo(name, (), (), classes, None)).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    return lowered


GAP = 64


def spaced_plan(plan: MemoryPlan) -> MemoryPlan:
    """The same buffers one after the other, GAP bytes in front of, between and behind them."""
    places: dict[str, Placement] = {}
    offset = GAP
    for p in plan.placements:
        places[p.buffer.name] = Placement(p.buffer, 0, offset)
        offset += p.buffer.bytes + GAP
    return replace(
        plan,
        placements=tuple(places.values()),
        region_bytes=(offset,),
        region_banks=plan.region_banks[:1],
        scratch={node: places[p.buffer.name] for node, p in plan.scratch.items()},
        tensors={tensor: places[p.buffer.name] for tensor, p in plan.tensors.items()},
    )


def gaps(plan: MemoryPlan) -> NDArray[np.int64]:
    """Offsets of all bytes of the first region that no buffer owns."""
    owned = np.zeros(plan.region_bytes[0], bool)
    for p in plan.placements:
        owned[p.offset : p.offset + p.buffer.bytes] = True
    return np.flatnonzero(~owned)


def model_sources(directory: Path, name: str) -> list[Path]:
    """All C files that make up a compiled model, the runtime among them."""
    own = [directory / f"{name}{part}.c" for part in ("", "_weights", "_kernels", "_kernels_host", "_train")]
    return [path for path in own if path.exists()] + sorted((directory / "runtime").glob("*.c"))


def layout_of(graph: Graph, lowered: Lowered, name: str) -> HostLayout:
    sizes = (graph.tensors[tensor].bytes for tensor in (graph.input, graph.output, graph.features))
    return HostLayout(name, lowered.plan.region_bytes, *sizes)
