"""Integer gradients: rounding, exponents and proved bounds, apart from any operator."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tinytrain_compiler.graph.gradient import (
    FACTOR_BITS,
    MANTISSA_MAX,
    Factors,
    Gradient,
    add_gradients,
    narrow,
    quantize_factors,
    quantize_gradient,
    shift_round,
)
from tinytrain_compiler.ops.backward import (
    headroom,
    input_pre_shift,
    masked,
    parameter_shift,
    prepare,
    scale_channels,
)

INT32 = 2**31

mantissas = st.lists(
    st.one_of(st.integers(-MANTISSA_MAX, MANTISSA_MAX), st.sampled_from([0, 1, -1, MANTISSA_MAX, -MANTISSA_MAX])),
    min_size=1,
    max_size=6,
)
exponents = st.integers(-60, 60)
finite = st.floats(-1e30, 1e30, allow_subnormal=True)


def gradient(values: list[int] | np.ndarray, exponent: int = 0) -> Gradient:
    return Gradient(np.array(values, np.int16), exponent)


def exact(g: Gradient) -> list[Fraction]:
    return [Fraction(int(m)) * Fraction(2) ** g.exponent for m in g.mantissa.reshape(-1)]


def pairs(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    size = min(len(left), len(right))
    return left[:size], right[:size]


# -- rounding ------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**46), 2**46), min_size=1), st.integers(0, 45))
@example([1, -1, 3, -3, 2, -2], 1)
@example([2**31 - 1, -(2**31)], 31)
def test_shift_round_is_division_rounded_half_up(values: list[int], shift: int) -> None:
    expected = [floor(Fraction(v, 2**shift) + Fraction(1, 2)) if shift else v for v in values]
    assert shift_round(np.array(values, np.int64), shift).tolist() == expected


@given(st.lists(st.integers(-INT32 + 1, INT32 - 1), min_size=1), st.integers(1, 16))
def test_shift_round_has_a_form_that_cannot_overflow_32_bits(values: list[int], shift: int) -> None:
    """Kernels cannot add half a step to an accumulator that may be 2**31 - 1; this is how they can round instead."""
    v = np.array(values, np.int32)
    assert np.array_equal((v >> shift) + ((v >> (shift - 1)) & 1), shift_round(v.astype(np.int64), shift))


# -- narrow --------------------------------------------------------------------------------------


@st.composite
def accumulators(draw: st.DrawFn) -> tuple[list[int], int]:
    """Values and a bound that they keep; often one that they reach, and powers of two and their neighbours."""
    near = st.integers(0, 31).flatmap(lambda bits: st.sampled_from([2**bits - 1, 2**bits, 2**bits + 1]))
    bound = min(draw(st.one_of(st.integers(0, INT32 - 1), near)), INT32 - 1)
    values = draw(st.lists(st.integers(-bound, bound), max_size=5))
    return [*values, *draw(st.sampled_from([[], [bound], [-bound], [bound, -bound]])), 0], bound


@given(accumulators(), exponents)
@example(([2**16 - 1, 1 - 2**16], 2**16 - 1), 0)  # rounds up to 2**15, which is not an int16
@example(([INT32 - 1, 1 - INT32], INT32 - 1), 0)
def test_narrow_keeps_every_value_within_its_bound(case: tuple[list[int], int], exponent: int) -> None:
    values, bound = case
    g = narrow(np.array(values, np.int64), bound, exponent)
    step = Fraction(2) ** g.exponent
    assert g.mantissa.dtype == np.int16
    assert g.magnitude <= MANTISSA_MAX
    for value, got in zip(values, exact(g), strict=True):
        error = abs(Fraction(value) * Fraction(2) ** exponent - got)
        assert error <= step / 2 or (error < step and abs(got) == MANTISSA_MAX * step)
    if g.exponent == exponent:
        assert g.mantissa.tolist() == values
    else:
        assert bound * Fraction(2) ** exponent >= step * 2**14, "no bit is given away between the bound and int16"


def test_narrow_saturates_beyond_its_bound() -> None:
    g = narrow(np.array([10**9, -(10**9), 40_000, 100]), 100, 3)
    assert (g.mantissa.tolist(), g.exponent) == ([MANTISSA_MAX, -MANTISSA_MAX, MANTISSA_MAX, 100], 3)


@given(st.integers(0, INT32 - 1))
def test_headroom_is_the_shift_of_narrow(bound: int) -> None:
    assert narrow(np.array([bound]), bound, 0).exponent == headroom(bound)


# -- sums of gradients ---------------------------------------------------------------------------


@given(mantissas, mantissas, exponents, exponents)
@example([MANTISSA_MAX], [MANTISSA_MAX], 0, 0)  # both halves round up
@example([MANTISSA_MAX], [MANTISSA_MAX], 0, -1)
@example([-MANTISSA_MAX], [-MANTISSA_MAX], 5, 5)
@example([MANTISSA_MAX], [-MANTISSA_MAX], -60, 60)
@example([-1, 1, 0], [-1, 0, 0], 40, -40)  # so far apart that nothing of the second is left
def test_add_gradients_is_off_by_at_most_one_step_of_the_larger_exponent(
    left: list[int], right: list[int], e_left: int, e_right: int
) -> None:
    left, right = pairs(left, right)
    a, b = gradient(left, e_left), gradient(right, e_right)
    total = add_gradients(a, b)
    assert total.mantissa.dtype == np.int16
    assert 0 <= total.exponent - max(e_left, e_right) <= 1, "no more than the carry needs"
    assert total.magnitude <= MANTISSA_MAX
    for x, y, got in zip(exact(a), exact(b), exact(total), strict=True):
        assert abs(x + y - got) <= Fraction(2) ** total.exponent
    swapped = add_gradients(b, a)
    assert np.array_equal(total.mantissa, swapped.mantissa)


@given(mantissas, exponents, st.integers(-60, 0))
def test_adding_zero_of_no_larger_exponent_costs_one_bit(values: list[int], exponent: int, below: int) -> None:
    a, zero = gradient(values, exponent), gradient([0] * len(values), exponent + below)
    for x, got in zip(exact(a), exact(add_gradients(a, zero)), strict=True):
        assert abs(x - got) <= Fraction(2) ** exponent


# -- quantisation --------------------------------------------------------------------------------


@given(st.lists(finite, min_size=1, max_size=8))
@example([0.0, -0.0])
@example([5e-324, 0.0])
@example([1.0, -1.0, 0.5])
@example([np.nextafter(1.0, 0), np.nextafter(-1.0, 0)])  # rounds up to 2**15
@example([1e-300, -1e30])
def test_quantize_gradient_uses_all_bits(real: list[float]) -> None:
    g = quantize_gradient(np.array(real))
    step = Fraction(2) ** g.exponent
    assert g.mantissa.dtype == np.int16
    assert g.magnitude <= MANTISSA_MAX
    largest = max(abs(v) for v in real)
    assert g.magnitude >= 2**14 if largest else g.magnitude == 0
    for value, got in zip(real, exact(g), strict=True):
        error = abs(Fraction(value) - got)
        assert error <= step / 2 or (error <= step and abs(got) == MANTISSA_MAX * step)


def test_an_empty_gradient_is_zero() -> None:
    g = quantize_gradient(np.zeros((0, 3)))
    assert (g.magnitude, g.mantissa.shape, add_gradients(g, g).magnitude) == (0, (0, 3), 0)


@given(mantissas, exponents)
def test_real_values_survive_quantisation_to_all_bits(values: list[int], exponent: int) -> None:
    g = gradient(values, exponent)
    again = quantize_gradient(g.real)
    assert exact(again) == exact(g)


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=8))
@example([0.0])
@example([0.5, 0.25])
@example([float(np.nextafter(0.5, 0))])  # rounds up to 2**15: one more bit
@example([1e6, 1e-6])
def test_quantize_factors_share_the_smallest_exponent_that_fits(real: list[float]) -> None:
    factors = quantize_factors(np.array(real))
    step = Fraction(2) ** (factors.exponent - FACTOR_BITS)
    assert factors.values.dtype == np.int16
    assert factors.values.min() >= 0
    for value, got in zip(real, factors.values.tolist(), strict=True):
        assert abs(Fraction(value) - got * step) <= step / 2
    if max(real) > 0:
        assert factors.values.max() >= 2**14
        assert Fraction(max(real)) / (step / 2) + Fraction(1, 2) > MANTISSA_MAX, "half the step would not fit"


# -- bounds of accumulators ----------------------------------------------------------------------


def scaled_extremes(l1: int) -> int:
    """The largest scaled mantissa in front of a layer with this L1 norm."""
    extremes = gradient([MANTISSA_MAX, -MANTISSA_MAX])
    largest = Factors(np.full(2, MANTISSA_MAX, np.int16), 0)
    return scale_channels(extremes, largest, input_pre_shift(l1)).magnitude


NEAR_POWERS = [2**k + d for k in range(15, 30) for d in (-1, 0, 1, 2, 4, 8, 9, 40)]


@given(st.integers(1, 2**30))
def test_no_l1_norm_lets_an_input_gradient_leave_int32(l1: int) -> None:
    assert scaled_extremes(l1) * l1 < INT32
    shift = input_pre_shift(l1)
    assert not shift or MANTISSA_MAX * l1 / 2**shift >= 2**30 - l1 / 4, "no more than one bit is given away"


def test_l1_norms_where_rounding_counts() -> None:
    """Scaled mantissas are rounded, up as well, so the product of the bounds is not the bound of the product."""
    assert [l1 for l1 in NEAR_POWERS if scaled_extremes(l1) * l1 >= INT32] == []


@settings(max_examples=400)
@given(st.integers(1, MANTISSA_MAX), st.integers(1, 2**20), st.integers(1, 255))
@example(21483, 28 * 28, 255)  # 10741.5 rounds up, and the sum would reach 2**31
@example(MANTISSA_MAX, 32897, 255)
@example(MANTISSA_MAX, 257, 255)
@example(1, 2**20, 255)
@example(MANTISSA_MAX, 65_538, 1)  # the largest sum of biases that loses no bit
@example(MANTISSA_MAX, 65_539, 1)
def test_no_parameter_gradient_leaves_int32(magnitude: int, terms: int, factor: int) -> None:
    g = gradient([magnitude, -magnitude])
    shift = parameter_shift(g, terms, factor)
    reached = int(np.abs(prepare(g, shift)).max()) * terms * factor
    assert reached < INT32
    whole = magnitude * terms * factor
    assert not shift or whole / 2**shift >= 2**30 - terms * factor / 4, "no more than one bit is given away"


@given(mantissas, st.integers(0, 16), st.integers(-20, 20))
def test_scaling_channels_is_off_by_less_than_one_step(values: list[int], pre_shift: int, exponent: int) -> None:
    """Half a step of rounding, and half a step of the factor on the largest mantissa."""
    scales = np.linspace(0.02, 0.9, len(values))
    g = gradient(values, exponent)
    scaled = scale_channels(g, quantize_factors(scales), pre_shift)
    for value, scale, got in zip(exact(g), scales, exact(scaled), strict=True):
        assert abs(value * Fraction(float(scale)) - got) < Fraction(2) ** scaled.exponent


@given(mantissas, st.integers(0, 2**6 - 1), exponents)
def test_masking_zeroes_the_clipped_and_nothing_else(values: list[int], bits: int, exponent: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(len(values))], np.bool_)
    g = masked(gradient(values, exponent), mask)
    assert (g.mantissa.dtype, g.exponent) == (np.int16, exponent)
    assert g.mantissa.tolist() == [v if keep else 0 for v, keep in zip(values, mask, strict=True)]
