"""All generated C of one model, as text by file name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..graph import Graph
from ..memory import MemoryPlan, Placement
from ..ops import Int8, operator_of
from ..quantize.input_bytes import PixelMap
from ..reference import run
from ..resources import RUNTIME
from .kernels import INPUT_NAMES, KernelTable, has_params, kernel_bodies
from .render import Identifiers, c_comment, c_string, c_type, render

RUNTIME_VERSION = 1  # TT_RUNTIME_VERSION of runtime_c/tinytrain.h
SELFTEST_SEED = 1


@dataclass(frozen=True)
class ModelInfo:
    """What the headers of generated files say about their origin."""

    prefix: str
    sha256: str
    options: str  # the command's options that shape the output, as typed by hand
    classes: int
    pixels: PixelMap | None  # how camera bytes become input bytes; None where the input is no picture


def emit_sources(graph: Graph, plan: MemoryPlan, kernels: KernelTable, info: ModelInfo) -> dict[str, str]:
    """name.h, name.c, name_arena.h, name_kernels.h/.c, name_weights.c and the runtime."""
    n = info.prefix
    context = _context(graph, plan, kernels, info)
    files = {
        f"{n}.h": render("model/model.h.j2", **context),
        f"{n}.c": render("model/model.c.j2", **context),
        f"{n}_arena.h": render("model/arena.h.j2", **context),
        f"{n}_kernels.h": render("model/kernels.h.j2", **context),
        f"{n}_kernels.c": render("model/kernels.c.j2", **context),
        f"{n}_weights.c": render("model/weights.c.j2", **context),
    }
    for path in sorted(RUNTIME.glob("*.[ch]")):
        files[f"runtime/{path.name}"] = path.read_text()
    return files


def selftest_input(count: int) -> Int8:
    """int8 (count,): the xorshift32 bytes that <name>_selftest_input() fills in."""
    state, values = SELFTEST_SEED, np.empty(count, np.uint8)
    for i in range(count):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        values[i] = state >> 24
    return values.view(np.int8)


def _context(graph: Graph, plan: MemoryPlan, kernels: KernelTable, info: ModelInfo) -> dict[str, Any]:
    names = Identifiers()
    arrays: list[dict[str, Any]] = []
    params: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    offsets: dict[str, str] = {}  # tensor or scratch name -> macro
    for tensor in graph.tensors:
        offsets[tensor] = f"{info.prefix}_at_{names.make(tensor)}".upper()

    def address(placement: Placement, macro: str) -> str:
        return f"r{placement.region} + {macro}"

    scratch_names = Identifiers()
    scratch_macro = {name: f"{info.prefix}_scratch_{scratch_names.make(name)}".upper() for name in plan.scratch}
    layer_names = Identifiers()
    for use in kernels.uses:
        node, kernel = use.node, use.kernel
        layer = layer_names.make(node.name)
        for member, values in kernel.arrays.items():
            arrays.append({"name": f"{info.prefix}_{layer}_{member}", "type": c_type(values), "values": values, "layer": node.name})
        if has_params(kernel):
            members = {m: f"{info.prefix}_{layer}_{m}" for m in kernel.arrays} | dict(kernel.scalars)
            params.append({"name": f"{info.prefix}_{layer}", "type": kernel.params_type, "members": members})
        arguments = [address(plan.tensors[name], offsets[name]) for name in (*node.inputs, node.output)]
        if has_params(kernel):
            arguments.append(f"&{info.prefix}_{layer}")
        if node.name in plan.scratch:
            arguments.append(address(plan.scratch[node.name], scratch_macro[node.name]))
        calls.append({"function": use.symbol, "arguments": arguments, "comment": c_comment(_describe(graph, use.node))})
    x, y, f = (graph.tensors[name] for name in (graph.input, graph.output, graph.features))
    functions = []
    for symbol, prototype in kernels.prototypes.items():
        kernel = next(use.kernel for use in kernels.uses if use.symbol == symbol)
        layers = [use.node.name for use in kernels.uses if use.symbol == symbol]
        functions.append({"prototype": prototype, "bodies": kernel_bodies(kernel), "layers": c_comment(", ".join(layers))})
    return {
        "name": info.prefix, "NAME": info.prefix.upper(), "version": __version__, "info": info,
        "runtime_version": RUNTIME_VERSION, "c_string": c_string(info.prefix), "options": c_comment(info.options),
        "input": x, "output": y, "features": f, "places": {
            key: plan.tensors[t.name] for key, t in (("input", x), ("output", y), ("features", f))
        },
        "macros": {key: offsets[t.name] for key, t in (("input", x), ("output", y), ("features", f))},
        "regions": [{"bytes": size, "bank": bank} for size, bank in zip(plan.region_bytes, plan.region_banks, strict=True)],
        "map": _memory_map(plan, offsets, scratch_macro), "arrays": arrays, "params": params, "calls": calls,
        "functions": functions, "uses_region": sorted({p.region for p in plan.placements}),
        "lower_bound": plan.lower_bound_bytes, "selftest_seed": SELFTEST_SEED, "selftest_crc": _selftest_crc(graph),
        "INPUT_NAMES": INPUT_NAMES,
    }  # fmt: skip


def _memory_map(plan: MemoryPlan, tensors: dict[str, str], scratch: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for p in sorted(plan.placements, key=lambda p: (p.region, p.offset, p.buffer.first)):
        macros = [tensors[t] for t in p.buffer.tensors] or [scratch[p.buffer.name.removesuffix(" (scratch)")]]
        rows += [{"macro": m, "offset": p.offset, "bytes": p.buffer.bytes, "first": p.buffer.first, "last": p.buffer.last,
                  "region": p.region} for m in macros]  # fmt: skip
    return rows


def _describe(graph: Graph, node: Any) -> str:
    def shape(name: str) -> str:
        return "x".join(str(d) for d in graph.tensors[name].shape)

    macs = operator_of(node).macs(node, graph.tensors)
    text = f"{node.name}: {node.op}, {' + '.join(shape(i) for i in node.inputs)} -> {shape(node.output)}"
    return text + (f", {macs:,} MACs" if macs else "")


def _selftest_crc(graph: Graph) -> int:
    output, features = run(graph, selftest_input(graph.tensors[graph.input].bytes))
    return zlib.crc32(features.tobytes(), zlib.crc32(output.tobytes()))


def weight_bytes(arrays: dict[str, NDArray[Any]]) -> int:
    return sum(int(a.nbytes) for a in arrays.values())
