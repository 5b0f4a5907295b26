#include "tt_gradient.h"

#include "tt_dsp.h"

void tt_save_mask(uint32_t *bits, const int8_t *y, int32_t count, int32_t low, int32_t high)
{
    int32_t i = 0;
#if TT_USE_DSP
    const uint32_t lows = (uint8_t)low * 0x01010101u, highs = (uint8_t)high * 0x01010101u;
    for (; i + 32 <= count; i += 32) {
        uint32_t word = 0;
        for (int32_t lane = 0; lane < 32; lane += 8) {
            const uint32_t first = tt_between(tt_load4(y + i + lane), lows, highs, 0x08040201u, 0);
            word |= tt_between(tt_load4(y + i + lane + 4), lows, highs, 0x80402010u, first) << lane;
        }
        bits[i / 32] = word;
    }
#endif
    for (; i < count; i += 32) {
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
    int32_t i = 0;
#if TT_USE_DSP
    for (; i + 32 <= count; i += 32) {
        tt_word *const pairs = (tt_word *)(void *)(g + i);
        const uint32_t word = bits[i / 32];
#pragma GCC unroll 16
        for (int32_t pair = 0; pair < 16; pair++) {
            const int32_t low = (int32_t)(word << (31 - 2 * pair)) >> 31;
            const int32_t high = (int32_t)(word << (30 - 2 * pair)) >> 31;
            pairs[pair] &= tt_bottoms((uint32_t)low, (uint32_t)high);
        }
    }
#endif
    for (; i < count; i += 32) {
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
    int32_t i = 0;
#if TT_USE_DSP
    const tt_word *pairs = (const tt_word *)(const void *)g;
    uint32_t lows = 0, highs = 0;
    for (; i + 8 <= count; i += 8, pairs += 4) {
        tt_extremes(pairs[0], &lows, &highs);
        tt_extremes(pairs[1], &lows, &highs);
        tt_extremes(pairs[2], &lows, &highs);
        tt_extremes(pairs[3], &lows, &highs);
    }
    low = (int16_t)lows < (int32_t)lows >> 16 ? (int16_t)lows : (int32_t)lows >> 16;
    high = (int16_t)highs > (int32_t)highs >> 16 ? (int16_t)highs : (int32_t)highs >> 16;
#endif
    for (; i < count; i++) {
        low = g[i] < low ? g[i] : low;
        high = g[i] > high ? g[i] : high;
    }
    return -low > high ? -low : high;
}

int32_t tt_reach(const int8_t *x, int32_t count, int32_t zero)
{
    int32_t low = zero;
    int32_t high = zero;
    for (int32_t i = 0; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    return zero - low > high - zero ? zero - low : high - zero;
}

int32_t tt_input_shift(const int16_t *g, int32_t count, int32_t l1)
{
    return tt_headroom((uint64_t)tt_magnitude(g, count) * (uint32_t)l1, TT_MANTISSA_BITS);
}

int32_t tt_scale_channels(int16_t *g, int32_t count, int32_t channels, const tt_factors *factors, int32_t pre_shift)
{
    const int32_t shift = TT_FACTOR_BITS + pre_shift, half = 1 << (shift - 1);
    const int16_t *const values = factors->values;
    for (int32_t i = 0; i < count; i += channels) {
        int32_t c = 0;
#if TT_USE_DSP
#pragma GCC unroll 4
        for (; c + 2 <= channels; c += 2) {
            uint32_t pair, factor;
            memcpy(&pair, g + i + c, sizeof pair);
            memcpy(&factor, values + c, sizeof factor);
            const int32_t low = ((int16_t)pair * (int16_t)factor + half) >> shift;
            const int32_t high = (((int32_t)pair >> 16) * ((int32_t)factor >> 16) + half) >> shift;
            pair = tt_bottoms((uint32_t)low, (uint32_t)high);
            memcpy(g + i + c, &pair, sizeof pair);
        }
#endif
        for (; c < channels; c++) {
            g[i + c] = (int16_t)((g[i + c] * values[c] + half) >> shift);
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
    const int32_t half_a = shift_a == 0 ? 0 : 1 << (shift_a - 1), half_b = shift_b == 0 ? 0 : 1 << (shift_b - 1);
    for (int32_t i = 0; i < count; i++) { /* tt_shift_round of mantissas: 32 bits hold them with half a step */
        a[i] = tt_narrow(((a[i] + half_a) >> shift_a) + ((b[i] + half_b) >> shift_b), 0);
    }
    return exponent;
}
