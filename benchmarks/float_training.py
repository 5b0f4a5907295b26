"""Few-shot training in float with PyTorch's optimisers: what benchmarks/optimizers.py compares. Needs PyTorch.

The network is the canonical float graph up to its embedding. Nodes that no trained layer leads to run once for each
image; a training step computes the others, for one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from tinytrain_compiler.errors import UnsupportedModelError
from tinytrain_compiler.evaluate.augment import augment
from tinytrain_compiler.evaluate.episodes import Episode
from tinytrain_compiler.graph import Quantization
from tinytrain_compiler.ops import Int8
from tinytrain_compiler.reference.draws import mix
from tinytrain_compiler.training.norms import BIAS_RATE_MULTIPLIER
from tinytrain_compiler.training.scheme import Scheme
from tinytrain_compiler.training.visits import visiting_order
from torch import Tensor

SCALE = 10.0  # logit = 10 cos(embedding, class mean)
Values = dict[str, Tensor]  # tensors of the graph by name, batch first


class Normalized(torch.optim.Optimizer):
    """Steps of lr |w| g / sqrt(v): |w| the tensor's norm when training began, v the mean of |g|^2 in all steps before.

    The first step only measures, and biases go BIAS_RATE_MULTIPLIER times as far. numerics.md, "Updates".
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})
        for p in (p for group in self.param_groups for p in group["params"]):
            multiplier = BIAS_RATE_MULTIPLIER if p.ndim == 1 else 1
            self.state[p] = {"norm": multiplier * float(p.detach().norm()), "v": 0.0, "seen": 0}

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                s = self.state[p]
                if s["v"] > 0:
                    p.add_(p.grad, alpha=-group["lr"] * s["norm"] / math.sqrt(s["v"]))
                s["seen"] += 1
                s["v"] += (float(p.grad.square().sum()) - s["v"]) / s["seen"]


@dataclass(frozen=True)
class Rule:
    """An optimiser. scaled: its rate is multiplied by E / sqrt(N), as the device's is."""

    make: Callable[[list[Tensor]], torch.optim.Optimizer]
    per_value: int = 0  # float32 it keeps for each trained value
    per_tensor: int = 0  # and for each tensor
    scaled: bool = False

    def state_bytes(self, values: int, tensors: int) -> int:
        return 4 * (self.per_value * values + self.per_tensor * tensors)


RULES = {
    "SGD": Rule(lambda p: torch.optim.SGD(p, lr=0)),
    "momentum 0.9": Rule(lambda p: torch.optim.SGD(p, lr=0, momentum=0.9), per_value=1),
    "Adam": Rule(lambda p: torch.optim.Adam(p, lr=0), per_value=2),
    "Adam, rate E / sqrt(N)": Rule(lambda p: torch.optim.Adam(p, lr=0), per_value=2, scaled=True),
    "normalised": Rule(lambda p: Normalized(p, lr=0), per_tensor=1, scaled=True),
}


@dataclass(frozen=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Network:
    """A canonical float model (frontends/onnx/canonicalize.py) up to its embedding, and what of it learns.

    Errors: UnsupportedModelError for an operator it does not know.
    """

    def __init__(self, proto: onnx.ModelProto, features: str, scheme: Scheme) -> None:
        self.input, self.features = proto.graph.input[0].name, features
        self._constants = {i.name: torch.tensor(numpy_helper.to_array(i)) for i in proto.graph.initializer}
        self._chosen: dict[str, tuple[int, Tensor]] = {}  # weights: the axis of what learns, and where on it
        self.pretrained: Values = {}
        trained: set[str] = set()
        self._frozen: list[Node] = []
        self._learning: list[Node] = []
        for found in _ancestors(proto.graph.node, features):
            if found.op_type not in OPERATORS:
                raise UnsupportedModelError(f"{found.name}: this benchmark has no {found.op_type}; use another model")
            attributes = {a.name: helper.get_attribute_value(a) for a in found.attribute}
            node = Node(found.op_type, tuple(found.input), found.output[0], attributes)
            if found.name in scheme.layers:
                self._add(node, scheme.layers[found.name].channels)
            if found.name in scheme.layers or trained & set(node.inputs):
                self._learning.append(node)
                trained.add(node.output)
            else:
                self._frozen.append(node)
        made = {node.output for node in self._frozen} | {self.input}
        self._boundary = sorted({name for node in self._learning for name in node.inputs} & made)

    def _add(self, node: Node, channels: Sequence[int]) -> None:
        _, weight, bias = node.inputs
        self.pretrained[bias] = self._constants[bias]
        if channels:
            axis = 1 if node.attributes.get("group", 1) == 1 else 0  # a depthwise layer's channel is an output
            self._chosen[weight] = axis, torch.tensor(channels)
            self.pretrained[weight] = self._constants[weight].index_select(*self._chosen[weight])

    def frozen(self, x: Tensor) -> Values:
        """What the rest of the network needs of inputs (n, C, H, W)."""
        with torch.no_grad():
            values = self._run(self._frozen, {self.input: x}, self._constants)
        return {name: values[name] for name in self._boundary}

    def embed(self, frozen: Values, trained: Values) -> Tensor:
        """Embeddings (n, features). trained: in place of what is pretrained."""
        constants = dict(self._constants)
        for name, value in trained.items():
            if name in self._chosen:
                value = constants[name].index_copy(*self._chosen[name], value)
            constants[name] = value
        return self._run(self._learning, frozen, constants)[self.features].flatten(1)

    @staticmethod
    def _run(nodes: Sequence[Node], given: Values, constants: Values) -> Values:
        values = dict(given)
        for node in nodes:
            arguments = [values[name] if name in values else constants[name] for name in node.inputs]
            values[node.output] = OPERATORS[node.op](node.attributes, *arguments)
        return values


def _ancestors(nodes: Sequence[onnx.NodeProto], tensor: str) -> list[onnx.NodeProto]:
    """The nodes that a tensor is computed by, in execution order."""
    wanted, found = {tensor}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _conv(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    padding = (top, left)
    if padding != (bottom, right):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    return F.conv2d(x, weight, bias, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "Gemm": lambda a, x, weight, bias: F.linear(x, weight, bias),  # canonical: transB = 1
    "Relu": lambda a, x: x.relu(),
    "Clip": lambda a, x, low, high: x.clamp(float(low), float(high)),
    "Add": lambda a, x, y: x + y,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "Reshape": lambda a, x, shape: x.flatten(1),  # in front of an embedding
}


class Task:
    """An episode as the network's trained part sees it. The same images for every optimiser."""

    def __init__(
        self, network: Network, inputs: Int8, quantization: Quantization, episode: Episode, epochs: int, seed: int
    ) -> None:
        """inputs: int8 (n, H, W, C), support first, then queries."""

        def frozen(images: Sequence[Int8]) -> Values:
            x = torch.stack([torch.tensor(p) for p in images])
            real = (x.permute(0, 3, 1, 2).float() - quantization.zero_point) * quantization.scale
            return network.frozen(real.contiguous())

        count = len(episode.support)
        self.network, self.way, self.seed = network, episode.way, seed
        self.labels = torch.tensor([label for label, _ in episode.support])
        self._query_labels = torch.tensor([label for label, _ in episode.query])
        self._support, self._query = frozen(list(inputs[:count])), frozen(list(inputs[count:]))
        zero = quantization.zero_point
        self._augmented = [
            frozen([augment(inputs[i], zero, mix(seed, epoch, i)) for i in range(count)]) for epoch in range(epochs)
        ]

    def accuracy(self, rule: Rule | None, rate: float) -> float:
        """% of the queries after training; None: of prototypes alone."""
        trained = {name: value.clone().requires_grad_() for name, value in self.network.pretrained.items()}
        if rule is not None:
            self._train(trained, rule, rate)
        with torch.inference_mode():
            logits = self._logits(self.network.embed(self._query, trained), self._prototypes(trained))
        return 100 * int((logits.argmax(1) == self._query_labels).sum()) / len(self._query_labels)

    def _train(self, trained: Values, rule: Rule, rate: float) -> None:
        """One sample a step; the rate falls linearly to 0."""
        optimizer = rule.make(list(trained.values()))
        count, epochs = len(self.labels), len(self._augmented)
        initial = 0.0  # mean error of the first epoch, while it runs of its samples so far
        for epoch, images in enumerate(self._augmented):
            prototypes = self._prototypes(trained)
            total = 0.0
            for done, i in enumerate(visiting_order(count, epoch, self.seed), 1):
                factor = initial / math.sqrt(count) if rule.scaled else 1.0
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor * (epochs - epoch) / epochs
                one = {name: value[i : i + 1] for name, value in images.items()}
                logits = self._logits(self.network.embed(one, trained), prototypes)
                loss = F.cross_entropy(logits, self.labels[i : i + 1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += 1 - math.exp(-loss.item())
                initial = total / done if epoch == 0 else initial

    def _prototypes(self, trained: Values) -> Tensor:
        """Class means of the clean support images (way, features), constants of the loss."""
        with torch.no_grad():
            features = self.network.embed(self._support, trained)
            return torch.zeros(self.way, features.shape[1]).index_add_(0, self.labels, features)

    @staticmethod
    def _logits(features: Tensor, prototypes: Tensor) -> Tensor:
        return SCALE * F.normalize(features) @ F.normalize(prototypes).T
