/*
 * Integer gradients: int16 mantissas and a power-of-two exponent a tensor (docs/reference/numerics.md, "Backward").
 *
 * Pieces that generated backward passes are made of and that do not depend on shapes enough to be generated.
 * Gradients are with respect to real values; exponents live in local variables of the generated code.
 */
#ifndef TT_GRADIENT_H
#define TT_GRADIENT_H

#include "tt_kernel.h"

#define TT_MANTISSA_BITS 15
#define TT_MANTISSA_MAX 32767
#define TT_FACTOR_BITS 15

/* Values per inner loop of gradient kernels: what a core's registers hold, or a host's vectors. Same results. */
#if defined(__arm__)
#define TT_LANES 4
#else
#define TT_LANES 16
#endif

/* Real factors as int16 fractions of 2^15 times 2^exponent. */
typedef struct tt_factors {
    const int16_t *values;
    int32_t exponent;
} tt_factors;

/* --- Arithmetic ------------------------------------------------------------------------------- */

TT_INLINE int32_t tt_bit_length(uint64_t value)
{
    int32_t bits = 0;
    for (; value != 0; value >>= 1) {
        bits++;
    }
    return bits;
}

/* value / 2^shift, rounded half up; shift 0 .. 31. */
TT_INLINE int32_t tt_shift_round(int32_t value, int32_t shift)
{
    return shift == 0 ? value : (int32_t)(((int64_t)value + (INT64_C(1) << (shift - 1))) >> shift);
}

TT_INLINE int16_t tt_narrow(int32_t acc, int32_t shift)
{
    const int32_t value = tt_shift_round(acc, shift);
    return (int16_t)(value > TT_MANTISSA_MAX ? TT_MANTISSA_MAX : value < -TT_MANTISSA_MAX ? -TT_MANTISSA_MAX : value);
}

/* The same from 64 bits; shift 0 .. 62. */
TT_INLINE int16_t tt_mantissa(int64_t value, int32_t shift)
{
    const int64_t m = shift == 0 ? value : (value + (INT64_C(1) << (shift - 1))) >> shift;
    return (int16_t)(m > TT_MANTISSA_MAX ? TT_MANTISSA_MAX : m < -TT_MANTISSA_MAX ? -TT_MANTISSA_MAX : m);
}

/* Bits to drop so that a value of this bound fits `bits` bits. */
TT_INLINE int32_t tt_headroom(uint64_t bound, int32_t bits)
{
    const int32_t over = tt_bit_length(bound) - bits;
    return over > 0 ? over : 0;
}

/* Bits to drop from mantissas of a magnitude so that magnitude * factor fits int32, also where they round up. */
TT_INLINE int32_t tt_safe_shift(int32_t magnitude, uint64_t factor)
{
    const int32_t shift = tt_headroom((uint64_t)magnitude * factor, 31);
    return shift + ((uint64_t)tt_shift_round(magnitude, shift) * factor >> 31 != 0);
}

/* --- What the forward pass saves -------------------------------------------------------------- */

/* One bit an element, set where low < y < high. bits: (count + 31) / 32 words. */
void tt_save_mask(uint32_t *bits, const int8_t *y, int32_t count, int32_t low, int32_t high);

/* The chosen channels of each pixel, packed: saved[pixel * chosen + i] = x[pixel * channels + list[i]]. */
void tt_save_channels(int8_t *saved, const int8_t *x, int32_t pixels, int32_t channels, const uint16_t *list,
                      int32_t chosen);

/* --- Gradients -------------------------------------------------------------------------------- */

/* Zero the gradient where the forward pass clipped. */
void tt_apply_mask(int16_t *g, const uint32_t *bits, int32_t count);

/* The largest magnitude. */
int32_t tt_magnitude(const int16_t *g, int32_t count);

/* The largest distance of a value from zero, a zero point. */
int32_t tt_reach(const int8_t *x, int32_t count, int32_t zero);

/* Bits that a sum of products of mantissas and weights loses, so that it is a mantissa; l1: sum of |w|, at most. */
int32_t tt_input_shift(const int16_t *g, int32_t count, int32_t l1);

/* g[i] *= factors[i % channels], and drop pre_shift bits; returns what the exponent grows by. */
int32_t tt_scale_channels(int16_t *g, int32_t count, int32_t channels, const tt_factors *factors, int32_t pre_shift);

/* a += b, two gradients of one tensor with exponents of their own; returns the sum's exponent. */
int32_t tt_add_gradients(int16_t *a, int32_t exponent_a, const int16_t *b, int32_t exponent_b, int32_t count);

#endif
