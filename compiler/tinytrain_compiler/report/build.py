"""report.json: a contract that other programs build on. Keys are added, never renamed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..boards import Board
from ..codegen import KernelTable
from ..fit.budget import FlashUse, SramUse, state_bytes
from ..fit.purposes import purpose_use, step_name
from ..graph import Graph
from ..memory import MemoryPlan, NoSlots, Slots
from ..ops import operator_of
from ..ops.backward import TRAINED_MARGIN
from ..ops.weighted import bias_room
from ..training.plan import TrainingPlan
from ..training.pool import SelectionPlan
from ..training.scheme import backward_nodes
from ..training.selection import UNLIMITED
from ..version import __version__


def build_report(
    *,
    graph: Graph,
    plan: MemoryPlan,
    kernels: KernelTable,
    board: Board,
    sram: SramUse,
    flash: FlashUse,
    name: str,
    source: str,
    sha256: str,
    calibration: str,
    top1_agreement: float | None,
    classes: int,
    policy: str = "none",
    head: str = "prototype",
    training: TrainingPlan | None = None,
    inference: MemoryPlan | None = None,
    slots: Slots | NoSlots,
) -> dict[str, Any]:
    """Everything printed about a compile, as plain JSON values; sizes in bytes.

    inference: with training, the plan of the same model without.
    """
    layers = [_layer(graph, kernels, step) for step in range(len(graph.nodes))]
    x, y, f = (graph.tensors[t] for t in (graph.input, graph.output, graph.features))
    return {
        "tool": {"name": "tinytrain-compiler", "version": __version__},
        "model": {
            "name": name,
            "source": source,
            "sha256": sha256,
            "macs": sum(layer["macs"] for layer in layers),
            "parameters": sum(
                int(node.constants[key].size)
                for node in graph.nodes
                for key in ("weights", "bias")
                if key in node.constants
            ),
            "input": _tensor(x),
            "output": _tensor(y),
            "features": _tensor(f),
            "classes": classes,
        },
        "board": {
            "name": board.name,
            "description": board.description,
            "core": board.core,
            "dsp": board.dsp,
            "fpu": board.fpu,
            "mve": board.mve,
            "clock_hz": board.clock_hz,
        },
        "memory": {
            "sram": {
                "arena_bytes": sram.arena,
                "lower_bound_bytes": sram.lower_bound,
                "arena_to_lower_bound": round(sram.arena / sram.lower_bound, 4),
                "inference_arena_bytes": (inference or plan).arena_bytes,
                "by_purpose": _by_purpose(graph, plan, training),
                "session_bytes": sram.session,
                "static_bytes": sram.static_data,
                "total_bytes": sram.total,
                "stack_bytes": sram.stack,
                "budget_bytes": sram.budget,
                "left_bytes": sram.budget - sram.total - sram.stack,
                "regions": [
                    {"bank": bank, "bytes": size, "bank_bytes": board.bank(bank).bytes}
                    for bank, size in zip(plan.region_banks, plan.region_bytes, strict=True)
                ],
            },
            "flash": {
                "weights_bytes": flash.weights,
                "code_bound_bytes": flash.code,
                "total_bytes": flash.total,
                "budget_bytes": flash.budget,
                "slots_bytes": flash.slots,
                "left_bytes": flash.left,
            },
        },
        "storage": _storage(slots, state_bytes(classes, f.bytes, training.learnt_bytes if training else 0)),
        "quantization": {"calibration": calibration, "top1_agreement": top1_agreement},
        "training": {
            "policy": policy,
            "head": head,
            **(_training(graph, plan, training) if training is not None else {}),
        },
        "steps": _steps(graph, training),
        "layers": layers,
        "buffers": [
            {
                "name": p.buffer.name,
                "tensors": p.buffer.tensors,
                "purpose": p.buffer.purpose,
                "region": p.region,
                "offset": p.offset,
                "bytes": p.buffer.bytes,
                "first_layer": p.buffer.first,
                "last_layer": p.buffer.last,
            }
            for p in plan.placements
        ],
    }


def _storage(slots: Slots | NoSlots, state: int) -> dict[str, Any]:
    """A state's size and where two of them lie, or why they do not."""
    there = isinstance(slots, Slots)
    return {
        "state_bytes": state,
        "slots": asdict(slots) if there else None,
        "no_slots": None if there else asdict(slots),
    }


def _by_purpose(graph: Graph, plan: MemoryPlan, training: TrainingPlan | None) -> dict[str, Any]:
    """The arena's bytes by purpose: live at the step with the most (adding up to the lower bound), and the most of
    each purpose at any step (not adding up: they share bytes over time)."""
    use = purpose_use([p.buffer for p in plan.placements])
    return {
        "peak": {"step": use.step, "during": step_name(graph, training, use.step)},
        "at_peak_bytes": use.at_peak,
        "largest_bytes": use.largest,
    }


def _steps(graph: Graph, training: TrainingPlan | None) -> int:
    """Columns of the memory map: the layers and, with training, the loss and the layers of the backward pass."""
    return len(graph.nodes) + (0 if training is None else 1 + len(backward_nodes(graph, training.scheme)))


def _training(graph: Graph, plan: MemoryPlan, training: TrainingPlan) -> dict[str, Any]:
    """What learns, and where what it learns ends. Bytes are those of a purpose that are live at once, at most."""
    largest = purpose_use([p.buffer for p in plan.placements]).largest
    kept = training.formats.rounding
    rooms = [bias_room(layer.node, graph.tensors) for layer in training.layers]
    return {
        "gradients": training.formats.gradients.name,
        "rounding": kept.name,
        "delta_bytes": kept.delta_bytes,
        "learnt_bytes": training.learnt_bytes,
        "head_bytes": training.head_bytes,
        "fisher_passes": training.fisher_passes,
        "masks_bytes": largest["masks"],
        "saved_inputs_bytes": largest["saved_inputs"],
        "gradients_bytes": largest["gradients"],
        "scratch_bytes": largest["scratch"],
        "effective_parameters_bytes": largest["parameters"],
        "loss_bytes": largest["loss"],
        "weights": sum(layer.deltas for layer in training.layers),
        "biases": sum(len(layer.node.constants["bias"]) for layer in training.layers),
        "saturation": {
            "weight_delta": kept.limit / 2**kept.fraction_bits,  # in steps of the int8 weight
            "bias_delta": min(rooms, default=None),  # in steps of the int32 bias; of the layer with the least room
            "weight_growth": TRAINED_MARGIN,  # of a layer's absolute weights, until its gradients may saturate
        },
        "layers": [
            {
                "name": layer.node.name,
                "channels": layer.chosen,
                "limit": layer.limit,  # more than `channels` where the device chooses them
                "weights": layer.deltas,
                "biases": len(layer.node.constants["bias"]),
            }
            for layer in training.layers
        ],
        "rate": training.options.rate,  # where the caller leaves it open
        "selection": None if training.selection is None else _selection(training, training.selection),
    }


def _selection(training: TrainingPlan, plan: SelectionPlan) -> dict[str, Any]:
    """What the device may choose from, what each channel costs, and where it writes down what it chose."""
    selected = {layer.node.name: layer.selected_offset for layer in training.layers}
    return {
        "pool_bytes": training.learnt_bytes,
        "fixed_bytes": plan.pool_offset,  # biases, running means, what was chosen; the rest is handed out
        "saved_inputs_bytes": plan.saved_bytes,
        "selector": training.options.selector,  # where the caller leaves it open
        "macs": None if training.options.macs == UNLIMITED else training.options.macs,  # likewise; a step's, at most
        "candidates": [
            {
                "name": c.node.name,
                "channels": c.channels,
                "limit": c.limit,
                "delta_bytes": c.delta_bytes,  # these three of one channel
                "saved_bytes": c.saved_bytes,
                "macs": c.macs,
                "selected_offset": selected[c.node.name],  # of its tt_selected, in what is learnt
            }
            for c in plan.candidates
        ],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    q = tensor.quantization
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes,
        "scale": q.scale,
        "zero_point": q.zero_point,
    }


def _layer(graph: Graph, kernels: KernelTable, step: int) -> dict[str, Any]:
    node = graph.nodes[step]
    use = kernels.of(node)
    return {
        "name": node.name,
        "op": node.op,
        "input_shape": list(graph.tensors[node.inputs[0]].shape),
        "output_shape": list(graph.tensors[node.output].shape),
        "macs": operator_of(node).macs(node, graph.tensors),
        "weight_bytes": use.kernel.flash_bytes if use else 0,
        "kernel": use.symbol if use else "none (same bytes)",
    }
