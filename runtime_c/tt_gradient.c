#include "tt_gradient.h"

void tt_save_mask(uint32_t *bits, const int8_t *y, int32_t count, int32_t low, int32_t high)
{
    for (int32_t i = 0; i < count; i += 32) {
        const int32_t lanes = count - i < 32 ? count - i : 32;
        uint32_t word = 0;
        for (int32_t lane = 0; lane < lanes; lane++) {
            word |= (uint32_t)(y[i + lane] > low && y[i + lane] < high) << lane;
        }
        bits[i / 32] = word;
    }
}

void tt_save_channels(int8_t *saved, const int8_t *x, int32_t pixels, int32_t channels, const uint16_t *list,
                      int32_t chosen)
{
    for (int32_t pixel = 0; pixel < pixels; pixel++, x += channels, saved += chosen) {
        for (int32_t i = 0; i < chosen; i++) {
            saved[i] = x[list[i]];
        }
    }
}

void tt_apply_mask(int16_t *g, const uint32_t *bits, int32_t count)
{
    for (int32_t i = 0; i < count; i += 32) {
        const int32_t lanes = count - i < 32 ? count - i : 32;
        uint32_t word = bits[i / 32];
        for (int32_t lane = 0; lane < lanes; lane++, word >>= 1) {
            g[i + lane] = (int16_t)(g[i + lane] & -(int32_t)(word & 1u));
        }
    }
}

int32_t tt_magnitude(const int16_t *g, int32_t count)
{
    int32_t low = 0;
    int32_t high = 0;
    for (int32_t i = 0; i < count; i++) {
        low = g[i] < low ? g[i] : low;
        high = g[i] > high ? g[i] : high;
    }
    return -low > high ? -low : high;
}

int32_t tt_scale_channels(int16_t *g, int32_t count, int32_t channels, const tt_factors *factors, int32_t pre_shift)
{
    const int32_t shift = TT_FACTOR_BITS + pre_shift;
    for (int32_t i = 0; i < count; i += channels) {
        for (int32_t c = 0; c < channels; c++) {
            g[i + c] = (int16_t)((g[i + c] * factors->values[c] + (1 << (shift - 1))) >> shift);
        }
    }
    return factors->exponent + pre_shift;
}

int32_t tt_add_gradients(int16_t *a, int32_t exponent_a, const int16_t *b, int32_t exponent_b, int32_t count)
{
    int32_t exponent = exponent_a > exponent_b ? exponent_a : exponent_b;
    int32_t shift_a = exponent - exponent_a < 31 ? exponent - exponent_a : 31;
    int32_t shift_b = exponent - exponent_b < 31 ? exponent - exponent_b : 31;
    if ((tt_magnitude(a, count) >> shift_a) + (tt_magnitude(b, count) >> shift_b) + 2 > TT_MANTISSA_MAX) {
        exponent++; /* room for the carry */
        shift_a += shift_a < 31;
        shift_b += shift_b < 31;
    }
    for (int32_t i = 0; i < count; i++) {
        a[i] = tt_narrow(tt_shift_round(a[i], shift_a) + tt_shift_round(b[i], shift_b), 0);
    }
    return exponent;
}
