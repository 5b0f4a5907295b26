/* The header's requantisation as a function that a test can call with any numbers. */
#include "tt_kernel.h"

int32_t requantize(int32_t acc, int32_t multiplier, int32_t shift, int32_t fits, int32_t zero, int32_t low, int32_t high);
int32_t requantize(int32_t acc, int32_t multiplier, int32_t shift, int32_t fits, int32_t zero, int32_t low, int32_t high)
{
    return tt_clamp(tt_requantize(acc, multiplier, shift, fits, zero), low, high);
}
