"""All generated C of one model, as text by file name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..audio import AudioPlan
from ..graph import Graph, Node
from ..memory import MemoryPlan
from ..ops import operator_of
from ..quantize.input_bytes import PixelMap
from ..runtime_abi import RUNTIME_VERSION, inference_asserts, training_asserts
from ..runtime_files import runtime_files
from ..schedule import Schedule, renamed
from ..training.plan import TrainingPlan
from ..training.selectors import SELECTOR_CODES
from ..version import __version__
from . import selftest
from .backward_kernels import BackwardKernels, backward_kernels
from .digest import state_digest
from .forward_steps import FORWARD
from .gradient_text import GRADIENT_TEXT
from .kernels import KernelTable, function_text, has_params, headers
from .layout import INDENT, comment
from .names import Names
from .render import c_name, c_string, c_type, comment_lines, render
from .step_text import StepText
from .training import training_context


@dataclass(frozen=True)
class ModelInfo:
    """What the headers of generated files say about their origin."""

    prefix: str
    inputs: Sequence[tuple[str, str]]  # name and SHA-256 of the model and of other files that went in
    command: Sequence[str]  # that makes the files again, word by word
    classes: int
    pixels: PixelMap | None  # how camera bytes become input bytes; None where the input is no image
    head: str = "prototype"  # runtime_c/tt_<head>.h, tt_<head>_loss.h


def emit_sources(
    plan: MemoryPlan, kernels: KernelTable, info: ModelInfo, training: TrainingPlan | None = None,
    audio: AudioPlan | None = None,
) -> dict[str, str]:  # fmt: skip
    """Text by path: name.h/.c, name_arena.h, name_kernels.h/.c, name_kernels_host.c, name_weights.c, its runtime,
    name_train.h/.c if it trains, and name_audio.h/.c if it takes sound."""
    n = info.prefix
    context = _context(plan, kernels, info, training)
    files = {
        f"{n}.h": render("model/model.h.j2", **context),
        f"{n}.c": render("model/model.c.j2", **context),
        f"{n}_arena.h": render("model/arena.h.j2", **context),
        f"{n}_kernels.h": render("model/kernels.h.j2", **context),
        f"{n}_kernels.c": render("model/kernels.c.j2", **context),
        f"{n}_kernels_host.c": render("model/kernels_host.c.j2", **context),
        f"{n}_weights.c": render("model/weights.c.j2", **context),
    }
    if training is not None:
        files[f"{n}_train.h"] = render("model/train.h.j2", **context)
        files[f"{n}_train.c"] = render("model/train.c.j2", **context)
    if audio is not None:
        crc = selftest.audio_crc(audio)
        files[f"{n}_audio.h"] = render("model/audio.h.j2", **context, audio=audio, audio_crc=crc)
        files[f"{n}_audio.c"] = render("model/audio.c.j2", **context, audio=audio)
    gradients = None if training is None else training.formats.gradients.name
    runtime = runtime_files(info.head, gradients, audio is not None)
    return files | {f"runtime/{path}": text for path, text in runtime.items()}


def _context(plan: MemoryPlan, kernels: KernelTable, info: ModelInfo, training: TrainingPlan | None) -> dict[str, Any]:
    """Everything the templates print; they decide nothing."""
    graph = plan.schedule.graph
    names = Names(plan, info.prefix)
    backward = _backward_kernels(training, info.prefix)
    text = _step_text(plan, names, kernels, training, backward)
    functions = _functions(kernels)
    ends = {"input": graph.input, "output": graph.output, "features": graph.features}
    return {
        "name": info.prefix,
        "NAME": info.prefix.upper(),
        "c_string": c_string(info.prefix),
        "version": __version__,
        "runtime_version": RUNTIME_VERSION,
        "abi": {"asserts": inference_asserts(), "training_asserts": training_asserts(SELECTOR_CODES)},
        "info": info,
        "command": comment_lines([shlex.quote(word) for word in info.command]),
        "inputs": [f"{sha256}  {c_name(name)}" for name, sha256 in info.inputs],
        **{end: graph.tensors[tensor] for end, tensor in ends.items()},
        "orders": {"input": graph.sample_layout.words, "output": graph.answer_layout.words},
        "places": {end: plan.tensors[tensor] for end, tensor in ends.items()},
        "macros": {end: names.tensors[tensor] for end, tensor in ends.items()},
        "regions": [{"bytes": b, "bank": bank} for b, bank in zip(plan.region_bytes, plan.region_banks, strict=True)],
        "uses_region": sorted({p.region for p in plan.placements}),
        "map": _memory_map(plan, names),
        "lower_bound": plan.lower_bound_bytes,
        **_constants(kernels, names),
        "calls": _calls(plan.schedule, text, training),
        "training": None if training is None else training_context(training, plan, names, backward, text),
        "functions": functions,
        "headers": {"firmware": headers(functions, host=False), "host": headers(functions, host=True)},
        "selftest": {
            "seed": selftest.SEED,
            "crc": selftest.inference_crc(graph),
            "training_crc": 0 if training is None else selftest.training_crc(graph, training, info.classes),
        },
        "digest": state_digest(graph, training, info.pixels),
    }


def _backward_kernels(training: TrainingPlan | None, prefix: str) -> BackwardKernels:
    if training is None:
        return BackwardKernels()
    return backward_kernels(training.schedule, prefix, GRADIENT_TEXT[training.formats.gradients.name].prototypes)


def _step_text(
    plan: MemoryPlan, names: Names, kernels: KernelTable, training: TrainingPlan | None, backward: BackwardKernels
) -> StepText:
    if training is None:
        return StepText(plan, names, kernels, FORWARD)
    gradients = GRADIENT_TEXT[training.formats.gradients.name]
    return StepText(plan, names, kernels, gradients.steps, gradients.element, training, backward)


def _constants(kernels: KernelTable, names: Names) -> dict[str, list[dict[str, Any]]]:
    """Constant arrays and parameter structs, layer by layer."""
    arrays: list[dict[str, Any]] = []
    params: list[dict[str, Any]] = []
    for use in kernels.uses:
        node, kernel = use.node, use.kernel
        arrays_of = {member: names.local(f"{member}_of", node) for member in kernel.arrays}
        for member, values in kernel.arrays.items():
            arrays.append({"name": arrays_of[member], "type": c_type(values), "values": values})
        if has_params(kernel):
            members = arrays_of | {member: str(value) for member, value in kernel.scalars.items()}
            params.append({"name": names.of("layer", node), "type": kernel.params_type, "members": members})
    return {"arrays": arrays, "params": params}


def _calls(schedule: Schedule, text: StepText, training: TrainingPlan | None) -> list[dict[str, Any]]:
    """The forward pass, moment by moment."""
    graph, roots = schedule.graph, renamed(schedule.graph)
    frozen = set() if training is None else set(training.boundary.frozen)
    steps = {node.name: step for step, node in enumerate(graph.nodes)}
    calls: list[dict[str, Any]] = []
    for moment in schedule.of("forward"):
        lines, node = text.block(moment), moment.node
        if lines and node is not None:
            ends = roots[node.output] == roots[graph.features]
            what = comment(f"{steps[node.name]}. {_describe(graph, node)}", INDENT)
            call = {"lines": lines, "ends_embedding": ends, "comment": what}
            calls.append(call | {"frozen": node.name in frozen})
    return calls


def _functions(kernels: KernelTable) -> list[dict[str, Any]]:
    """Each kernel function once, with the layers that share it."""
    functions = []
    for symbol, prototype in kernels.prototypes.items():
        uses = [use for use in kernels.uses if use.symbol == symbol]
        functions.append(function_text(prototype, [use.node.name for use in uses], uses[0].kernel))
    return functions


def _memory_map(plan: MemoryPlan, names: Names) -> list[str]:
    """A line per tensor and scratch buffer, in the order in which they come into use."""
    roots = renamed(plan.schedule.graph)
    rows = []
    for p in plan.placements:
        spans = iter(p.buffer.spans)  # one for each tensor with bytes of its own; others share the one before
        span = p.buffer.spans[0]
        for tensor in p.buffer.tensors:
            span = next(spans) if roots[tensor] == tensor else span
            rows.append((span.first, p.region, p.offset, names.tensors[tensor], span))
        if not p.buffer.tensors:
            rows.append((p.buffer.first, p.region, p.offset, names.scratch[p.buffer.name], span))
    rows.sort(key=lambda row: row[:3])
    width = max(len(macro) for *_, macro, _ in rows)
    lines = []
    for _, region, offset, macro, span in rows:
        where = f"{span.first:>4} .. {span.last:<4} {span.bytes:>9,}"
        where += f"  region {region}" if len(plan.region_bytes) > 1 else ""
        lines.append(f"#define {macro:<{width}} {offset:>7} /* {where} */")
    return lines


def _describe(graph: Graph, node: Node) -> str:
    def shape(name: str) -> str:
        return "x".join(str(d) for d in graph.tensors[name].shape)

    macs = operator_of(node).macs(node, graph.tensors)
    text = f"{c_name(node.name)}: {node.op}, {' + '.join(shape(i) for i in node.inputs)} -> {shape(node.output)}"
    return text + (f", {macs:,} MACs" if macs else "")
