"""Kernels of the backward pass alone, as C that runs them case by case: on this machine, or as a stand-in for a model.

Memory that a case may write lies between guard bytes and starts as junk; scratch memory is exactly what the compiler
plans for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from backward_cases import integer_gradients, make_gradient, make_input
from numpy.typing import NDArray
from tinytrain_compiler.codegen.kernels import kernel_bodies
from tinytrain_compiler.codegen.render import c_float, c_table
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.graph.gradient import Gradient, quantize_factors
from tinytrain_compiler.ops import Kernel, backward_of, operator_of, weights_of
from tinytrain_compiler.ops.backward import scale_channels
from tinytrain_compiler.ops.weight_rule import ParameterGradient
from tinytrain_compiler.reference.steps import Running, scaled
from tinytrain_compiler.reference.stochastic import SampleRandom, random_state, round_stochastically
from tinytrain_compiler.reference.trainer import TrainedTensor, moves_of
from tinytrain_compiler.resources import RUNTIME
from tinytrain_compiler.training.formats import STOCHASTIC, Rounding

RATE, SAMPLES, SEEN = 0.06, 3, 5


@dataclass(frozen=True)
class Case:
    """A kernel, a C statement that calls it, the buffers it names, and the bytes they hold afterwards."""

    label: str
    kernel: Kernel
    prototype: str  # {} stands for the function's name
    constants: dict[str, tuple[str, NDArray[np.generic]]]  # name -> C type, values
    buffers: dict[str, tuple[str, int]]  # name -> C type, bytes; those named after a constant start as its copy
    call: str  # statements; `result` is theirs to set
    result: int
    outputs: dict[str, bytes]  # buffer -> its first bytes afterwards


def last(graph: Graph) -> Node:
    return graph.nodes[-1]


def rounding_case(graph: Graph) -> Case:
    """Sums that round to 2^15 of either sign, one more than a mantissa may be: one weight an input, 127."""
    node = last(graph)
    constants = node.constants | {"weights": np.full_like(node.constants["weights"], 127)}
    graph = replace(graph, nodes=[*graph.nodes[:-1], replace(node, constants=constants)])
    factor = int(quantize_factors(constants["weight_scales"]).values[0])
    assert (constants["weight_scales"] == constants["weight_scales"][0]).all()
    (size, *_) = (m for m in range(2**15) if (m * factor + 2**14) >> 15 == 2**21 // 127)
    shape = graph.tensors[node.output].shape
    mantissa = np.where(np.arange(np.prod(shape)).reshape(shape) % 3 == 0, size, -size)
    case = input_gradient_case(graph, Gradient(mantissa.astype(np.int16), 0))
    assert set(np.frombuffer(case.outputs["dx"], np.int16).tolist()) == {32767, -32767}
    return case


def input_gradient_case(graph: Graph, gradient: Gradient) -> Case:
    """The input's gradient of a graph's last node."""
    node = last(graph)
    rule = backward_of(node)
    kernel = rule.kernel(node, graph.tensors, trained=False)
    assert kernel is not None
    g = scale_channels(gradient, quantize_factors(node.constants["weight_scales"]), kernel.arguments["drop"])
    l1, (expected,) = kernel.arguments["l1"], integer_gradients(graph, node, {}, gradient)
    forward = operator_of(node).kernel(node, graph.tensors)
    assert forward is not None
    return Case(
        label=f"{kernel.symbol} {kernel.shape}",
        kernel=kernel,
        prototype="void {}(const int16_t *g, int16_t *dx, const int8_t *weights, int32_t shift, void *scratch)",
        constants={"mantissas": ("int16_t", g.mantissa), "weights": ("int8_t", forward.arrays["weights"])},
        buffers={
            "g": ("int16_t", g.mantissa.nbytes),
            "dx": ("int16_t", expected.mantissa.nbytes),
            "scratch": ("tt_word", rule.scratch_bytes(node, graph.tensors)),
        },
        call=f"memcpy(g, mantissas, sizeof mantissas);\n    result = tt_input_shift(g, {g.mantissa.size}, {l1});\n"
        "    kernel(g, dx, weights, result, scratch);",
        result=expected.exponent - g.exponent,
        outputs={"dx": expected.mantissa.tobytes(), "g": g.mantissa.tobytes()},
    )


def learning_case(
    graph: Graph, kind: str, seed: int, channels: Sequence[int], reach: float, rounding: Rounding
) -> Case:
    """The weights' gradient and update of a graph's last node; reach: how much longer steps are than usual."""
    node, rng = last(graph), np.random.default_rng(seed)
    rule = weights_of(node)
    gradient = make_gradient(graph, node, kind, seed, -12)
    x = make_input(graph, seed).reshape(graph.tensors[node.inputs[0]].shape)
    found = rule.int16(node, graph.tensors, x, gradient, np.array(channels))
    most = rounding.limit
    deltas = rng.integers(-most, most + 1, found.values.shape) // rng.choice([1, 8], found.values.shape)
    factors = quantize_factors(1 / node.constants["weight_scales"])
    inverse, running_mean = 1 / node.constants["weight_scales"], Running(usual_square(found), SEEN)
    outputs = rule.layout(node).outputs_of(channels)
    tensor = TrainedTensor(deltas, -most, most, np.float32(300 * reach), inverse, outputs, running_mean)
    mean = tensor.running.mean
    moves = moves_of(tensor, found, RATE, SAMPLES)
    if rounding is STOCHASTIC:
        moves = round_stochastically(moves, SampleRandom(seed, 0, 0).layer(moves.shape))
    tensor.move(moves)
    random = int(random_state(np.array([seed * 0x9E3779B1 & 0xFFFFFFFF], np.uint32))[0])
    kernel, saved = rounding.kernel(rule.kernel(node, graph.tensors)), x[..., list(channels)]
    before = deltas.astype(np.dtype(f"int{8 * rounding.delta_bytes}"))
    zero = graph.tensors[node.inputs[0]].quantization.zero_point
    scratch = rule.scratch_bytes(node, graph.tensors, len(channels))
    running = np.array([tensor.running.mean], np.float32).tobytes() + np.array([SEEN + 1], np.int32).tobytes()
    call = f"""memcpy(deltas, before, sizeof before);
    memcpy(x, saved, sizeof saved);
    *running = (tt_running){{ {c_float(float(mean))}, {SEEN} }};
    const tt_conv_params pretrained = {{ .input_zero = {zero} }};
    const tt_learn_params p = {{ .pretrained = &pretrained, .weight_inverse = {{ inverse, {factors.exponent} }} }};
    const tt_learn_state s = {{ .channels = channels, .chosen = {len(channels)}, .deltas = deltas,
                               .delta_bytes = {rounding.delta_bytes},
                               .weight_norm = {c_float(float(tensor.norm))}, .weight_running = running }};
    tt_rate rate = {{ {c_float(RATE)}, {SAMPLES}, 0, {random}u }};
    kernel(&p, &s, &rate, mantissas, x, {gradient.exponent}, {gradient.magnitude}{", scratch" if scratch else ""});
    result = (int32_t)rate.saturated;"""
    return Case(
        label=f"{kernel.symbol} {kernel.shape} chosen {len(channels)} {rounding.name} reach {reach}",
        kernel=kernel,
        prototype="void {}(const tt_learn_params *p, const tt_learn_state *s, tt_rate *rate, const int16_t *g, "
        f"const int8_t *x, int32_t exponent, int32_t magnitude{', void *scratch' if scratch else ''})",
        constants={
            "mantissas": ("int16_t __attribute__((aligned(4)))", gradient.mantissa), "saved": ("int8_t", saved),
            "before": (rounding.c_type, before), "inverse": ("int16_t", factors.values),
            "channels": ("uint16_t", np.array(channels, np.uint16)),
        },
        buffers={
            "x": ("int8_t", saved.nbytes), "deltas": (rounding.c_type, before.nbytes), "running": ("tt_running", 8),
        } | ({"scratch": ("tt_word", scratch)} if scratch else {}),
        call=call,
        result=tensor.saturated,
        outputs={"deltas": tensor.deltas.astype(before.dtype).tobytes(), "running": running, "x": saved.tobytes()},
    )  # fmt: skip


def usual_square(found: ParameterGradient) -> np.float32:
    """A running mean of a size that gradients like this one leave."""
    total = max(int((found.values.astype(object) ** 2).sum()), 1)
    shift = max(0, total.bit_length() - 20)
    return scaled(np.float32(total >> shift), 2 * found.exponent + shift)


_FRAME = """
static _Alignas(16) uint8_t memory[{memory}];
static struct {{ uint8_t *at; size_t size; }} taken[8];
static int32_t takes;

static void forget(void)
{{
    memset(memory, 0xA5, sizeof memory);
    takes = 0;
}}

static void *take(size_t size)
{{
    uint8_t *const at = takes == 0 ? memory + 64 : taken[takes - 1].at + (taken[takes - 1].size + 79) / 16 * 16;
    taken[takes].at = at;
    taken[takes++].size = size;
    memset(at, 0xC3, size);
    return at;
}}

static int32_t intact(void)
{{
    int32_t next = 0;
    for (uint8_t *p = memory; p < memory + sizeof memory; p++) {{
        if (next < takes && p == taken[next].at) {{
            p += taken[next++].size;
        }}
        if (*p != 0xA5) {{
            return 0;
        }}
    }}
    return 1;
}}
"""


def cases_c(cases: Sequence[Case]) -> str:
    """run_case(index, output): int32 result, int32 whether the guards are intact, then the output buffers' bytes."""
    room = max(sum(-(-size // 16) * 16 + 80 for _, size in case.buffers.values()) for case in cases) + 256
    parts = ['#include "cases.h"\n#include "tt_dsp.h"\n#include "tt_learn.h"\n', _FRAME.format(memory=room)]
    for number, case in enumerate(cases):
        name = f"kernel_{number}"
        for variant, body in kernel_bodies(case.kernel).items():
            parts.append(f"#if {variant.condition or f'!defined(HAS_{name})'}\n#define HAS_{name}\n")
            parts.append(f"static {case.prototype.format(name)}\n{body}#endif\n")
        lines = [f"static const {c} {n}[] = {{\n{c_table(v)}\n}};" for n, (c, v) in case.constants.items()]
        lines += [f"{c} *const {n} = take({size}u);" for n, (c, size) in case.buffers.items()]
        copies = [f"memcpy(out, {n}, {len(data)}u);\n    out += {len(data)};" for n, data in case.outputs.items()]
        call = case.call.replace("kernel(", f"{name}(")
        body = "\n    ".join(["int32_t result;", "forget();", *lines, call, *copies, "return result;"])
        parts.append(f"static int32_t case_{number}(uint8_t *out)\n{{\n    {body}\n}}\n")
    table = ", ".join(f"case_{number}" for number in range(len(cases)))
    parts.append(f"""
void run_case(int32_t index, uint8_t *out)
{{
    static int32_t (*const run[])(uint8_t *) = {{ {table} }};
    int32_t head[2];
    head[0] = run[index](out + sizeof head);
    head[1] = intact();
    memcpy(out, head, sizeof head);
}}
""")
    return "".join(parts)


def output_bytes(cases: Sequence[Case]) -> int:
    return 8 + max(sum(map(len, case.outputs.values())) for case in cases)


def wrong(case: Case, output: bytes) -> str:
    """What differs; empty if nothing does."""
    result, intact = np.frombuffer(output[:8], np.int32).tolist()
    parts = [] if intact else ["guard bytes overwritten"]
    parts += [f"result {result}, not {case.result}"] if result != case.result else []
    at = 8
    for name, data in case.outputs.items():
        found = np.frombuffer(output[at : at + len(data)], np.uint8)
        differ = int((found != np.frombuffer(data, np.uint8)).sum())
        parts += [f"{differ} of {len(data)} bytes of {name} differ"] if differ else []
        at += len(data)
    return f"{case.label}: {', '.join(parts)}" if parts else ""


def write_cases(cases: Sequence[Case], directory: Path) -> None:
    """A folder that the firmware builder takes for a model called `cases`; its inferences run the cases."""
    runtime = directory / "runtime"
    runtime.mkdir(parents=True)
    for path in sorted(RUNTIME.iterdir()):
        (runtime / path.name).write_text(path.read_text())
    (directory / "cases.h").write_text(_HEADER.format(output=output_bytes(cases)))
    (directory / "cases.c").write_text(cases_c(cases))
    (directory / "cases_kernels.c").write_text(_MODEL)
    (directory / "cases_weights.c").write_text('#include "cases.h"\n')


_HEADER = """
#ifndef CASES_H
#define CASES_H
#include "tinytrain.h"
#define CASES_INPUT_BYTES 4
#define CASES_OUTPUT_BYTES {output}
#define CASES_FEATURES 1
#define CASES_REGION0_BYTES 16
typedef struct cases_session {{ int32_t unused; }} cases_session;
void run_case(int32_t index, uint8_t *out);
tt_status cases_init(cases_session *s, void *region0, size_t region0_bytes);
tt_status cases_infer(cases_session *s, const int8_t *input, tt_result *result);
tt_status cases_enroll(cases_session *s, const int8_t *input, int32_t label);
#endif
"""

_MODEL = """
#include "cases.h"
#include <string.h>
static uint8_t output[CASES_OUTPUT_BYTES];

tt_status cases_init(cases_session *s, void *region0, size_t region0_bytes)
{
    s->unused = region0 == NULL || region0_bytes == 0;
    return TT_OK;
}

tt_status cases_infer(cases_session *s, const int8_t *input, tt_result *result)
{
    int32_t index;
    memcpy(&index, input, sizeof index);
    run_case(index, output);
    s->unused = index;
    result->output = result->features = (const int8_t *)output;
    return TT_OK;
}

tt_status cases_enroll(cases_session *s, const int8_t *input, int32_t label)
{
    s->unused = input[0] + label;
    return TT_ERR_ARGUMENT;
}
"""
