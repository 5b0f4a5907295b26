/*
 * What generated kernels are made of: parameter structs and the one rounding rule.
 *
 * docs/reference/numerics.md specifies the arithmetic. `>>` of a negative number is an arithmetic shift on
 * every compiler this code is meant for (C11 leaves it to the implementation); checked here once.
 */
#ifndef TT_KERNEL_H
#define TT_KERNEL_H

#include <stdint.h>
#include <string.h>

_Static_assert(-1 >> 1 == -1, "TinyTrain needs an arithmetic right shift");
_Static_assert(sizeof(int32_t) == 4 && (int8_t)-128 == -128, "TinyTrain needs two's complement int8 and int32");

/* The DSP variant needs the Armv7E-M / Armv8-M DSP extension; TT_PORTABLE forces the portable one. */
#if defined(__ARM_FEATURE_DSP) && !defined(TT_PORTABLE)
#define TT_USE_DSP 1
#else
#define TT_USE_DSP 0
#endif

/*
 * The vector variant is for studies on application processors: it needs registers of 16 bytes and more, a deep stack,
 * and <name>_kernels_host.c. Whoever compiles that file defines TT_HOST_KERNELS for all files.
 */
#if defined(TT_HOST_KERNELS) && (defined(__x86_64__) || defined(__aarch64__)) && defined(__GNUC__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && !defined(TT_PORTABLE)
#define TT_USE_VECTOR 1
#else
#define TT_USE_VECTOR 0
#endif

/* Helpers vanish into the kernels, whose shapes are constants. */
#if defined(__GNUC__)
#define TT_INLINE static inline __attribute__((always_inline))
#define TT_MAY_ALIAS __attribute__((may_alias))
#else
#define TT_INLINE static inline
#define TT_MAY_ALIAS
#endif

/* Four int8 or two int16 at a word's address. */
typedef uint32_t TT_MAY_ALIAS tt_word;

/* --- Parameters of one layer: const, in flash ------------------------------------------------- */

typedef struct tt_conv_params {
    const int8_t *weights;      /* a row per output channel (depthwise: per tap), padded to whole words */
    const int32_t *bias;        /* bias - input_zero * sum of the row's weights */
    const int32_t *multipliers; /* s_x * s_w / s_y as a fraction of 2^(32 - shift) */
    int32_t input_zero;         /* what padding reads */
    int32_t output_zero;
} tt_conv_params;

typedef struct tt_add_params {
    int32_t multiplier_a, multiplier_b, offset;
} tt_add_params;

typedef struct tt_broadcast_add_params {
    const int8_t *operand; /* a constant in place of b, or NULL */
    int32_t multiplier_a, multiplier_b, offset;
} tt_broadcast_add_params;

typedef struct tt_mul_params {
    const int8_t *operand; /* a constant in place of b, or NULL */
    int32_t multiplier; /* s_a * s_b / s_y as a fraction of 2^(32 - shift) */
    int32_t zero_a, zero_b, output_zero;
} tt_mul_params;

typedef struct tt_pool_params {
    const int32_t *multipliers;
    int32_t input_zero, output_zero;
} tt_pool_params;

typedef struct tt_lookup_params {
    const int8_t *table; /* 256 entries, by the input byte read as unsigned */
} tt_lookup_params;

typedef struct tt_concat_params {
    const int8_t *tables; /* 256 entries each, by the input byte read as unsigned */
} tt_concat_params;

typedef struct tt_softmax_params {
    const uint32_t *table; /* 256 exponentials */
    int32_t factor, output_zero;
} tt_softmax_params;

typedef struct tt_matmul_params {
    int32_t multiplier, a_zero, b_zero, output_zero;
} tt_matmul_params;

typedef struct tt_layer_norm_params {
    const int32_t *multipliers; /* scale / s_y of each element of a row, shift - 20 fraction bits */
    const int32_t *shifts;      /* what is added, rounding included, shift - raised fraction bits */
    uint64_t epsilon;           /* added to a row's variance, in its units */
    int32_t fraction, raised, shift;
} tt_layer_norm_params;

/* --- Arithmetic ------------------------------------------------------------------------------- */

TT_INLINE int8_t tt_clamp(int32_t value, int32_t low, int32_t high)
{
    return (int8_t)(value < low ? low : value > high ? high : value);
}

/*
 * zero + floor((acc * multiplier + 2^(31 - shift)) / 2^(32 - shift)), for the clamp that follows.
 * fits: the compiler proved that acc << shift stays in 32 bits, whatever the input.
 */
TT_INLINE int32_t tt_requantize(int32_t acc, int32_t multiplier, int32_t shift, int32_t fits, int32_t zero)
{
    if (fits) {
        acc = (int32_t)((uint32_t)acc << shift);
        shift = 0;
    }
    int64_t scaled = ((int64_t)acc * multiplier + (INT64_C(1) << (31 - shift))) >> (32 - shift);
    if (shift > 0) { /* else |scaled| <= 2^30 */
        const int64_t limit = INT64_C(1) << 30;
        scaled = scaled > limit ? limit : scaled < -limit ? -limit : scaled;
    }
    return zero + (int32_t)scaled;
}

/* The square root of a number below 2^62, rounded down. */
TT_INLINE uint32_t tt_isqrt(uint64_t value)
{
    uint32_t root = 0;
    for (uint32_t bit = UINT32_C(1) << 30; bit > 0; bit >>= 1) {
        const uint64_t larger = root | bit;
        root |= larger * larger <= value ? bit : 0;
    }
    return root;
}

/* --- Memory ----------------------------------------------------------------------------------- */

/* Four bytes at any address, as one word. */
TT_INLINE uint32_t tt_load4(const int8_t *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

TT_INLINE void tt_store4(int8_t *p, uint32_t word)
{
    memcpy(p, &word, sizeof word);
}

/* Row of taps that starts at column ix: KW taps, DW columns apart, CG channels each; outside reads zero. */
TT_INLINE void tt_patch_row(int8_t *patch, const int8_t *row, int32_t ix, int32_t width, int32_t channels,
                            int32_t taps, int32_t dilation, int32_t group_channels, int32_t zero)
{
    if (dilation == 1 && channels == group_channels && ix >= 0 && ix + taps <= width) {
        memcpy(patch, row + ix * channels, (size_t)(taps * group_channels));
        return;
    }
    for (int32_t tap = 0; tap < taps; tap++, ix += dilation, patch += group_channels) {
        if (ix < 0 || ix >= width) {
            memset(patch, zero, (size_t)group_channels);
        } else {
            memcpy(patch, row + ix * channels, (size_t)group_channels);
        }
    }
}

/*
 * Copy `lanes` neighbouring channels of an image (height x width x channels) into the inside of a
 * plane of four (rows x columns x 4) whose border holds the padding.
 */
TT_INLINE void tt_plane4(int8_t *plane, const int8_t *x, int32_t height, int32_t width, int32_t channels, int32_t rows,
                         int32_t columns, int32_t top, int32_t left, int32_t lanes)
{
    const int32_t inside_rows = rows - top < height ? rows - top : height;
    const int32_t inside_columns = columns - left < width ? columns - left : width;
    for (int32_t iy = 0; iy < inside_rows; iy++) {
        int8_t *to = plane + ((iy + top) * columns + left) * 4;
        const int8_t *from = x + iy * width * channels;
        for (int32_t ix = 0; ix < inside_columns; ix++, to += 4, from += channels) {
            if (lanes == 4) {
                tt_store4(to, tt_load4(from));
            } else {
                for (int32_t i = 0; i < lanes; i++) {
                    to[i] = from[i];
                }
            }
        }
    }
}

#endif
