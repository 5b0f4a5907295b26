#include "tt_math.h"

uint32_t tt_square_root(uint64_t value)
{
    uint64_t root = 0;
    uint64_t bit = (uint64_t)1 << 62;
    while (bit > value) {
        bit >>= 2;
    }
    for (; bit != 0; bit >>= 2) {
        if (value >= root + bit) {
            value -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

/* 2^-x by a polynomial, the whole part by a shift. */
int32_t tt_exp_negative(int64_t d)
{
    const int64_t t = (d * 47274) >> 15; /* log2(e) */
    const int32_t x = (int32_t)(t & 32767);
    if (t >> 15 > 15) {
        return 0;
    }
    int32_t e = 315;
    e = 1819 - ((x * e) >> 15);
    e = 7872 - ((x * e) >> 15);
    e = 22713 - ((x * e) >> 15);
    e = 32768 - ((x * e) >> 15);
    return e >> (t >> 15);
}
