/* Seeded 32-bit random numbers: xorshift32 (Marsaglia 2003), seeds mixed by MurmurHash3's finaliser. */
#ifndef TT_RANDOM_H
#define TT_RANDOM_H

#include "tt_kernel.h"

#define TT_GOLDEN 0x9E3779B9u /* 2^32 / golden ratio */

/* A seed of one more value; begin with state 0. */
TT_INLINE uint32_t tt_mix(uint32_t state, uint32_t value)
{
    state = (state ^ value) + TT_GOLDEN;
    state = (state ^ state >> 16) * 0x85EBCA6Bu;
    state = (state ^ state >> 13) * 0xC2B2AE35u;
    return state ^ state >> 16;
}

/* A generator's first state; 0 would never be left. */
TT_INLINE uint32_t tt_random_start(uint32_t seed)
{
    return seed == 0 ? TT_GOLDEN : seed;
}

TT_INLINE uint32_t tt_random_next(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *state = x;
    return x;
}

/* --- Of stochastic rounding (docs/reference/numerics.md, "Rounding") ------------------------------------- */

/* A state made of any number: neighbouring numbers give unrelated states. Never 0. */
TT_INLINE uint32_t tt_random_state(uint32_t number)
{
    number = (number ^ number >> 16) * 0x85EBCA6Bu;
    number = (number ^ number >> 13) * 0xC2B2AE35u;
    number ^= number >> 16;
    return number != 0 ? number : 1;
}

/* The state for a row of weights: those of one output and tap. Rows may be updated in any order. */
TT_INLINE uint32_t tt_random_of_row(uint32_t key, int32_t row)
{
    return tt_random_state(key + (uint32_t)row * 0x9E3779B1u);
}

#endif
