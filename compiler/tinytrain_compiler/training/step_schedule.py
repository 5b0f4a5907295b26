"""The schedule of one training step: the forward pass with what it saves, the loss, and the backward pass.

The backward pass is walked once, last node first; each layer is updated as soon as its gradient is complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..graph import Graph, Node
from ..ops import Kernel, backward_of, weights_of
from ..ops.clipping import saves_clip_mask
from ..schedule import (
    Accumulate,
    Activation,
    ApplyMask,
    BufferNames,
    BufferSpec,
    CopyGradient,
    EffectiveParameters,
    FisherScore,
    InputGradient,
    KeepFisherInput,
    Loss,
    Moment,
    Purpose,
    SaveArgmaxIndices,
    SaveInput,
    SaveMask,
    Schedule,
    ShareGradient,
    Step,
    UpdateBias,
    UpdateWeights,
    forward_step,
)
from .formats import Formats
from .layers import LayerState
from .pool import SAVED, TRAINING_STATE, SelectionPlan
from .scheme import Scheme, backward_nodes

LOSS_SCRATCH = "loss terms"
LOSS_TERM_BYTES = 16  # two int64 a class


def training_schedule(
    graph: Graph, scheme: Scheme, layers: Sequence[LayerState], selection: SelectionPlan | None,
    training_state_bytes: int, classes: int, formats: Formats,
) -> Schedule:  # fmt: skip
    """training_state_bytes: of the training state, pool included.

    Errors: NoBackwardRuleError naming the operator that lies on the path and has no rule.
    """
    return _Walk(graph, scheme, layers, selection, training_state_bytes, formats).schedule(classes)


class _Walk:
    """Goes through the backward pass, makes its steps and buffers, and notes what the forward pass must save."""

    def __init__(
        self, graph: Graph, scheme: Scheme, layers: Sequence[LayerState], selection: SelectionPlan | None,
        training_state_bytes: int, formats: Formats,
    ) -> None:  # fmt: skip
        self._graph, self._formats = graph, formats
        self._layers = {layer.node.name: layer for layer in layers}
        self._fisher_inputs = {} if selection is None else selection.inputs
        self._visited = backward_nodes(graph, scheme)
        self._wanted = {node.output for node in self._visited}  # tensors whose gradient an earlier layer needs
        self._names = BufferNames()
        self._state = self._names.buffer(TRAINING_STATE, training_state_bytes, "training_state", persistent=True)
        self._shared = {TRAINING_STATE: self._state}  # buffers that the Fisher pass borrows
        if selection is not None:
            self._shared[SAVED] = self._names.buffer(SAVED, selection.saved_bytes, "saved_inputs")
        self._buffers: list[BufferSpec] = []
        self._gradients: list[BufferSpec] = []
        self._gradient_of: dict[str, BufferSpec] = {}  # tensors that a gradient has reached
        self._before: defaultdict[str, list[Step]] = defaultdict(list)  # the node runs forward
        self._after: defaultdict[str, list[Step]] = defaultdict(list)
        self._parameters: dict[str, BufferSpec] = {}

    def schedule(self, classes: int) -> Schedule:
        graph, features = self._graph, self._graph.features
        working = self._names.buffer(LOSS_SCRATCH, LOSS_TERM_BYTES * classes, "loss")
        gradient = self._new_gradient(features)
        loss = Loss(features=Activation(features), state=self._state, gradient=gradient, working=working)
        backward = [Moment("backward", node, tuple(self._backward(node))) for node in self._visited]
        forward = [Moment("forward", node, tuple(self._forward(node))) for node in graph.nodes]
        shared = [buffer for name, buffer in self._shared.items() if name == SAVED]
        buffers = (self._state, working, *self._buffers, *shared, *self._gradients)
        return Schedule(graph, (*forward, Moment("loss", None, (loss,)), *backward), buffers)

    # -- forward ---------------------------------------------------------------------------------

    def _forward(self, node: Node) -> list[Step]:
        step = forward_step(self._graph, node, self._names, self._parameters.get(node.name))
        return [*self._before[node.name], step, *self._after[node.name]]

    def _save_inputs(self, layer: LayerState) -> BufferSpec:
        """Where the selected input channels of a layer lie from its forward step to its weight gradient."""
        node = layer.node
        source, before = Activation(node.inputs[0]), self._before[node.name]
        channels = weights_of(node).layout(node).channels
        if layer.is_candidate:
            place, saved = self._fisher_inputs[node.name], self._shared[SAVED]
            kept = self._shared[place.buffer]
            before.append(
                KeepFisherInput(node=node, source=source, target=kept, offset=place.offset, group=place.group)
            )
        else:
            pixels = self._graph.tensors[source.name].bytes // channels
            saved = self._buffer(f"inputs of {node.name}", pixels * layer.chosen, "saved_inputs")
        before.append(SaveInput(node=node, source=source, target=saved, channels=channels))
        return saved

    # -- backward --------------------------------------------------------------------------------

    def _backward(self, node: Node) -> list[Step]:
        gradient, layer = self._gradient_of.pop(node.output), self._layers.get(node.name)
        targets = [name for name in dict.fromkeys(node.inputs) if name in self._wanted]
        passes_on = bool(targets) or (layer is not None and layer.is_candidate)
        needs = self._update_scratch(layer), self._gradient_scratch(node) if passes_on else 0
        working = self._buffer(f"scratch of {node.name} (backward)", max(needs), "scratch") if any(needs) else None
        steps = self._apply_mask(node, gradient)
        if layer is not None:
            steps += self._update(layer, gradient, working if needs[0] else None)
        if not passes_on:
            return steps
        kernels = self._gradient_kernels(node, layer)
        wanted = [i for i, name in enumerate(node.inputs) if name in self._wanted or not targets]
        wanted.sort(key=lambda i: self._gradient_bytes(node.inputs[i]) == gradient.bytes)  # last what fits its memory
        shared = [node.inputs[i] for i in wanted if kernels[i] is None]
        for i in wanted:
            kernel, last = kernels[i], i == wanted[-1] and not shared
            if kernel is not None:
                steps += self._propagate(node, layer, gradient, i, kernel, last, working if needs[1] else None)
        return [*steps, *self._share(node, gradient, list(dict.fromkeys(shared)))]

    def _apply_mask(self, node: Node, gradient: BufferSpec) -> list[Step]:
        if not saves_clip_mask(node, self._graph.tensors):
            return []
        words = -(-self._graph.tensors[node.output].bytes // 32)
        mask = self._buffer(f"mask of {node.name}", 4 * words, "masks")
        self._after[node.name].append(SaveMask(node=node, source=Activation(node.output), mask=mask))
        return [ApplyMask(node=node, mask=mask, gradient=gradient)]

    def _update(self, layer: LayerState, gradient: BufferSpec, working: BufferSpec | None) -> list[Step]:
        """The updates of a layer, whose parameters the forward pass makes and whose inputs it saves."""
        node = layer.node
        effective = self._effective(layer, f"parameters of {node.name}")
        self._parameters[node.name] = effective.target
        self._before[node.name].append(effective)
        steps: list[Step] = [UpdateBias(node=node, gradient=gradient, state=self._state)]
        if layer.learns_weights:
            inputs = self._save_inputs(layer)
            kernel = self._update_kernel(node)
            steps.append(
                UpdateWeights(
                    node=node, gradient=gradient, inputs=inputs, state=self._state, kernel=kernel, working=working
                )
            )
        return steps

    def _propagate(
        self, node: Node, layer: LayerState | None, gradient: BufferSpec, which: int, kernel: Kernel, last: bool,
        working: BufferSpec | None,
    ) -> list[Step]:  # fmt: skip
        """The gradient of input `which`: the kernel writes a new buffer, a temporary one that is then added to what is
        already there, or, as the last that reads it, the gradient's own.

        A candidate that no earlier layer waits for passes its gradient on only to measure Fisher information.
        """
        tensor = node.inputs[which]
        selecting, adds = tensor not in self._wanted, tensor in self._gradient_of
        target = self._target(node, tensor, gradient, overwrites=last and node.inputs.count(tensor) == 1)
        steps: list[Step] = []
        parameters = None
        if layer is not None and layer.learns_weights:
            effective = self._effective(layer, f"parameters of {node.name} (backward)", selecting)
            parameters = effective.target
            steps.append(effective)
        steps.append(
            InputGradient(
                node=node,
                gradient=gradient,
                target=target,
                values={name: Activation(node.inputs[i]) for name, i in backward_of(node).values(node, which).items()},
                kernel=kernel,
                parameters=parameters,
                argmax_indices=None if selecting else self._save_argmax_indices(node),
                working=working,
                selecting=selecting,
            )
        )
        if node.name in self._fisher_inputs:
            place = self._fisher_inputs[node.name]
            kept = self._shared[place.buffer]
            fisher = FisherScore(node=node, gradient=target, inputs=kept, offset=place.offset, group=place.group)
            steps.append(fisher)
        if adds:
            steps.append(Accumulate(node=node, tensor=tensor, source=target, target=self._gradient_of[tensor]))
        return steps

    def _target(self, node: Node, tensor: str, gradient: BufferSpec, overwrites: bool) -> BufferSpec:
        """Where a kernel writes the gradient of a tensor. overwrites: whether nobody needs the output's any more."""
        size, is_first = self._gradient_bytes(tensor), tensor in self._wanted and tensor not in self._gradient_of
        if overwrites and backward_of(node).in_place and size == gradient.bytes:
            if is_first:
                self._gradient_of[tensor] = gradient
            return gradient
        if is_first:
            return self._new_gradient(tensor)
        return self._buffer(f"second gradient of {tensor}", size, "gradients")

    def _share(self, node: Node, gradient: BufferSpec, targets: Sequence[str]) -> list[Step]:
        """Operators that pass their gradient on as it is: the last new target takes the buffer over, others get copies.

        An input that is read twice by the same operator gets the gradient twice.
        """
        steps: list[Step] = []
        new = [name for name in targets if name not in self._gradient_of]
        for name in targets:
            if name in new[:-1]:
                copy = self._new_gradient(name)
                steps.append(CopyGradient(node=node, tensor=name, source=gradient, target=copy))
            elif name not in new:
                into = self._gradient_of[name]
                add = [Accumulate(node=node, tensor=name, source=gradient, target=into)]
                steps += add * node.inputs.count(name)
        if new:
            self._gradient_of[new[-1]] = gradient
            steps.append(ShareGradient(node=node, tensor=new[-1], gradient=gradient))
        for name in new:
            if node.inputs.count(name) > 1:
                into = self._gradient_of[name]
                steps.append(Accumulate(node=node, tensor=name, source=into, target=into))
        return steps

    def _save_argmax_indices(self, node: Node) -> BufferSpec | None:
        """What the operator's forward pass saves for its own backward kernel."""
        kernel = backward_of(node).saving_kernel(node, self._graph.tensors)
        if kernel is None:
            return None
        size = backward_of(node).saved_bytes(node, self._graph.tensors)
        argmax_indices = self._buffer(f"argmax indices of {node.name}", size, "masks")
        source = Activation(node.inputs[0])
        self._after[node.name].append(
            SaveArgmaxIndices(node=node, source=source, argmax_indices=argmax_indices, kernel=kernel)
        )
        return argmax_indices

    def _effective(self, layer: LayerState, name: str, selecting: bool = False) -> EffectiveParameters:
        weights, biases = layer.parameter_bytes
        target = self._buffer(name, weights + biases, "parameters")
        return EffectiveParameters(
            node=layer.node, state=self._state, target=target, weight_bytes=weights, selecting=selecting
        )

    # -- buffers and kernels, in the model's formats -----------------------------------------------

    def _buffer(self, name: str, size: int, purpose: Purpose) -> BufferSpec:
        self._buffers.append(self._names.buffer(name, size, purpose))
        return self._buffers[-1]

    def _new_gradient(self, tensor: str) -> BufferSpec:
        """The buffer of the first gradient that reaches a tensor."""
        gradient = self._names.buffer(f"gradient of {tensor}", self._gradient_bytes(tensor), "gradients")
        self._gradients.append(gradient)
        self._gradient_of[tensor] = gradient
        return gradient

    def _gradient_bytes(self, tensor: str) -> int:
        return self._formats.gradients.element_bytes * self._graph.tensors[tensor].bytes

    def _gradient_scratch(self, node: Node) -> int:
        if not self._formats.gradients.scratch:
            return 0
        return backward_of(node).scratch_bytes(node, self._graph.tensors)

    def _update_scratch(self, layer: LayerState | None) -> int:
        """For as many input channels as may train."""
        if layer is None or not layer.learns_weights or not self._formats.gradients.scratch:
            return 0
        return weights_of(layer.node).scratch_bytes(layer.node, self._graph.tensors, layer.limit)

    def _gradient_kernels(self, node: Node, layer: LayerState | None) -> list[Kernel | None]:
        """The kernels that take the node's gradient to its inputs; None where that is a copy."""
        trained = layer is not None and layer.learns_weights
        found = backward_of(node).kernels(node, self._graph.tensors, trained)
        return [None if kernel is None else self._formats.gradients.kernel(kernel, node) for kernel in found]

    def _update_kernel(self, node: Node) -> Kernel:
        """The kernel of the node's weight gradient and update."""
        kernel = weights_of(node).kernel(node, self._graph.tensors)
        return self._formats.rounding.kernel(self._formats.gradients.kernel(kernel, node))
