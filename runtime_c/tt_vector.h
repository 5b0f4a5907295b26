/*
 * Vectors of int32 for processors with wide registers, in the notation that GCC and Clang share.
 *
 * Written out where compilers do not find it: they keep no array of accumulators in registers, and take
 * narrow registers for loops that end in bytes.
 */
#ifndef TT_VECTOR_H
#define TT_VECTOR_H

#include "tt_kernel.h"

#if TT_USE_VECTOR

/* Lanes of one register. */
#if defined(__AVX512F__)
#define TT_WIDTH 16
#elif defined(__AVX2__)
#define TT_WIDTH 8
#else
#define TT_WIDTH 4
#endif

typedef int32_t TT_MAY_ALIAS tt_vector __attribute__((vector_size(4 * TT_WIDTH)));
typedef uint32_t TT_MAY_ALIAS tt_unsigned_vector __attribute__((vector_size(4 * TT_WIDTH)));

/* --- In --------------------------------------------------------------------------------------- */

/* The first `count` lanes; the others read zero. */
TT_INLINE void tt_load_lanes(tt_vector *lanes, const int32_t *from, int32_t count)
{
    *lanes = (tt_vector){ 0 };
    memcpy(lanes, from, (size_t)count * sizeof *from);
}

TT_INLINE void tt_widen_lanes(tt_vector *lanes, const int8_t *from, int32_t count)
{
    int32_t values[TT_WIDTH] = { 0 };
    for (int32_t i = 0; i < count; i++) {
        values[i] = from[i];
    }
    memcpy(lanes, values, sizeof *lanes);
}

/* words[i]: word i of each of `count` rows, a row a lane. */
TT_INLINE void tt_load_rows(tt_vector *words, const int8_t *rows, int32_t row_words, int32_t count)
{
    if (count < TT_WIDTH) {
        memset(words, 0, (size_t)row_words * sizeof *words);
    }
    for (int32_t lane = 0; lane < count; lane++) {
        for (int32_t i = 0; i < row_words; i++, rows += 4) {
            memcpy((int32_t *)(words + i) + lane, rows, 4);
        }
    }
}

/* Byte i, from the low end, of each lane. */
TT_INLINE void tt_byte_of(tt_vector *lanes, const tt_vector *words, int32_t i)
{
    *lanes = (tt_vector)((tt_unsigned_vector)*words << (24 - 8 * i)) >> 24;
}

TT_INLINE void tt_widen_bytes(int32_t *to, const int8_t *from, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        to[i] = from[i];
    }
}

/* tt_plane4 with TT_WIDTH channels a pixel, of which the first `count` are copied. */
TT_INLINE void tt_plane(int8_t *plane, const int8_t *x, int32_t height, int32_t width, int32_t channels, int32_t rows,
                        int32_t columns, int32_t top, int32_t left, int32_t count)
{
    const int32_t inside_rows = rows - top < height ? rows - top : height;
    const int32_t inside_columns = columns - left < width ? columns - left : width;
    for (int32_t iy = 0; iy < inside_rows; iy++) {
        int8_t *to = plane + ((iy + top) * columns + left) * TT_WIDTH;
        const int8_t *from = x + iy * width * channels;
        for (int32_t ix = 0; ix < inside_columns; ix++, to += TT_WIDTH, from += channels) {
            if (count == TT_WIDTH) {
                memcpy(to, from, TT_WIDTH);
            } else {
                memcpy(to, from, (size_t)count);
            }
        }
    }
}

/* --- Out -------------------------------------------------------------------------------------- */

/* tt_requantize of each lane, before the clamp. Multipliers are not negative. */
TT_INLINE void tt_requantize_lanes(tt_vector *acc, const tt_vector *multipliers, int32_t shift, int32_t fits,
                                   int32_t zero)
{
    if (shift > 0 && !fits) {
        for (int32_t i = 0; i < TT_WIDTH; i++) {
            (*acc)[i] = tt_requantize((*acc)[i], (*multipliers)[i], shift, fits, zero);
        }
        return;
    }
    /* The product's upper half from products of 16-bit halves: no lane needs 64 bits. */
    const tt_vector a = (tt_vector)((tt_unsigned_vector)*acc << shift), a_high = a >> 16, a_low = a & 0xFFFF;
    const tt_vector m_high = *multipliers >> 16, m_low = *multipliers & 0xFFFF;
    const tt_unsigned_vector low = (tt_unsigned_vector)a_low * (tt_unsigned_vector)m_low;
    const tt_vector middle = a_high * m_low + (tt_vector)(low >> 16);
    const tt_unsigned_vector carry =
        (tt_unsigned_vector)(a_low * m_high) + (tt_unsigned_vector)(middle & 0xFFFF) + 0x8000;
    *acc = a_high * m_high + (middle >> 16) + (tt_vector)(carry >> 16) + zero;
}

/* Clamp and store the first `count` lanes of each pixel, `step` bytes apart. bytes: TT_WIDTH a pixel, to work in. */
TT_INLINE void tt_store_pixels(int8_t *y, const tt_vector *results, int8_t *bytes, int32_t pixels, int32_t step,
                               int32_t count, int32_t low, int32_t high)
{
    const int32_t *const values = (const int32_t *)results;
#pragma GCC unroll 1
    for (int32_t i = 0; i < pixels * TT_WIDTH; i++) {
        bytes[i] = tt_clamp(values[i], low, high);
    }
    for (int32_t i = 0; i < pixels; i++, y += step, bytes += TT_WIDTH) {
        if (count == TT_WIDTH) {
            memcpy(y, bytes, TT_WIDTH);
        } else {
            memcpy(y, bytes, (size_t)count);
        }
    }
}

#endif

#endif
