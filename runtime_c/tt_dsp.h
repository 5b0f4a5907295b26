/*
 * The DSP extension's instructions that kernels use, by their names in the Arm manual.
 *
 * Inline assembly where the compiler offers no intrinsic, or would not fold the rotation in.
 * A pair is two int16 in one word, the one at the lower address in the low half.
 */
#ifndef TT_DSP_H
#define TT_DSP_H

#include "tt_kernel.h"

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
TT_INLINE void tt_mac_4x4(const tt_word **w, const tt_word **x, int32_t *acc0, int32_t *acc1, int32_t *acc2, int32_t *acc3)
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

#endif
#endif
