/*
 * The DSP extension's instructions that kernels use, by their names in the Arm manual.
 *
 * Inline assembly where the compiler offers no intrinsic, or would not fold the rotation in.
 * A pair is two int16 in one word, the one at the lower address in the low half.
 */
#ifndef TT_DSP_H
#define TT_DSP_H

#include "tt_gradient.h"

#if TT_USE_DSP

/* Bytes 0 and 2 of a word as a pair. */
TT_INLINE uint32_t tt_even(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

/* Bytes 1 and 3 of a word as a pair. */
TT_INLINE uint32_t tt_odd(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* The lower halves of two words as a pair. */
TT_INLINE uint32_t tt_bottoms(uint32_t low, uint32_t high)
{
    uint32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

/* The upper halves. */
TT_INLINE uint32_t tt_tops(uint32_t low, uint32_t high)
{
    uint32_t pair;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair) : "r"(high), "r"(low));
    return pair;
}

/* acc + a.low * b.low + a.high * b.high */
TT_INLINE int32_t tt_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    int32_t sum;
    __asm__("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

/* tt_requantize with shift 0 in one instruction. */
TT_INLINE int32_t tt_smmlar(int32_t acc, int32_t multiplier, int32_t zero)
{
    int32_t sum;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(acc), "r"(multiplier), "r"(zero));
    return sum;
}

/* Saturate to int8. */
TT_INLINE int32_t tt_ssat8(int32_t value)
{
    int32_t saturated;
    __asm__("ssat %0, #8, %1" : "=r"(saturated) : "r"(value));
    return saturated;
}

/*
 * Four taps of four pixels: 16 multiply-accumulates in 13 instructions. w: one word of int8 weights; x: the
 * pixels' pairs, even and odd, one pixel after the other; both move on. Written out because compilers hoist
 * the loads of several rounds together and then spill the accumulators.
 */
TT_INLINE void tt_mac_4x4(const tt_word **w, const tt_word **x, int32_t *acc0, int32_t *acc1, int32_t *acc2,
                          int32_t *acc3)
{
    uint32_t even, odd;
    __asm__ volatile("ldr    %[odd], [%[w]], #4           \n"
                     "ldmia  %[x]!, {r4, r5, r6, r8}      \n"
                     "sxtb16 %[even], %[odd]              \n"
                     "sxtb16 %[odd], %[odd], ror #8       \n"
                     "smlad  %[a0], r4, %[even], %[a0]    \n"
                     "smlad  %[a1], r6, %[even], %[a1]    \n"
                     "smlad  %[a0], r5, %[odd], %[a0]     \n"
                     "smlad  %[a1], r8, %[odd], %[a1]     \n"
                     "ldmia  %[x]!, {r4, r5, r6, r8}      \n"
                     "smlad  %[a2], r4, %[even], %[a2]    \n"
                     "smlad  %[a3], r6, %[even], %[a3]    \n"
                     "smlad  %[a2], r5, %[odd], %[a2]     \n"
                     "smlad  %[a3], r8, %[odd], %[a3]     \n"
                     : [w] "+r"(*w), [x] "+r"(*x), [a0] "+r"(*acc0), [a1] "+r"(*acc1), [a2] "+r"(*acc2),
                       [a3] "+r"(*acc3), [even] "=&r"(even), [odd] "=&r"(odd)
                     :
                     : "r4", "r5", "r6", "r8", "memory");
}

/* The same for one pixel: four taps in five instructions. */
TT_INLINE void tt_mac_4x1(const tt_word **w, const tt_word **x, int32_t *acc)
{
    const uint32_t word = *(*w)++, even = (*x)[0], odd = (*x)[1];
    *x += 2;
    *acc = tt_smlad(odd, tt_odd(word), tt_smlad(even, tt_even(word), *acc));
}

/* One tap of four channels: eight instructions. w: its weights as pairs; moves on. */
TT_INLINE void tt_tap_4(const tt_word *x, const tt_word **w, int32_t *acc0, int32_t *acc1, int32_t *acc2, int32_t *acc3)
{
    uint32_t even, odd, w_even, w_odd;
    __asm__ volatile("ldr    %[odd], %[x]                        \n"
                     "ldrd   %[w_even], %[w_odd], [%[w]], #8     \n"
                     "sxtb16 %[even], %[odd]                     \n"
                     "sxtb16 %[odd], %[odd], ror #8              \n"
                     "smlabb %[a0], %[even], %[w_even], %[a0]    \n"
                     "smlabb %[a1], %[odd], %[w_odd], %[a1]      \n"
                     "smlatt %[a2], %[even], %[w_even], %[a2]    \n"
                     "smlatt %[a3], %[odd], %[w_odd], %[a3]      \n"
                     : [w] "+r"(*w), [a0] "+r"(*acc0), [a1] "+r"(*acc1), [a2] "+r"(*acc2), [a3] "+r"(*acc3),
                       [even] "=&r"(even), [odd] "=&r"(odd), [w_even] "=&r"(w_even), [w_odd] "=&r"(w_odd)
                     : [x] "m"(*x)
                     : "memory");
}

/* Accumulator to output; shift, fits and limits are constants. */
TT_INLINE int8_t tt_output(int32_t acc, int32_t multiplier, int32_t shift, int32_t fits, int32_t zero, int32_t low,
                           int32_t high)
{
    const int32_t value = fits ? tt_smmlar((int32_t)((uint32_t)acc << shift), multiplier, zero)
                               : tt_requantize(acc, multiplier, shift, fits, zero);
    return (int8_t)(low == -128 && high == 127 ? tt_ssat8(value) : tt_clamp(value, low, high));
}

/* Widen words of four int8 into pairs: even bytes, odd bytes; each word's pairs `stride` words apart. */
TT_INLINE void tt_widen(tt_word *pairs, const int8_t *bytes, int32_t words, int32_t stride)
{
#pragma GCC unroll 4
    for (int32_t i = 0; i < words; i++, bytes += 4, pairs += stride) {
        const uint32_t word = tt_load4(bytes);
        pairs[0] = tt_even(word);
        pairs[1] = tt_odd(word);
    }
}

/* The same for `words` words that all read the byte `value`. */
TT_INLINE void tt_widen_fill(tt_word *pairs, int32_t value, int32_t words, int32_t stride)
{
    const uint32_t pair = (uint32_t)value & 0xFFFFu;
#pragma GCC unroll 1
    for (int32_t i = 0; i < words; i++, pairs += stride) {
        pairs[0] = pairs[1] = pair | pair << 16;
    }
}

/* --- Backward pass ---------------------------------------------------------------------------- */

/* sum + the weights of those bytes of x that lie strictly between a low and a high one. */
TT_INLINE uint32_t tt_between(uint32_t x, uint32_t low, uint32_t high, uint32_t weights, uint32_t sum)
{
    uint32_t found, flags;
    __asm__("ssub8  %[flags], %[low], %[x]          \n"
            "sel    %[found], %[zero], %[weights]   \n"
            "ssub8  %[flags], %[x], %[high]         \n"
            "sel    %[found], %[zero], %[found]     \n"
            "usada8 %[found], %[found], %[zero], %[sum] \n"
            : [found] "=&r"(found), [flags] "=&r"(flags)
            : [x] "r"(x), [low] "r"(low), [high] "r"(high), [weights] "r"(weights), [sum] "r"(sum), [zero] "r"(0)
            : "cc");
    return found;
}

/* The smaller and the larger halves seen so far. */
TT_INLINE void tt_extremes(uint32_t pair, uint32_t *lows, uint32_t *highs)
{
    uint32_t flags;
    __asm__("ssub16 %[flags], %[lows], %[pair]    \n"
            "sel    %[lows], %[pair], %[lows]     \n"
            "ssub16 %[flags], %[pair], %[highs]   \n"
            "sel    %[highs], %[pair], %[highs]   \n"
            : [lows] "+r"(*lows), [highs] "+r"(*highs), [flags] "=&r"(flags)
            : [pair] "r"(pair)
            : "cc");
}

/* Two words of int8 as four pairs: byte i of both words is pair i. */
TT_INLINE void tt_interleave(tt_word *pairs, uint32_t low, uint32_t high)
{
    const uint32_t low_even = tt_even(low), low_odd = tt_odd(low), high_even = tt_even(high), high_odd = tt_odd(high);
    pairs[0] = tt_bottoms(low_even, high_even);
    pairs[1] = tt_bottoms(low_odd, high_odd);
    pairs[2] = tt_tops(low_even, high_even);
    pairs[3] = tt_tops(low_odd, high_odd);
}

/* a - b in both halves. */
TT_INLINE uint32_t tt_ssub16(uint32_t a, uint32_t b)
{
    uint32_t difference;
    __asm__("ssub16 %0, %1, %2" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}

/* The first `lanes` of four int8, the others 0. */
TT_INLINE uint32_t tt_load_lanes(const int8_t *p, int32_t lanes)
{
    if (lanes >= 4) {
        return tt_load4(p);
    }
    uint32_t word = 0;
    for (int32_t i = 0; i < lanes; i++) {
        word |= (uint32_t)(uint8_t)p[i] << (8 * i);
    }
    return word;
}

/*
 * acc[i] += value pairs times row pairs: two values at `g` (any even address) with four channels of two rows, as
 * tt_interleave left them; both move on. 8 multiply-accumulates in 6 instructions. Fixed registers are high ones: where
 * GCC reloads operands it looks for low ones.
 */
TT_INLINE void tt_rows_2x4(const int16_t **g, const tt_word **rows, int32_t *acc0, int32_t *acc1, int32_t *acc2,
                           int32_t *acc3)
{
    uint32_t pair;
    __asm__ volatile("ldmia  %[rows]!, {r8, r9, r10, r11}   \n"
                     "ldr    %[pair], [%[g]], #4            \n"
                     "smlad  %[a0], r8, %[pair], %[a0]      \n"
                     "smlad  %[a1], r9, %[pair], %[a1]      \n"
                     "smlad  %[a2], r10, %[pair], %[a2]     \n"
                     "smlad  %[a3], r11, %[pair], %[a3]     \n"
                     : [g] "+r"(*g), [rows] "+r"(*rows), [a0] "+r"(*acc0), [a1] "+r"(*acc1), [a2] "+r"(*acc2),
                       [a3] "+r"(*acc3), [pair] "=&r"(pair)
                     :
                     : "r8", "r9", "r10", "r11", "memory");
}

/* The same for four values at a word's address: 16 multiply-accumulates in 11 instructions. */
TT_INLINE void tt_rows_4x4(const int16_t **g, const tt_word **rows, int32_t *acc0, int32_t *acc1, int32_t *acc2,
                           int32_t *acc3)
{
    uint32_t low, high;
    __asm__ volatile("ldmia  %[rows]!, {r8, r9, r10, r11}   \n"
                     "ldrd   %[low], %[high], [%[g]], #8    \n"
                     "smlad  %[a0], r8, %[low], %[a0]       \n"
                     "smlad  %[a1], r9, %[low], %[a1]       \n"
                     "smlad  %[a2], r10, %[low], %[a2]      \n"
                     "smlad  %[a3], r11, %[low], %[a3]      \n"
                     "ldmia  %[rows]!, {r8, r9, r10, r11}   \n"
                     "smlad  %[a0], r8, %[high], %[a0]      \n"
                     "smlad  %[a1], r9, %[high], %[a1]      \n"
                     "smlad  %[a2], r10, %[high], %[a2]     \n"
                     "smlad  %[a3], r11, %[high], %[a3]     \n"
                     : [g] "+r"(*g), [rows] "+r"(*rows), [a0] "+r"(*acc0), [a1] "+r"(*acc1), [a2] "+r"(*acc2),
                       [a3] "+r"(*acc3), [low] "=&r"(low), [high] "=&r"(high)
                     :
                     : "r8", "r9", "r10", "r11", "memory");
}

/*
 * `count` values with four channels of as many rows. whole: g is a word's address. An odd count's last row stands in a
 * pair's low half.
 */
TT_INLINE void tt_rows(const int16_t *g, const tt_word *rows, int32_t count, int32_t whole, int32_t *acc0,
                       int32_t *acc1, int32_t *acc2, int32_t *acc3)
{
    int32_t i = 0;
    if (whole) {
#pragma GCC unroll 4
        for (; i + 4 <= count; i += 4) {
            tt_rows_4x4(&g, &rows, acc0, acc1, acc2, acc3);
        }
    }
#pragma GCC unroll 4
    for (; i + 2 <= count; i += 2) {
        tt_rows_2x4(&g, &rows, acc0, acc1, acc2, acc3);
    }
    if (i < count) {
        *acc0 += g[0] * (int16_t)rows[0];
        *acc1 += g[0] * (int16_t)rows[1];
        *acc2 += g[0] * (int16_t)rows[2];
        *acc3 += g[0] * (int16_t)rows[3];
    }
}

/* One tap of four channels of a gradient: 4 multiply-accumulates in 6 instructions. g: two pairs; w: the tap's weights,
 * even and odd; both move on. */
TT_INLINE void tt_gradient_tap_4(const tt_word **g, const tt_word **w, int32_t *acc0, int32_t *acc1, int32_t *acc2,
                                 int32_t *acc3)
{
    uint32_t first, second, even, odd;
    __asm__ volatile("ldrd   %[first], %[second], [%[g]], #8   \n"
                     "ldrd   %[even], %[odd], [%[w]], #8       \n"
                     "smlabb %[a0], %[first], %[even], %[a0]   \n"
                     "smlatb %[a1], %[first], %[odd], %[a1]    \n"
                     "smlabt %[a2], %[second], %[even], %[a2]  \n"
                     "smlatt %[a3], %[second], %[odd], %[a3]   \n"
                     : [g] "+r"(*g), [w] "+r"(*w), [a0] "+r"(*acc0), [a1] "+r"(*acc1), [a2] "+r"(*acc2),
                       [a3] "+r"(*acc3), [first] "=&r"(first), [second] "=&r"(second), [even] "=&r"(even),
                       [odd] "=&r"(odd)
                     :
                     : "memory");
}

/* The same for the taps of one input: rows x columns of them, `down` and `across` elements apart. */
TT_INLINE void tt_gradient_taps_4(const tt_word *g, const tt_word *w, int32_t rows, int32_t columns, int32_t down,
                                  int32_t across, int32_t *acc0, int32_t *acc1, int32_t *acc2, int32_t *acc3)
{
#pragma GCC unroll 3
    for (int32_t row = 0; row < rows; row++, g += 2 * (down - columns * across)) {
#pragma GCC unroll 8
        for (int32_t column = 0; column < columns; column++, g += 2 * (across - 1)) {
            tt_gradient_tap_4(&g, &w, acc0, acc1, acc2, acc3);
        }
    }
}

/* tt_plane4 for gradients: four channels as two pairs. What does not fit the plane has no input that reads it. */
TT_INLINE void tt_gradient_plane_4(tt_word *plane, const int16_t *g, int32_t height, int32_t width, int32_t channels,
                                   int32_t rows, int32_t columns, int32_t top, int32_t left, int32_t lanes)
{
    const int32_t inside_rows = rows - top < height ? rows - top : height;
    const int32_t inside_columns = columns - left < width ? columns - left : width;
    for (int32_t y = 0; y < inside_rows; y++) {
        tt_word *to = plane + 2 * ((y + top) * columns + left);
        const int16_t *from = g + y * width * channels;
#pragma GCC unroll 2
        for (int32_t x = 0; x < inside_columns; x++, to += 2, from += channels) {
            if (lanes >= 4) {
                memcpy(to, from, 8);
            } else {
                memcpy(to, from, 2); /* the others' sums are not used */
                for (int32_t i = 1; i < lanes; i++) {
                    memcpy((int16_t *)to + i, from + i, 2);
                }
            }
        }
    }
}

/* tt_shift_round without 64 bits: the shift leaves half a step in the carry, and none where it is 0. */
TT_INLINE int32_t tt_asr_round(int32_t value, int32_t shift)
{
    int32_t rounded;
    __asm__("cmn    %1, #0        \n" /* carry clear */
            "asrs   %0, %1, %2    \n"
            "adc    %0, %0, #0    \n"
            : "=&r"(rounded)
            : "r"(value), "r"(shift)
            : "cc");
    return rounded;
}

/* tt_narrow of two values, as a pair. */
TT_INLINE uint32_t tt_narrow_pair(int32_t low, int32_t high, int32_t shift)
{
    const uint32_t one = 0x00010001u;
    uint32_t first, second;
    __asm__("ssat %0, #16, %1" : "=r"(first) : "r"(tt_asr_round(low, shift)));
    __asm__("ssat %0, #16, %1" : "=r"(second) : "r"(tt_asr_round(high, shift)));
    uint32_t pair = tt_bottoms(first, second);
    __asm__("qsub16 %0, %1, %2" : "=r"(pair) : "r"(pair), "r"(one)); /* -32768 becomes -32767 */
    __asm__("sadd16 %0, %1, %2" : "=r"(pair) : "r"(pair), "r"(one));
    return pair;
}

/* tt_narrow of `lanes` values, to any even address. */
TT_INLINE void tt_narrow_4(int16_t *dx, int32_t acc0, int32_t acc1, int32_t acc2, int32_t acc3, int32_t shift,
                           int32_t lanes)
{
    const uint32_t first = tt_narrow_pair(acc0, acc1, shift), second = tt_narrow_pair(acc2, acc3, shift);
    if (lanes >= 4) {
        memcpy(dx, &first, sizeof first);
        memcpy(dx + 2, &second, sizeof second);
        return;
    }
    dx[0] = (int16_t)first;
    if (lanes > 1) {
        dx[1] = (int16_t)(first >> 16);
    }
    if (lanes > 2) {
        dx[2] = (int16_t)second;
    }
}

#endif
#endif
