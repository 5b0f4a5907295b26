"""The training pass as a list of actions, and the memory that each of them needs, when.

Steps continue the forward pass's: nodes have steps 0 .. n - 1, the loss is step n, and each node of the
backward pass has one step of its own after it. Code generation writes the actions out in order; the
memory planner places the buffers. Both go by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph import Graph, Node
from ..memory import Buffer, Extra, Span, align
from ..ops import Kernel, backward_of, weights_of
from ..ops.clipping import saves_clip_mask
from ..runtime_abi import RUNNING_BYTES, SELECTED_BYTES
from .formats import Formats
from .options import DEFAULT, LearningOptions
from .pool import LEARNT, SAVED, SelectionPlan, plan_pool
from .prefix import Cut, last_cut
from .scheme import Scheme, backward_nodes

LOSS_SCRATCH = "loss terms"


@dataclass(frozen=True)
class Action:
    """One statement of the backward pass. Buffers by name; `tensor` says whose gradient it is about."""

    kind: str  # mask, learn, propagate, fisher, add, copy, rename
    node: Node
    tensor: str
    source: str = ""  # buffer
    target: str = ""  # buffer
    selecting: bool = False  # only while Fisher information is measured: nobody in front learns


@dataclass(frozen=True)
class LearntLayer:
    """Where a trained layer's state lies inside the `learnt` buffer; offsets and counts."""

    node: Node
    chosen: int  # input channels, fixed at compile time; 0 also for a candidate
    limit: int  # input channels, at most
    bias_offset: int
    running_offset: int  # weights' and biases' running means
    deltas_offset: int
    deltas: int  # how many
    selected_offset: int | None = None  # of a candidate: its tt_selected

    @property
    def learns_weights(self) -> bool:
        return self.limit > 0


@dataclass
class TrainingPlan:
    """Everything that code generation and the memory planner need to know about training."""

    scheme: Scheme
    options: LearningOptions
    layers: list[LearntLayer]
    learnt_bytes: int
    cut: Cut
    head_offset: int  # of the head's part inside the `learnt` buffer
    head_bytes: int
    selection: SelectionPlan | None = None
    masks: dict[str, str] = field(default_factory=dict)  # node -> buffer
    saved: dict[str, str] = field(default_factory=dict)  # node -> buffer with its selected input channels
    winners: dict[str, str] = field(default_factory=dict)  # node -> buffer with what its operator saves for itself
    forward_parameters: dict[str, str] = field(default_factory=dict)  # node -> buffer for effective weights and biases
    backward_parameters: dict[str, str] = field(default_factory=dict)
    scratch: dict[str, str] = field(default_factory=dict)  # node -> buffer for its kernels of the backward pass
    actions: list[Action] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)  # C functions of the actions, one for each that calls one
    extra: Extra = field(default_factory=lambda: Extra([], {}))

    @property
    def formats(self) -> Formats:
        return self.options.formats

    def learning_scratch(self, graph: Graph, node: Node) -> int:
        """Working memory of the kernel that updates a layer's weights, for as many channels as may learn."""
        layer = self.layer(node)
        if layer is None or not self.formats.gradients.scratch:
            return 0
        return weights_of(node).scratch_bytes(node, graph.tensors, layer.limit)

    def gradient_scratch(self, graph: Graph, node: Node) -> int:
        """Working memory of the kernel that passes a gradient on."""
        if not self.formats.gradients.scratch:
            return 0
        return backward_of(node).scratch_bytes(node, graph.tensors)

    def gradient_bytes(self, graph: Graph, tensor: str) -> int:
        """Of the buffer that holds a tensor's gradient."""
        return align(self.formats.gradients.element_bytes * graph.tensors[tensor].bytes)

    @property
    def fisher_passes(self) -> int:
        """Over the samples, where the device chooses by what they say."""
        return self.selection.groups if self.selection is not None and self.options.selector.measures else 0

    def layer(self, node: Node) -> LearntLayer | None:
        return next((layer for layer in self.layers if layer.node.name == node.name), None)

    def gradient_kernel(self, graph: Graph, node: Node) -> Kernel | None:
        """The kernel that takes the node's gradient to its input, in the plan's format; None where it is a copy."""
        layer = self.layer(node)
        kernel = backward_of(node).kernel(node, graph.tensors, layer is not None and layer.learns_weights)
        return None if kernel is None else self.formats.gradients.kernel(kernel, node)

    def learning_kernel(self, graph: Graph, node: Node) -> Kernel:
        """The kernel of the node's weight gradient and update, in the plan's format."""
        kernel = weights_of(node).kernel(node, graph.tensors)
        return self.formats.rounding.kernel(self.formats.gradients.kernel(kernel, node))


def parameter_bytes(node: Node, layer: LearntLayer) -> tuple[int, int]:
    """(weights, biases) of a layer's effective copy; no weights where only the bias learns."""
    weights = weights_of(node).layout(node).bytes if layer.learns_weights else 0
    biases = -(-len(node.constants["bias"]) // 4) * 4  # depthwise kernels read whole groups of four
    return align(weights), align(4 * biases)


def plan_training(graph: Graph, scheme: Scheme, classes: int, options: LearningOptions = DEFAULT) -> TrainingPlan:
    """Walk the backward pass once, naming buffers and noting when they live.

    Errors: NoBackwardRuleError naming the operator that lies on the path and has no rule; DoesNotFitError for a
    pool that is too small.
    """
    plan = _with_layers(graph, scheme, classes, options)
    if scheme.candidates:
        plan.selection = plan_pool(graph, scheme, align(plan.learnt_bytes), options)
        plan.learnt_bytes = plan.selection.pool_bytes
    end = len(graph.nodes)  # the loss's step
    visited = backward_nodes(graph, scheme)
    step_of = {node.name: end + 1 + i for i, node in enumerate(visited)}
    last = end + len(visited)
    wanted = {node.output for node in visited}
    forward = {node.name: step for step, node in enumerate(graph.nodes)}
    born: dict[str, int] = {graph.features: end}  # gradient buffer -> first step; named after its first tensor
    dies: dict[str, int] = {graph.features: end}
    buffer_of = {graph.features: graph.features}  # tensor -> gradient buffer
    buffers = [
        Buffer(LEARNT, [Span(0, last, align(plan.learnt_bytes))], purpose="learnt"),
        Buffer(LOSS_SCRATCH, [Span(end, end, align(16 * classes))], purpose="loss"),
    ]

    for node in visited:
        step = step_of[node.name]
        gradient = buffer_of.pop(node.output)
        layer = plan.layer(node)
        candidate = layer is not None and layer.selected_offset is not None
        propagates = candidate or any(name in wanted for name in node.inputs)
        learning = plan.learning_scratch(graph, node) if layer is not None and layer.learns_weights else 0
        scratch = max(learning, plan.gradient_scratch(graph, node) if propagates else 0)  # one after the other
        if scratch:
            plan.scratch[node.name] = f"scratch of {node.name} (backward)"
            buffers.append(Buffer(plan.scratch[node.name], [Span(step, step, align(scratch))], purpose="scratch"))
        dies[gradient] = step
        act = _Recorder(plan, node, node.output, gradient)
        if saves_clip_mask(node, graph.tensors):
            plan.masks[node.name] = f"mask of {node.name}"
            words = -(-graph.tensors[node.output].bytes // 32)
            lifetime = Span(forward[node.name], step, align(4 * words))
            buffers.append(Buffer(plan.masks[node.name], [lifetime], purpose="masks"))
            act("mask", plan.masks[node.name])
        if layer is not None:
            buffers += _layer_buffers(graph, plan, node, layer, forward[node.name], step)
            act("learn")
            if layer.learns_weights:
                plan.kernels.append(plan.learning_kernel(graph, node))
        targets = [name for name in dict.fromkeys(node.inputs) if name in wanted]
        if not targets and not candidate:
            continue
        kernel = plan.gradient_kernel(graph, node)
        if kernel is not None:
            plan.kernels.append(kernel)
        saving = backward_of(node).saving_kernel(node, graph.tensors)
        if saving is not None and targets:
            plan.kernels.append(saving)
            saved = backward_of(node).saved_bytes(node, graph.tensors)
            plan.winners[node.name] = f"winners of {node.name}"
            lifetime = Span(forward[node.name], step, align(saved))
            buffers.append(Buffer(plan.winners[node.name], [lifetime], purpose="masks"))
        if not targets:
            temporary = f"second gradient of {node.inputs[0]}"
            lifetime = Span(step, step, plan.gradient_bytes(graph, node.inputs[0]))
            buffers.append(Buffer(temporary, [lifetime], purpose="gradients"))
            act("propagate", temporary, selecting=True)
            act("fisher", tensor=node.inputs[0], source=temporary)
        elif kernel is not None:
            size = plan.gradient_bytes(graph, targets[0])
            buffers += _propagate(act, buffer_of, born, dies, targets[0], step, size, candidate)
        else:
            _share(act, node, buffer_of, born, dies, targets, gradient, step)
        if layer is not None and layer.learns_weights and kernel is not None:
            plan.backward_parameters[node.name] = f"parameters of {node.name} (backward)"
            size = sum(parameter_bytes(node, layer))
            buffers.append(Buffer(plan.backward_parameters[node.name], [Span(step, step, size)], purpose="parameters"))
    if plan.selection is not None:
        steps = [(forward[c.node.name], step_of[c.node.name]) for c in plan.selection.candidates]
        first, final = min(f for f, _ in steps), max(b for _, b in steps)
        lifetime = Span(first, final, plan.selection.saved_bytes)
        buffers.append(Buffer(SAVED, [lifetime], purpose="saved_inputs"))
    for name in born:
        lifetime = Span(born[name], dies[name], plan.gradient_bytes(graph, name))
        buffers.append(Buffer(f"gradient of {name}", [lifetime], purpose="gradients"))
    plan.extra = Extra(buffers, {graph.features: end})
    return plan


def _with_layers(graph: Graph, scheme: Scheme, classes: int, options: LearningOptions) -> TrainingPlan:
    layers, offset = [], 0
    head_bytes = options.head.state_bytes(classes, graph.tensors[graph.features].bytes)
    candidates = scheme.candidates
    for node in graph.nodes:
        if node.name not in scheme.layers:
            continue
        chosen = len(scheme.layers[node.name].channels)
        deltas = weights_of(node).layout(node).count(chosen)
        bias_offset = offset
        running_offset = bias_offset + 4 * len(node.constants["bias"])
        deltas_offset = running_offset + 2 * RUNNING_BYTES
        selected = deltas_offset if node.name in candidates else None
        size = options.formats.rounding.delta_bytes * deltas if selected is None else SELECTED_BYTES
        offset = -(-(deltas_offset + size) // 8) * 8
        limit = scheme.layers[node.name].limit or chosen
        layers.append(LearntLayer(node, chosen, limit, bias_offset, running_offset, deltas_offset, deltas, selected))
    cut = last_cut(graph, scheme.layers)
    return TrainingPlan(scheme, options, layers, offset + head_bytes, cut, offset, head_bytes)


class _Recorder:
    """Appends actions about one node's output gradient."""

    def __init__(self, plan: TrainingPlan, node: Node, tensor: str, buffer: str) -> None:
        self._plan, self._node, self._tensor, self.buffer = plan, node, tensor, buffer

    def __call__(
        self, kind: str, target: str = "", tensor: str | None = None, source: str | None = None, selecting: bool = False
    ) -> None:
        about = self._tensor if tensor is None else tensor
        source = self.buffer if source is None else source
        self._plan.actions.append(Action(kind, self._node, about, source, target, selecting))


def _layer_buffers(
    graph: Graph, plan: TrainingPlan, node: Node, layer: LearntLayer, forward: int, step: int
) -> list[Buffer]:
    name = plan.forward_parameters[node.name] = f"parameters of {node.name}"
    found = [Buffer(name, [Span(forward, forward, sum(parameter_bytes(node, layer)))], purpose="parameters")]
    if layer.chosen:
        pixels = graph.tensors[node.inputs[0]].bytes // weights_of(node).layout(node).channels
        plan.saved[node.name] = f"inputs of {node.name}"
        lifetime = Span(forward, step, align(pixels * layer.chosen))
        found.append(Buffer(plan.saved[node.name], [lifetime], purpose="saved_inputs"))
    elif layer.learns_weights:
        plan.saved[node.name] = SAVED
    return found


def _propagate(
    act: _Recorder, buffer_of: dict[str, str], born: dict[str, int], dies: dict[str, int],
    target: str, step: int, size: int, candidate: bool,
) -> list[Buffer]:  # fmt: skip
    """The kernel writes a new buffer, or a temporary one that is then added to what is already there."""
    if target not in buffer_of:
        buffer_of[target], born[target] = target, step
        dies[target] = step
        act("propagate", target)
        if candidate:
            act("fisher", tensor=target, source=target)
        return []
    temporary = f"second gradient of {target}"
    act("propagate", temporary)
    if candidate:
        act("fisher", tensor=target, source=temporary)
    act("add", buffer_of[target], tensor=target, source=temporary)
    return [Buffer(temporary, [Span(step, step, size)], purpose="gradients")]


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
