/* Integer square root and exponential: fixed point, exact rules in docs/reference/numerics.md. */
#ifndef TT_MATH_H
#define TT_MATH_H

#include <stdint.h>

/* floor(sqrt(value)), bit by bit. */
uint32_t tt_square_root(uint64_t value);

/* exp(-d / 2^15) with 15 fraction bits, d >= 0 and below 2^46. */
int32_t tt_exp_negative(int64_t d);

#endif
