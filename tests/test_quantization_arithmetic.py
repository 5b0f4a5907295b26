"""The arithmetic itself: the one rounding rule, and the reference's operators against exact rational numbers.

The generated C is compared with the reference elsewhere; here the reference is compared with what it should
be, so that the two cannot be wrong together.
"""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from batch import sample
from exact import exact_steps
from graphs import GraphBuilder, describe, random_inputs
from hypothesis import given
from hypothesis import strategies as st
from operator_cases import STRATEGIES
from tinytrain_compiler.errors import UnsupportedModelError
from tinytrain_compiler.graph import Layout, Quantization, Tensor, quantize_multiplier, requantize
from tinytrain_compiler.ops import operator_of
from tinytrain_compiler.ops.weighted import INT32_MAX, accumulator_bound, bias_limit, requantize_shape
from tinytrain_compiler.quantize.input_bytes import pixel_map, quantize_samples
from tinytrain_compiler.reference import run_all
from tinytrain_compiler.resources import RUNTIME
from tools import require_or_skip

INT32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1]))
MULTIPLIERS = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2**30, 2**31 - 1]))
ZEROS = st.integers(-128, 127)


def rounded(acc: int, multiplier: int, shift: int, zero: int, low: int = -128, high: int = 127) -> int:
    """docs/reference/numerics.md, "Requantisation", word for word."""
    return min(max(zero + floor(Fraction(acc * multiplier, 2 ** (32 - shift)) + Fraction(1, 2)), low), high)


@given(INT32, MULTIPLIERS, st.integers(0, 30), ZEROS)
def test_reference_rounds_half_up_once(acc: int, multiplier: int, shift: int, zero: int) -> None:
    got = requantize(np.array([acc]), np.array([multiplier], np.int32), shift, zero, -128, 127)
    assert got[0] == rounded(acc, multiplier, shift, zero)


@pytest.fixture(scope="module")
def c_requantize(tmp_path_factory: pytest.TempPathFactory) -> ctypes._NamedFuncPointer:
    require_or_skip("gcc")
    library = tmp_path_factory.mktemp("requantize") / "requantize.so"
    source = Path(__file__).parent / "c" / "requantize.c"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIC", "-shared", f"-I{RUNTIME}"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).requantize
    function.argtypes = [ctypes.c_int32] * 7
    return function


@given(acc=INT32, multiplier=MULTIPLIERS, shift=st.integers(0, 30), zero=ZEROS)
def test_c_rounds_the_same_in_32_and_in_64_bits(
    c_requantize: ctypes._NamedFuncPointer, acc: int, multiplier: int, shift: int, zero: int
) -> None:
    wanted = rounded(acc, multiplier, shift, zero)
    assert c_requantize(acc, multiplier, shift, 0, zero, -128, 127) == wanted
    if -(2**31) <= acc << shift < 2**31:
        assert c_requantize(acc, multiplier, shift, 1, zero, -128, 127) == wanted


@given(st.lists(st.floats(0, 2.0**28), min_size=1, max_size=5))
def test_multiplier_is_the_nearest_with_the_smallest_shift(factors: list[float]) -> None:
    m = quantize_multiplier(np.array(factors))
    assert m.values.dtype == np.int32
    assert m.values.min() >= 0
    for value, factor in zip(m.values.tolist(), factors, strict=True):
        assert abs(Fraction(value, 2 ** (32 - m.shift)) - Fraction(factor)) <= Fraction(1, 2 ** (33 - m.shift))
    if m.shift:
        assert max(round(Fraction(f) * 2 ** (33 - m.shift)) for f in factors) >= 2**31, "one less would do"


@pytest.mark.parametrize("factor", [-1e-9, np.inf, np.nan, 2.0**29])
def test_factor_out_of_range_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="requantisation factor"):
        quantize_multiplier(np.array([0.1, factor]))


@pytest.mark.parametrize("family", STRATEGIES)
def test_reference_is_the_exact_result_rounded(family: str) -> None:
    half = Fraction(1, 2)
    tight = total = 0  # a huge bias meets the multiplier's own rounding error: no sharp limit there
    for graph in sample(STRATEGIES[family], 60):
        values = run_all(graph, random_inputs(graph, 1)[0])
        for node in graph.nodes:
            limits = node.attributes
            low, high = getattr(limits, "low", -128), getattr(limits, "high", 127)
            for index, steps, error in exact_steps(graph, node, [values[name] for name in node.inputs]):
                tight, total = tight + (error < half or not low < steps < high), total + 1
                least, most = (min(max(floor(steps + half + e), low), high) for e in (-error, error))
                assert least <= values[node.output][index] <= most, (node.name, index, float(steps), describe(graph))
    assert tight > 0.8 * total


@pytest.mark.parametrize("op", ["conv2d", "depthwise", "fully_connected"])
def test_no_input_leaves_the_proven_accumulator_bound(op: str) -> None:
    b = GraphBuilder((3, 3, 4), zero=-128, seed=3)
    out = {
        "conv2d": lambda: b.conv2d(b.input, 5, (3, 3)),
        "depthwise": lambda: b.depthwise(b.input, (3, 3)),
        "fully_connected": lambda: b.fully_connected(b.input, 5),
    }[op]()
    graph = b.build(out)
    (node,) = graph.nodes
    w = node.constants["weights"].astype(np.int64).reshape(len(node.constants["weights"]), -1)
    folded = node.constants["bias"].astype(np.int64) + 128 * w.sum(1)  # zero point -128
    worst = [max(abs(int(b0 + np.where(row > 0, hi, lo) @ row)) for lo, hi in ((-128, 127), (127, -128)))
             for b0, row in zip(folded, w, strict=True)]  # fmt: skip
    assert max(worst) <= accumulator_bound(node, -128) <= 1.01 * max(worst) + 128


@pytest.mark.parametrize("y_scale", [1.0, 1e-4])  # requantised without and with a shift
@pytest.mark.parametrize("zero", [-128, 3, 127])
def test_no_weights_and_biases_that_are_learnt_leave_the_accumulator(zero: int, y_scale: float) -> None:
    b = GraphBuilder((3, 3, 4), zero=zero, seed=3)
    graph = b.build(b.conv2d(b.input, 5, (3, 3), name="stem"))
    (node,) = graph.nodes
    quantization = graph.tensors[node.output].quantization
    tensors = graph.tensors | {
        node.output: replace(graph.tensors[node.output], quantization=replace(quantization, scale=y_scale))
    }
    limit, shift = bias_limit(node, tensors), requantize_shape(node, tensors)["SHIFT"]
    assert (shift > 0) == (y_scale < 1)
    bias = node.constants["bias"].astype(np.int64)
    for weight in (-128, 127):
        for moved in (-limit, limit):
            state = node.constants | {"weights": np.full_like(node.constants["weights"], weight), "bias": bias + moved}
            assert accumulator_bound(replace(node, constants=state), zero) <= INT32_MAX >> shift
    assert limit > (INT32_MAX >> shift) * 0.9


def test_a_layer_without_room_to_learn_is_named() -> None:
    b = GraphBuilder((2, 2, 3))
    b.conv2d(b.input, 4, name="stem")
    graph = b.build()
    graph.nodes[0].constants["bias"][2] = 2**31 - 1 - 2**15
    with pytest.raises(
        UnsupportedModelError, match=r"conv2d 'stem': its accumulator leaves no room for what it learns"
    ):
        bias_limit(graph.nodes[0], graph.tensors)


def test_accumulator_that_can_overflow_is_refused_by_name() -> None:
    b = GraphBuilder((2, 2, 3))
    b.conv2d(b.input, 4, name="stem")
    graph = b.build()
    graph.nodes[0].constants["bias"][2] = 2**31 - 1
    with pytest.raises(UnsupportedModelError, match=r"conv2d 'stem': its accumulator can exceed 32 bits"):
        operator_of(graph.nodes[0]).kernel(graph.nodes[0], graph.tensors)


@given(st.floats(1e-3, 0.5), ZEROS, st.sampled_from([(127.5, 127.5), (0.0, 255.0), (0.0, 1.0), (123.7, 58.4)]))
def test_pixels_become_the_bytes_of_their_normalised_value(
    scale: float, zero: int, mean_std: tuple[float, float]
) -> None:
    """The header's integers against float quantisation: the same byte, or one off at a rounding boundary."""
    mean, std = mean_std
    pixels = np.arange(256, dtype=np.uint8)[:, None]
    m = pixel_map(Tensor("x", (1, 1, 1), Quantization(scale, zero)), (mean,), (std,))
    if m is None:
        return
    exact = [Fraction(p - Fraction(mean)) / Fraction(std) / Fraction(scale) + zero for p in range(256)]
    got = m.apply(pixels)[:, 0]
    for value, byte in zip(exact, got, strict=True):
        error = Fraction(256, 2**16)  # 255 multipliers off by half a unit of 2^-16, and the offset
        least, most = (min(max(floor(value + Fraction(1, 2) + e), -128), 127) for e in (-error, error))
        assert least <= byte <= most


def test_samples_become_bytes_in_channels_last_order_and_round_half_to_even() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2) / 2
    got = quantize_samples(x, Tensor("x", (2, 2, 3), Quantization(1.0, 1)), Layout.image((1, 3, 2, 2)))
    assert got.reshape(2, 2, 3)[0, 1].tolist() == [1, 3, 5]  # 0.5, 2.5, 4.5 -> 0, 2, 4, plus the zero point
    clipped = quantize_samples(
        np.array([[-1e6, 1e6]], np.float32), Tensor("x", (2,), Quantization(0.1, 0)), Layout.row_major((1, 2))
    )
    assert clipped.tolist() == [[-128, 127]]
