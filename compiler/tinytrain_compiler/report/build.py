"""What a compile found out, as a Report."""

from __future__ import annotations

from dataclasses import asdict

from ..boards import Board
from ..codegen import KernelTable
from ..footprint.purposes import purpose_use
from ..footprint.use import FlashUse, SramUse, state_bytes
from ..graph import Graph, Node, Tensor
from ..lowering import Lowered
from ..memory import MemoryPlan, Slots
from ..ops import operator_of
from ..ops.backward import TRAINED_MARGIN
from ..ops.weighted import bias_limit
from ..output_folder import TOOL
from ..provenance import Input
from ..quantize.calibration import Calibration
from ..training.plan import TrainingPlan
from ..training.pool import SelectionPlan
from ..training.selectors import UNLIMITED
from ..training.trainable import frozen_layers
from ..version import __version__
from . import schema

# On data of their own kind, int8 networks agreed with float on 81 to 99 % of samples. With a wrong normalisation some
# agreed on 57 and 72 %, but a robust one still on 81 %: low agreement is a sign, high agreement no proof.
LOW_AGREEMENT = 0.75


def build_report(
    lowered: Lowered,
    inference: MemoryPlan,
    *,
    name: str,
    source: Input,
    calibration: Calibration,
    top1_agreement: float | None,
    policy: str,
    labels: tuple[str, ...] | None = None,
) -> schema.Report:
    """Everything printed about a compile. inference: the plan of the same model that does not train."""
    graph, plan, board, training = lowered.graph, lowered.plan, lowered.board, lowered.training
    layers = [_layer(graph, lowered.kernels, node) for node in graph.nodes]
    low = top1_agreement is not None and top1_agreement < LOW_AGREEMENT
    by_purpose = _by_purpose(plan)
    return schema.Report(
        tool=schema.Tool(TOOL, __version__),
        model=_model(graph, layers, name, source, lowered.classes, labels),
        board=schema.BoardFacts(
            board.name, board.description, board.core, board.dsp, board.fpu, board.mve, board.clock_hz
        ),
        memory=schema.Memory(_sram(lowered.sram, board, plan, inference, by_purpose), _flash(lowered.flash)),
        storage=_storage(lowered),
        quantization=schema.Quantization(_calibration(calibration), top1_agreement, low),
        policy=policy,
        head=lowered.options.head.name,
        training=None if training is None else _training(graph, plan, training),
        steps=len(plan.schedule.moments),
        layers=layers,
        buffers=_buffers(plan),
    )


def _model(
    graph: Graph,
    layers: list[schema.LayerFacts],
    name: str,
    source: Input,
    classes: int,
    labels: tuple[str, ...] | None,
) -> schema.ModelFacts:
    return schema.ModelFacts(
        name=name,
        source=source.name,
        sha256=source.sha256,
        macs=sum(layer.macs for layer in layers),
        parameters=_parameters(graph),
        input=_tensor(graph.tensors[graph.input]),
        output=_tensor(graph.tensors[graph.output]),
        features=_tensor(graph.tensors[graph.features]),
        classes=classes,
        labels=None if labels is None else list(labels),
    )


def _calibration(found: Calibration) -> schema.CalibrationFacts:
    return schema.CalibrationFacts(found.source, found.array, len(found.samples), found.available)


def _parameters(graph: Graph) -> int:
    keys = ("weights", "bias")
    return sum(int(node.constants[key].size) for node in graph.nodes for key in keys if key in node.constants)


def _sram(
    sram: SramUse, board: Board, plan: MemoryPlan, inference: MemoryPlan, by_purpose: schema.PurposeBytes
) -> schema.SramFacts:
    return schema.SramFacts(
        arena_bytes=sram.arena,
        lower_bound_bytes=sram.lower_bound,
        arena_to_lower_bound=round(sram.arena / sram.lower_bound, 4),
        inference_arena_bytes=inference.arena_bytes,
        by_purpose=by_purpose,
        session_bytes=sram.session,
        static_bytes=sram.static_data,
        audio_bytes=sram.audio,
        total_bytes=sram.total,
        stack_bytes=sram.stack,
        budget_bytes=sram.budget,
        left_bytes=sram.budget - sram.total - sram.stack,
        regions=[
            schema.Region(bank, size, board.bank(bank).bytes)
            for bank, size in zip(plan.region_banks, plan.region_bytes, strict=True)
        ],
    )


def _storage(lowered: Lowered) -> schema.Storage:
    features, training = lowered.graph.tensors[lowered.graph.features].bytes, lowered.training
    state = state_bytes(lowered.classes, features, training.training_state_bytes if training else 0)
    if isinstance(lowered.slots, Slots):
        return schema.Storage(state, schema.SlotFacts(**asdict(lowered.slots)), None)
    return schema.Storage(state, None, schema.NoSlotFacts(**asdict(lowered.slots)))


def _flash(flash: FlashUse) -> schema.FlashFacts:
    return schema.FlashFacts(
        weights_bytes=flash.weights,
        code_bound_bytes=flash.code,
        audio_bytes=flash.audio,
        total_bytes=flash.total,
        budget_bytes=flash.budget,
        slots_bytes=flash.slots,
        left_bytes=flash.left,
    )


def _by_purpose(plan: MemoryPlan) -> schema.PurposeBytes:
    use = purpose_use([p.buffer for p in plan.placements])
    moment = plan.schedule.moments[use.moment]
    peak = schema.Moment(use.moment, moment.phase, None if moment.node is None else moment.node.name)
    return schema.PurposeBytes(peak, use.at_peak, use.largest)


def _training(graph: Graph, plan: MemoryPlan, training: TrainingPlan) -> schema.TrainingFacts:
    largest = purpose_use([p.buffer for p in plan.placements]).largest
    kept = training.formats.rounding
    limits = [bias_limit(layer.node, graph.tensors) for layer in training.layers]
    layers = [
        schema.TrainedLayerFacts(
            layer.node.name, layer.chosen, layer.limit, layer.deltas, len(layer.node.constants["bias"])
        )
        for layer in training.layers
    ]
    return schema.TrainingFacts(
        learning_rate=training.options.rate,
        gradients=training.formats.gradients.name,
        rounding=kept.name,
        delta_bytes=kept.delta_bytes,
        training_state_bytes=training.training_state_bytes,
        head_bytes=training.head_bytes,
        fisher_passes=training.fisher_passes,
        masks_bytes=largest["masks"],
        saved_inputs_bytes=largest["saved_inputs"],
        gradients_bytes=largest["gradients"],
        scratch_bytes=largest["scratch"],
        effective_parameters_bytes=largest["parameters"],
        loss_bytes=largest["loss"],
        weights=sum(layer.weights for layer in layers),
        selectable_weights=_selectable_weights(training),
        biases=sum(layer.biases for layer in layers),
        saturation=schema.Saturation(kept.limit / 2**kept.fraction_bits, min(limits, default=None), TRAINED_MARGIN),
        layers=layers,
        frozen=[schema.FrozenLayersFacts(list(group.names), group.reason) for group in frozen_layers(graph)],
        selection=None if training.selection is None else _selection(training, training.selection),
    )


def _selectable_weights(training: TrainingPlan) -> int:
    """Of all candidates at their limits, as far as the pool has deltas for them."""
    if training.selection is None:
        return 0
    each = training.formats.rounding.delta_bytes
    limits = sum(c.limit * (c.delta_bytes // each) for c in training.selection.candidates)
    return min(limits, training.selection.budget(training.options.selector).pool // each)


def _selection(training: TrainingPlan, plan: SelectionPlan) -> schema.SelectionFacts:
    offsets = {layer.node.name: layer.selected_offset for layer in training.layers}
    selected = {name: offset for name, offset in offsets.items() if offset is not None}
    return schema.SelectionFacts(
        pool_bytes=training.training_state_bytes,
        usable_bytes=plan.usable_bytes,
        fixed_bytes=plan.pool_offset,
        saved_inputs_bytes=plan.saved_bytes,
        selector=training.options.selector.name,
        macs=None if training.options.macs == UNLIMITED else training.options.macs,
        candidates=[
            schema.CandidateFacts(
                c.node.name, c.channels, c.limit, c.delta_bytes, c.saved_bytes, c.macs, selected[c.node.name]
            )
            for c in plan.candidates
        ],
    )


def _tensor(tensor: Tensor) -> schema.TensorFacts:
    q = tensor.quantization
    return schema.TensorFacts(tensor.name, list(tensor.shape), tensor.bytes, q.scale, q.zero_point)


def _layer(graph: Graph, kernels: KernelTable, node: Node) -> schema.LayerFacts:
    use = kernels.of(node)
    return schema.LayerFacts(
        name=node.name,
        op=node.op,
        input_shape=list(graph.tensors[node.inputs[0]].shape),
        output_shape=list(graph.tensors[node.output].shape),
        macs=operator_of(node).macs(node, graph.tensors),
        weight_bytes=use.kernel.flash_bytes if use else 0,
        kernel=use.symbol if use else None,
    )


def _buffers(plan: MemoryPlan) -> list[schema.BufferFacts]:
    return [
        schema.BufferFacts(
            name=p.buffer.name,
            tensors=list(p.buffer.tensors),
            purpose=p.buffer.purpose,
            region=p.region,
            offset=p.offset,
            bytes=p.buffer.bytes,
            first_step=p.buffer.first,
            last_step=p.buffer.last,
        )
        for p in plan.placements
    ]
