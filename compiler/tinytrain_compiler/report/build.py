"""report.json: a contract that other programs build on. Keys are added, never renamed."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..boards import Board
from ..codegen import KernelTable
from ..graph import Graph
from ..memory import MemoryPlan
from ..ops import operator_of
from ..training.plan import TrainingPlan
from .budget import FlashUse, SramUse


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
    training: TrainingPlan | None = None,
) -> dict[str, Any]:
    """Everything printed about a compile, as plain JSON values; sizes in bytes."""
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
                "left_bytes": flash.budget - flash.total,
            },
        },
        "quantization": {"calibration": calibration, "top1_agreement": top1_agreement},
        "training": {"policy": policy, **(_training(plan, training) if training is not None else {})},
        "layers": layers,
        "buffers": [
            {
                "name": p.buffer.name,
                "tensors": p.buffer.tensors,
                "region": p.region,
                "offset": p.offset,
                "bytes": p.buffer.bytes,
                "first_layer": p.buffer.first,
                "last_layer": p.buffer.last,
            }
            for p in plan.placements
        ],
    }


def _training(plan: MemoryPlan, training: TrainingPlan) -> dict[str, Any]:
    """Bytes by purpose; all but `learnt` share the arena's memory with inference, at other times."""
    sizes: dict[str, int] = dict.fromkeys(("learnt", "mask", "inputs", "gradient", "parameters"), 0)
    for placement in plan.placements:
        purpose = placement.buffer.name.split(" ")[0]
        if not placement.buffer.tensors and purpose in sizes:
            sizes[purpose] += placement.buffer.bytes
    return {
        "gradients": training.formats.gradients.name,
        "rounding": training.formats.rounding.name,
        "delta_bytes": training.formats.rounding.delta_bytes,
        "learnt_bytes": training.learnt_bytes,
        "masks_bytes": sizes["mask"],
        "saved_inputs_bytes": sizes["inputs"],
        "gradients_bytes": sizes["gradient"],
        "effective_parameters_bytes": sizes["parameters"],
        "weights": sum(layer.deltas for layer in training.layers),
        "biases": sum(len(layer.node.constants["bias"]) for layer in training.layers),
        "layers": [
            {"name": layer.node.name, "channels": layer.chosen, "weights": layer.deltas} for layer in training.layers
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
