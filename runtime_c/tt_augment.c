#include "tt_augment.h"

#include <string.h>

#include "tt_random.h"

/* low .. high, both included. */
static int32_t between(uint32_t *state, int32_t low, int32_t high)
{
    return low + (int32_t)((uint64_t)tt_random_next(state) * (uint32_t)(high - low + 1) >> 32);
}

/* Move `count` items of `size` bytes by `shift` places; those that enter mirror the image about its edge item.
 * Items are moved first: the mirror then is about the place where the edge item has come to lie. */
static void shift_items(int8_t *x, int32_t count, int32_t size, int32_t shift)
{
    const int32_t distance = shift < 0 ? -shift : shift;
    const size_t bytes = (size_t)((count - distance) * size);
    if (shift > 0) {
        memmove(x + distance * size, x, bytes);
        for (int32_t i = 0; i < distance; i++) {
            memcpy(x + i * size, x + (2 * distance - i) * size, (size_t)size);
        }
    } else if (shift < 0) {
        memmove(x, x + distance * size, bytes);
        for (int32_t i = count - distance; i < count; i++) {
            memcpy(x + i * size, x + (2 * (count - distance - 1) - i) * size, (size_t)size);
        }
    }
}

void tt_augment(int8_t *x, int32_t height, int32_t width, int32_t channels, int32_t zero, uint32_t seed)
{
    uint32_t state = tt_random_start(seed);
    const int32_t dy = between(&state, -(height / 8), height / 8);
    const int32_t dx = between(&state, -(width / 8), width / 8);
    const int32_t contrast = between(&state, 192, 320);
    const int32_t brightness = between(&state, -6528, 6528);
    shift_items(x, height, width * channels, dy);
    for (int32_t row = 0; row < height; row++) {
        shift_items(x + row * width * channels, width, channels, dx);
    }
    for (int32_t i = 0; i < height * width * channels; i++) {
        const int32_t value = zero + (((x[i] - zero) * contrast + brightness + 128) >> 8);
        x[i] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }
}

uint32_t tt_augment_seed(uint32_t seed, int32_t epoch, uint32_t index)
{
    return tt_mix(tt_mix(tt_mix(0, seed), (uint32_t)epoch), index);
}
