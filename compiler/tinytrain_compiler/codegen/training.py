"""What the templates of <name>_train.c print: constants of trained layers and of a selection, and the backward pass."""

from __future__ import annotations

from typing import Any

from ..graph.gradient import quantize_factors
from ..memory import MemoryPlan
from ..ops import weights_of
from ..ops.weighted import bias_limit
from ..schedule import InputGradient
from ..training.layers import LayerState
from ..training.norms import bias_norm, bias_units, weight_norm
from ..training.plan import TrainingPlan
from ..training.selection import layer_cost
from .backward_kernels import BackwardKernels
from .gradient_text import GRADIENT_TEXT
from .kernels import function_text, headers
from .layout import INDENT, statements
from .names import Names
from .render import c_name
from .step_text import StepText


def training_context(
    plan: TrainingPlan, memory: MemoryPlan, names: Names, kernels: BackwardKernels, text: StepText
) -> dict[str, Any]:
    """text: writes the steps; offsets are macros of <name>_arena.h."""
    graph, loss, boundary = plan.schedule.graph, plan.loss, plan.boundary.tensor
    ends = {"training_state": loss.state.name, "loss": loss.working.name, "gradient": loss.gradient.name}
    gradients = GRADIENT_TEXT[plan.formats.gradients.name]
    scaled = [s for s in plan.schedule.steps("backward") if isinstance(s, InputGradient) and s.scales]
    blocks = [
        {"node": c_name(moment.node.name), "op": moment.node.op, "lines": statements(text.lines(moment), 2 * INDENT)}
        for moment in plan.schedule.of("backward")
        if moment.node is not None
    ]
    functions = [function_text(prototype, layers, kernel) for kernel, prototype, layers in kernels.kernels.values()]
    return {
        "headers": gradients.headers,
        "layers": [_layer(plan, names, layer) for layer in plan.layers],
        "factors": [gradients.scales(names, step.node) for step in scaled],
        "statements": blocks,
        "locals": statements(gradients.declared(text.exponents), INDENT),
        "begin": gradients.converted(text.cast(gradients.element, loss.gradient), text.count(graph.features)),
        "functions": functions,
        "variant_headers": headers(functions, host=False),
        "places": {end: memory.scratch[name] for end, name in ends.items()},
        "macros": {end: names.scratch[name] for end, name in ends.items()},
        "state_bytes": plan.training_state_bytes,
        "head_offset": plan.head_offset,
        "head_bytes": plan.head_bytes,
        "rate": plan.options.rate,
        "regions": sorted({p.region for p in memory.placements}),
        "boundary": memory.tensors[boundary],
        "boundary_macro": names.tensors[boundary],
        "boundary_bytes": graph.tensors[boundary].bytes,
        "selection": _selection(plan, names),
    }


def _selection(plan: TrainingPlan, names: Names) -> dict[str, Any] | None:
    selection = plan.selection
    if selection is None:
        return None
    rows = [
        {
            "node": c_name(c.node.name),
            "layer": names.of("learn", c.node),
            "selected": plan.layer(c.node).selected_offset,
            "cost": float(layer_cost(plan.schedule.graph, c)),
            "plan": c,
        }
        for c in selection.candidates
    ]
    scores = sum(c.channels for c in selection.candidates)
    end, options = plan.training_state_bytes, plan.options
    return {"candidates": rows, "plan": selection, "scores": scores, "pool_end": end, "options": options}


def _layer(plan: TrainingPlan, names: Names, layer: LayerState) -> dict[str, Any]:
    node, graph = layer.node, plan.schedule.graph
    channels = list(plan.scheme.layers[node.name].channels)
    return {
        "learn": names.of("learn", node),
        "pretrained": names.of("layer", node),
        "channels_name": names.of("channels_of", node),
        "state": names.of("state_of", node),
        "delta_bytes": plan.formats.rounding.delta_bytes,
        "node": c_name(node.name),
        "outputs": len(node.constants["weight_scales"]),
        "layout": weights_of(node).layout(node),
        "channels": channels,
        "selected_offset": layer.selected_offset,
        "learns_weights": layer.learns_weights,
        "what": _what(layer),
        **_tables(plan, names, layer),
        "weight_norm": float(weight_norm(node, channels)) if channels else 0.0,
        "bias_norm": float(bias_norm(graph, node)),
        "bias_limit": bias_limit(node, graph.tensors),
        "offsets": layer,
    }


def _what(layer: LayerState) -> str:
    biases = f"{len(layer.node.constants['bias'])} biases"
    if layer.is_candidate:
        return f"up to {layer.limit} input channels, chosen on the device; {biases}"
    return f"{layer.chosen} input channels, {layer.deltas} weights, {biases}"


def _tables(plan: TrainingPlan, names: Names, layer: LayerState) -> dict[str, Any]:
    """The layer's tables, and the initialisers of its struct's members that hold factors."""
    node, gradients = layer.node, GRADIENT_TEXT[plan.formats.gradients.name]
    scales = node.constants["weight_scales"]
    reals = {"weight_inverse": 1 / scales} if layer.learns_weights else {}
    found = gradients.inverses(names, node, {**reals, "bias_inverse": 1 / bias_units(plan.schedule.graph, node)})
    if layer.is_candidate:
        table, added = gradients.candidate_scales(names, node)
        found["tables"] += added
        found["members"]["weight_scales"] = f"{{ {table}, {quantize_factors(scales).exponent} }}"
    return found
