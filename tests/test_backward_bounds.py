"""The bounds that the compiler proves of backward passes: accumulators driven to them stay in int32."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backward_cases import INT32, WEIGHTED, examples, integer_gradients
from graphs import GraphBuilder, describe, random_inputs
from numpy.typing import NDArray
from real_operators import real_forward
from tinytrain_compiler.graph import Graph, Node
from tinytrain_compiler.graph.gradient import MANTISSA_MAX, Gradient
from tinytrain_compiler.ops import Int8, weights_of
from tinytrain_compiler.reference import run_all
from tinytrain_compiler.reference.backward import bias_gradient
from tinytrain_compiler.reference.steps import Running
from tinytrain_compiler.reference.trainer import TrainedTensor, moves_of
from tinytrain_compiler.resources import RUNTIME
from tools import require_or_skip


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(largest accumulator, its bound) of every call of narrow."""
    calls: list[tuple[int, int]] = []
    for name in ("conv2d", "depthwise_conv2d", "fully_connected", "avg_pool", "max_pool"):
        module = sys.modules[f"tinytrain_compiler.ops.{name}"]
        original = module.narrow

        def spy(acc: NDArray[np.int64], bound: int, exponent: int, original=original) -> Gradient:  # type: ignore[no-untyped-def]
            calls.append((int(np.abs(acc).max(initial=0)), bound))
            return original(acc, bound, exponent)

        monkeypatch.setattr(module, "narrow", spy)
    return calls


def adversary(graph: Graph, node: Node) -> Gradient:
    """All mantissas at the limit; with the signs of the weights that meet in the input element with the most.

    The element is found with the transpose by definition: unit inputs through the operator.
    """
    shape_in, shape_out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.output].shape
    units = np.eye(int(np.prod(shape_in))).reshape(-1, *shape_in)
    if "weights" not in node.constants:
        return Gradient(np.full(shape_out, MANTISSA_MAX, np.int16), 0)
    weights = node.constants["weights"].astype(np.float64)
    sizes = real_forward(graph, node, [units], np.abs(weights)).reshape(len(units), -1).sum(1)
    signs = np.where(real_forward(graph, node, [units[sizes.argmax()][None]], weights)[0] < 0, -1, 1)
    return Gradient((MANTISSA_MAX * signs).astype(np.int16).reshape(shape_out), 0)


def check_bound(graph: Graph, narrowed: list[tuple[int, int]], x: Int8 | None = None) -> float:
    """Drive the last node to its bound; returns how much of it was reached."""
    node = graph.nodes[-1]
    x = random_inputs(graph, 1)[0] if x is None else x
    if "weight_scales" in node.constants:  # equal ones, and so large that scaled mantissas stay at the limit
        node.constants["weight_scales"][:] = MANTISSA_MAX / 2**15
    (got,) = integer_gradients(graph, node, run_all(graph, x), adversary(graph, node))
    largest, bound = narrowed[-1]
    assert largest <= bound < INT32, describe(graph)
    assert got.magnitude <= MANTISSA_MAX
    return largest / bound


@pytest.mark.parametrize("family", [*WEIGHTED, "avg_pool", "max_pool"])
def test_nothing_leaves_int32(family: str, narrowed: list[tuple[int, int]]) -> None:
    for graph in examples(family):
        check_bound(graph, narrowed)


PADDED = {"pad_before": (1, 1), "pad_after": (1, 1)}


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize(
    ("kernel", "window", "given_away"),
    [
        ((1, 1), {}, 1),
        ((3, 3), PADDED, 1),
        ((3, 3), {"dilation": (2, 2)}, 1),
        ((5, 2), {"pad_before": (2, 1)}, 1),
        ((3, 3), PADDED | {"stride": (2, 2)}, 4),
        ((2, 5), {"stride": (1, 3), "pad_after": (0, 2)}, 3),
        ((3, 3), {"stride": (3, 2), "dilation": (1, 2), "pad_before": (1, 2)}, 6),
    ],
)
def test_the_bound_is_reached(
    kernel: tuple[int, int], window: dict, given_away: int, groups: int, narrowed: list[tuple[int, int]]
) -> None:
    """To the last bit at stride 1. With a stride only every s-th tap meets in a pixel: at most s_y s_x is given away,
    and where the dilation is a multiple of the stride nothing."""
    b = GraphBuilder((9, 11, 6))
    b.depthwise(b.input, kernel, **window) if groups == 6 else b.conv2d(b.input, 12, kernel, groups=groups, **window)
    share = check_bound(b.build(), narrowed)
    assert share == 1 if given_away == 1 else 1 / given_away <= share <= 1


def test_pools_reach_their_bounds(narrowed: list[tuple[int, int]]) -> None:
    b = GraphBuilder((6, 6, 3))
    b.avg_pool(b.input, (3, 2), stride=(1, 1))
    assert check_bound(b.build(), narrowed) == 1
    b = GraphBuilder((6, 6, 1))
    b.max_pool(b.input, (3, 2), stride=(1, 1))
    peak = np.arange(36) == 3 * 6 + 2  # the maximum of all six windows that see it
    assert check_bound(b.build(), narrowed, peak.astype(np.int8)) == 1


@pytest.mark.parametrize("rows", [516, 517, 1032, 1033, 2064, 2065, 4128, 4129])
def test_wide_layers_drop_bits_before_they_leave_int32(rows: int, narrowed: list[tuple[int, int]]) -> None:
    """127 weights of 127 are 2**14 less 255: the last row's weight brings the sum to where rounding counts."""
    b = GraphBuilder((3,), zero=0)
    b.fully_connected(b.input, rows)
    graph = b.build()
    weights = graph.nodes[-1].constants["weights"]
    weights[:] = 127
    weights[::2, 1] = -128
    weights[-1] = {2065: 16, 4129: 32}.get(rows, 127)
    assert check_bound(graph, narrowed) == 1
    assert narrowed[-1][0] >= 2**29, "no more than two bits are given away"


def test_weight_gradients_stay_in_int32_where_rounding_counts() -> None:
    """10741.5 rounds up; 10742 * 784 pixels * 255 is more than 2**31."""
    b = GraphBuilder((28, 28, 1), zero=-128)
    b.conv2d(b.input, 2)
    graph = b.build()
    mantissa = np.broadcast_to(np.array([21483, -21483], np.int16), (28, 28, 2))
    x = np.full((28, 28, 1), 127, np.int8)
    node = graph.nodes[-1]
    found = weights_of(node).int16(node, graph.tensors, x, Gradient(mantissa, 0), np.array([0]))
    assert 2**29 <= np.abs(found.values).max() < INT32


PIXELS = [65_537, 65_538, 65_539, 131_077]  # 32767 * 65538 is 2**31 - 2
BIAS_PROGRAM = """
#include <stdio.h>
#include "tt_learn.h"
static int16_t g[131077 * 2];
int main(void)
{
    static const int16_t inverses[] = { 32767, 32767 };
    static const tt_conv_params conv;
    static const tt_learn_params layer = { .pretrained = &conv, .outputs = 2, .bias_inverse = { inverses, 0 },
                                           .bias_norm = 1.0f, .bias_limit = INT32_MAX };
    for (int32_t i = 0; i < 131077 * 2; i++) g[i] = i % 2 ? -32767 : 32767;
    const int32_t pixels[] = { 65537, 65538, 65539, 131077 };
    for (int32_t i = 0; i < 4; i++) {
        int32_t bias[2] = { 0, 0 };
        tt_running running = { 16777216.0f, 3 };
        const tt_learn_state s = { .bias = bias, .bias_running = &running };
        tt_rate rate = { 1.0f, 1, 0 };
        tt_learn_bias(&layer, &s, &rate, g, pixels[i], 0, 32767);
        printf("%d %d %.9g\\n", (int)bias[0], (int)bias[1], (double)running.mean);
    }
    return 0;
}
"""


def test_bias_sums_stay_in_int32_beyond_65538_pixels(tmp_path: Path) -> None:
    """In C under the sanitizer, and the reference's values: mantissas lose a bit where the sum has no room."""
    require_or_skip("gcc")
    (tmp_path / "bias.c").write_text(BIAS_PROGRAM)
    sources = [tmp_path / "bias.c", RUNTIME / "tt_learn.c", RUNTIME / "tt_math.c"]
    flags = ["-std=c11", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", f"-I{RUNTIME}"]
    subprocess.run(["gcc", *flags, *map(str, sources), "-lm", "-o", str(tmp_path / "bias")], check=True)
    ran = subprocess.run([str(tmp_path / "bias")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    for pixels, line in zip(PIXELS, ran.stdout.splitlines(), strict=True):
        row = np.array([[MANTISSA_MAX, -MANTISSA_MAX]], np.int16)
        gradient = bias_gradient(Gradient(np.repeat(row, pixels, axis=0), 0))
        assert 2**29 <= np.abs(gradient.values).max() < INT32
        assert gradient.exponent == {65_537: 0, 65_538: 0, 65_539: 1, 131_077: 2}[pixels]
        inverse, outputs = np.full(2, MANTISSA_MAX / 2**15), np.arange(2)
        running = Running(np.float32(2**24), 3)
        bias = TrainedTensor(np.zeros(2, np.int64), -INT32 + 1, INT32 - 1, np.float32(1), inverse, outputs, running)
        bias.move(moves_of(bias, gradient, 1.0, 1))
        assert [int(v) for v in line.split()[:2]] == bias.deltas.tolist()
        assert np.float32(line.split()[2]) == bias.running.mean
        assert bias.deltas.any()
