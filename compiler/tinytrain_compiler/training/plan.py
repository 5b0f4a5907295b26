"""The training pass as a list of actions, and the memory that each of them needs, when.

Steps continue the forward pass's: nodes have steps 0 .. n - 1, the loss is step n, and each node of the
backward pass has one step of its own after it. Code generation writes the actions out in order; the
memory planner places the buffers. Both go by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph import Graph, Node
from ..memory import Buffer, Extra, Span, align
from ..ops import operator_of
from ..ops.backward import saves_clip_mask
from ..ops.base import Kernel
from .formats import DEFAULT, Formats
from .scheme import Scheme, backward_nodes

RUNNING_BYTES = 8  # sizeof(tt_running)
LEARNT = "learnt"  # deltas and running means of all layers: live always
LOSS_SCRATCH = "loss terms"


@dataclass(frozen=True)
class Action:
    """One statement of the backward pass. Buffers by name; `tensor` says whose gradient it is about."""

    kind: str  # mask, learn, scale, propagate, add, copy, rename
    node: Node
    tensor: str
    source: str = ""  # buffer
    target: str = ""  # buffer


@dataclass(frozen=True)
class LearntLayer:
    """Where a trained layer's state lies inside the `learnt` buffer; offsets and counts."""

    node: Node
    chosen: int
    bias_offset: int
    running_offset: int  # weights' and biases' running means
    deltas_offset: int
    deltas: int  # how many


@dataclass
class TrainingPlan:
    """Everything that code generation and the memory planner need to know about training."""

    scheme: Scheme
    layers: list[LearntLayer]
    learnt_bytes: int
    formats: Formats = DEFAULT
    masks: dict[str, str] = field(default_factory=dict)  # node -> buffer
    saved: dict[str, str] = field(default_factory=dict)  # node -> buffer with its selected input channels
    forward_parameters: dict[str, str] = field(default_factory=dict)  # node -> buffer for effective weights and biases
    backward_parameters: dict[str, str] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    extra: Extra = field(default_factory=lambda: Extra([], {}))

    def layer(self, node: Node) -> LearntLayer | None:
        return next((layer for layer in self.layers if layer.node.name == node.name), None)

    def gradient_kernel(self, graph: Graph, node: Node) -> Kernel | None:
        """The kernel that takes the node's gradient to its input, in the plan's format; None where it is a copy."""
        layer = self.layer(node)
        kernel = operator_of(node).gradient_kernel(node, graph.tensors, layer is not None and layer.chosen > 0)
        return None if kernel is None else self.formats.gradients.kernel(kernel, node)

    def learning_kernel(self, graph: Graph, node: Node) -> Kernel:
        """The kernel of the node's weight gradient and update, in the plan's format."""
        kernel = operator_of(node).learning_kernel(node, graph.tensors)
        return self.formats.rounding.kernel(self.formats.gradients.kernel(kernel, node))


def parameter_bytes(node: Node, layer: LearntLayer) -> tuple[int, int]:
    """(weights, biases) of a layer's effective copy; no weights where only the bias learns."""
    rows = node.constants["weights"]
    weights = len(rows) * -(-rows[0].size // 4) * 4 if layer.chosen else 0
    biases = -(-len(node.constants["bias"]) // 4) * 4  # depthwise kernels read whole groups of four
    return align(weights), align(4 * biases)


def plan_training(graph: Graph, scheme: Scheme, classes: int, formats: Formats = DEFAULT) -> TrainingPlan:
    """Walk the backward pass once, naming buffers and noting when they live.

    Errors: NoBackwardRuleError naming the operator that lies on the path and has no rule.
    """
    plan = _with_layers(graph, scheme, formats)
    end = len(graph.nodes)  # the loss's step
    visited = backward_nodes(graph, scheme)
    step_of = {node.name: end + 1 + i for i, node in enumerate(visited)}
    last = end + len(visited)
    wanted = {node.output for node in visited}
    forward = {node.name: step for step, node in enumerate(graph.nodes)}
    born: dict[str, int] = {graph.features: end}  # gradient buffer -> first step; named after its first tensor
    dies: dict[str, int] = {}
    buffer_of = {graph.features: graph.features}  # tensor -> gradient buffer
    buffers = [
        Buffer(LEARNT, [Span(0, last, align(plan.learnt_bytes))]),
        Buffer(LOSS_SCRATCH, [Span(end, end, align(16 * classes))]),
    ]

    for node in visited:
        step = step_of[node.name]
        gradient = buffer_of.pop(node.output)
        dies[gradient] = step
        act = _Recorder(plan, node, node.output, gradient)
        if saves_clip_mask(node, graph.tensors):
            plan.masks[node.name] = f"mask of {node.name}"
            words = -(-graph.tensors[node.output].bytes // 32)
            buffers.append(Buffer(plan.masks[node.name], [Span(forward[node.name], step, align(4 * words))]))
            act("mask", plan.masks[node.name])
        layer = plan.layer(node)
        if layer is not None:
            if layer.chosen:
                plan.learning_kernel(graph, node)  # raises where there is none
            buffers += _layer_buffers(graph, plan, node, layer, forward[node.name], step)
            act("learn")
        targets = [name for name in dict.fromkeys(node.inputs) if name in wanted]
        if not targets:
            continue
        kernel = plan.gradient_kernel(graph, node)
        if kernel is not None:
            size = align(formats.gradients.element_bytes * graph.tensors[targets[0]].bytes)
            buffers += _propagate(act, buffer_of, born, dies, targets[0], step, size)
        else:
            _share(act, node, buffer_of, born, dies, targets, gradient, step)
        if layer is not None and layer.chosen and kernel is not None:
            plan.backward_parameters[node.name] = f"parameters of {node.name} (backward)"
            size = sum(parameter_bytes(node, layer))
            buffers.append(Buffer(plan.backward_parameters[node.name], [Span(step, step, size)]))
    sizes = {name: align(formats.gradients.element_bytes * graph.tensors[name].bytes) for name in born}
    buffers += [Buffer(f"gradient of {name}", [Span(born[name], dies[name], sizes[name])]) for name in born]
    plan.extra = Extra(buffers, {graph.features: end})
    return plan


def _with_layers(graph: Graph, scheme: Scheme, formats: Formats) -> TrainingPlan:
    layers, offset = [], 0
    for node in graph.nodes:
        if node.name not in scheme.layers:
            continue
        w = node.constants["weights"]
        chosen = len(scheme.layers[node.name].channels)
        deltas = len(w) * (w.shape[1] * w.shape[2] if w.ndim == 4 else 1) * chosen
        bias_offset = offset
        running_offset = bias_offset + 4 * len(w)
        deltas_offset = running_offset + 2 * RUNNING_BYTES
        offset = -(-(deltas_offset + formats.rounding.delta_bytes * deltas) // 8) * 8
        layers.append(LearntLayer(node, chosen, bias_offset, running_offset, deltas_offset, deltas))
    return TrainingPlan(scheme, layers, offset, formats)


class _Recorder:
    """Appends actions about one node's output gradient."""

    def __init__(self, plan: TrainingPlan, node: Node, tensor: str, buffer: str) -> None:
        self._plan, self._node, self._tensor, self.buffer = plan, node, tensor, buffer

    def __call__(self, kind: str, target: str = "", tensor: str | None = None, source: str | None = None) -> None:
        about = self._tensor if tensor is None else tensor
        self._plan.actions.append(Action(kind, self._node, about, self.buffer if source is None else source, target))


def _layer_buffers(
    graph: Graph, plan: TrainingPlan, node: Node, layer: LearntLayer, forward: int, step: int
) -> list[Buffer]:
    name = plan.forward_parameters[node.name] = f"parameters of {node.name}"
    found = [Buffer(name, [Span(forward, forward, sum(parameter_bytes(node, layer)))])]
    if layer.chosen:
        h, w, _ = graph.tensors[node.inputs[0]].shape
        plan.saved[node.name] = f"inputs of {node.name}"
        found.append(Buffer(plan.saved[node.name], [Span(forward, step, align(h * w * layer.chosen))]))
    return found


def _propagate(
    act: _Recorder, buffer_of: dict[str, str], born: dict[str, int], dies: dict[str, int],
    target: str, step: int, size: int,
) -> list[Buffer]:  # fmt: skip
    """The kernel writes a new buffer, or a temporary one that is then added to what is already there."""
    if target not in buffer_of:
        buffer_of[target], born[target] = target, step
        dies[target] = step
        act("propagate", target)
        return []
    temporary = f"second gradient of {target}"
    act("propagate", temporary)
    act("add", buffer_of[target], tensor=target, source=temporary)
    return [Buffer(temporary, [Span(step, step, size)])]


def _share(
    act: _Recorder, node: Node, buffer_of: dict[str, str], born: dict[str, int], dies: dict[str, int],
    targets: list[str], gradient: str, step: int,
) -> None:  # fmt: skip
    """Operators that pass their gradient on: the last new target takes the buffer over, others get copies.

    An input that is read twice by the same operator gets the gradient twice.
    """
    new = [name for name in targets if name not in buffer_of]
    for name in targets:
        if name in buffer_of:
            for _ in range(node.inputs.count(name)):
                act("add", buffer_of[name], tensor=name)
        elif name != new[-1]:
            buffer_of[name], born[name], dies[name] = name, step, step
            act("copy", name, tensor=name)
    if new:
        buffer_of[new[-1]] = gradient
        act("rename", gradient, tensor=new[-1])
    for name in new:
        if node.inputs.count(name) > 1:
            act("double", buffer_of[name], tensor=name)
