#include "tt_audio.h"

#include <string.h>

/* log2(1 + i / 64), 16 fraction bits. */
static const uint32_t log_table[65] = {
    0, 1466, 2909, 4331, 5732, 7112, 8473, 9814, 11136, 12440, 13727, 14996, 16248, 17484, 18704, 19909, 21098,
    22272, 23433, 24579, 25711, 26830, 27936, 29029, 30109, 31178, 32234, 33279, 34312, 35334, 36346, 37346,
    38336, 39316, 40286, 41246, 42196, 43137, 44068, 44990, 45904, 46809, 47705, 48593, 49472, 50344, 51207,
    52063, 52911, 53751, 54584, 55410, 56229, 57040, 57845, 58643, 59434, 60219, 60997, 61769, 62534, 63294,
    64047, 64794, 65536,
};

/* --- Numbers ---------------------------------------------------------------------------------- */

static int32_t bit_length(uint64_t value)
{
    int32_t bits = 0;
    for (int32_t step = 32; step > 0; step >>= 1) {
        if (value >> step != 0) {
            value >>= step;
            bits += step;
        }
    }
    return bits + (value != 0);
}

/* Base 2 of value >= 1, 16 fraction bits: straight lines between the table's entries. */
static int32_t log_base2(uint64_t value)
{
    const int32_t whole = bit_length(value) - 1;
    const uint32_t m = (uint32_t)(whole > 31 ? value >> (whole - 31) : value << (31 - whole));
    const uint32_t i = (m >> 25) & 63u;
    const uint32_t line = (log_table[i + 1] - log_table[i]) * ((m & 0x1FFFFFFu) >> 9);
    return whole * 65536 + (int32_t)(log_table[i] + ((line + 32768u) >> 16));
}

/* Within 2^-15 of itself: two steps of Heron's rule on 32 bits, from a straight line within 4 %. */
static uint32_t square_root(uint64_t value)
{
    int32_t shift = bit_length(value) - 32;
    shift += shift & 1;
    if (value == 0) {
        return 0;
    }
    const uint32_t m = (uint32_t)(shift >= 0 ? value >> shift : value << -shift);
    uint32_t x = ((m >> 16) * 43691u >> 16) + 23000u;
    x = (x + m / x) >> 1;
    x = (x + m / x) >> 1;
    return shift >= 0 ? x << (shift / 2) : x >> (-shift / 2);
}

/* --- Spectrum --------------------------------------------------------------------------------- */

typedef struct turn {
    int32_t cosine, sine; /* of 2 pi k / points, Q31 */
} turn;

/* k: up to points / 2. */
static turn turn_of(const tt_audio_plan *plan, uint32_t k)
{
    const uint32_t quarter = plan->points / 4u;
    const int32_t *const c = plan->cosines;
    return k <= quarter ? (turn){ c[k], c[quarter - k] } : (turn){ -c[2u * quarter - k], c[k - quarter] };
}

/* Half of (r + i i)(cos - i sin), rounded. */
static inline int32_t turned_real(int32_t r, int32_t i, turn w)
{
    return (int32_t)(((int64_t)r * w.cosine + (int64_t)i * w.sine + (INT64_C(1) << 31)) >> 32);
}

static inline int32_t turned_imaginary(int32_t r, int32_t i, turn w)
{
    return (int32_t)(((int64_t)i * w.cosine - (int64_t)r * w.sine + (INT64_C(1) << 31)) >> 32);
}

/* Samples times the window, in the order in which the FFT takes pairs of them; the largest sample. */
static int32_t load(const tt_audio_plan *plan, const int16_t *samples, int32_t *z)
{
    const uint32_t pairs = plan->points / 2u;
    uint32_t reversed = 0;
    int32_t peak = samples[0];
    for (uint32_t n = 0; n < plan->points; n++) {
        int32_t value = 0;
        if (n < plan->window) {
            const uint32_t mirrored = n <= plan->window / 2u ? n : plan->window - n;
            value = samples[n] * (int32_t)plan->half[mirrored];
            peak = samples[n] > peak ? samples[n] : peak;
        }
        z[2u * reversed + (n & 1u)] = value;
        if (n & 1u) { /* count on, from the highest bit */
            uint32_t bit = pairs / 2u;
            while (bit != 0u && (reversed & bit) != 0u) {
                reversed ^= bit;
                bit >>= 1;
            }
            reversed |= bit;
        }
    }
    return peak;
}

/* One level: pairs of `step` points each become 2 step points, halved. */
static void merge(const tt_audio_plan *plan, int32_t *z, uint32_t step)
{
    const uint32_t pairs = plan->points / 2u;
    for (uint32_t j = 0; j < step; j++) {
        const turn w = turn_of(plan, j * (pairs / step));
        for (uint32_t first = j; first < pairs; first += 2u * step) {
            int32_t *const u = z + 2u * first;
            int32_t *const v = u + 2u * step;
            const int32_t r = step == 1u ? v[0] >> 1 : turned_real(v[0], v[1], w);
            const int32_t i = step == 1u ? v[1] >> 1 : turned_imaginary(v[0], v[1], w);
            const int32_t ur = u[0] >> 1, ui = u[1] >> 1;
            u[0] = ur + r;
            u[1] = ui + i;
            v[0] = ur - r;
            v[1] = ui - i;
        }
    }
}

/* From the FFT of even samples + i odd samples to that of all samples, halved. */
static void split(const tt_audio_plan *plan, int32_t *z)
{
    const uint32_t pairs = plan->points / 2u;
    for (uint32_t k = 1; k <= pairs / 2u; k++) {
        int32_t *const x = z + 2u * k;
        int32_t *const y = z + 2u * (pairs - k);
        const int32_t a = x[0] >> 1, b = x[1] >> 1, c = y[0] >> 1, d = y[1] >> 1;
        const turn w = turn_of(plan, k);
        const int32_t r = turned_real(b + d, c - a, w), i = turned_imaginary(b + d, c - a, w);
        const int32_t er = (a + c) >> 1, ei = (b - d) >> 1;
        x[0] = er + r;
        x[1] = ei + i;
        y[0] = er - r;
        y[1] = ei - i;
    }
}

/* --- Frames ----------------------------------------------------------------------------------- */

static uint64_t size_of_bin(const tt_audio_plan *plan, const int32_t *z)
{
    const uint64_t square = (uint64_t)((int64_t)z[0] * z[0] + (int64_t)z[1] * z[1]);
    return plan->power ? (square + 32768u) >> 16 : square_root(square);
}

/* Logarithms of the bands, 16 fraction bits. A bin between two edges rises in one band and falls in the one before. */
static void log_mel(const tt_audio_plan *plan, const int32_t *z, int32_t *logs)
{
    const uint16_t *weight = plan->weights;
    uint64_t risen = 0;
    for (uint32_t interval = 0; interval <= plan->bands; interval++) {
        uint64_t rising = 0, falling = 0;
        for (uint32_t bin = plan->starts[interval]; bin < plan->starts[interval + 1u]; bin++, weight++) {
            const uint64_t size = size_of_bin(plan, z + 2u * bin);
            rising += size * *weight;
            falling += size * (32768u - *weight);
        }
        if (interval != 0u) {
            const int32_t doublings = log_base2(risen + falling + (uint64_t)plan->floor) - plan->scale_bits * 65536;
            logs[interval - 1u] = (int32_t)(((int64_t)doublings * plan->log_factor + 32768) >> 16);
        }
        risen = rising;
    }
}

static int16_t feature(int64_t value, int32_t shift)
{
    const int64_t rounded = (value + ((INT64_C(1) << shift) >> 1)) >> shift;
    return (int16_t)(rounded < -32768 ? -32768 : rounded > 32767 ? 32767 : rounded);
}

static void make_frame(const tt_audio_plan *plan, tt_audio *audio)
{
    const uint32_t values = plan->coefficients ? plan->coefficients : plan->bands;
    int16_t *const to = audio->features + audio->next * values;
    int32_t *const logs = audio->work + plan->points;
    const int32_t shift = 16 - plan->fraction;
    const int32_t peak = load(plan, audio->samples, audio->work);
    if (plan->level_factor != 0) {
        audio->peaks[audio->next] = (int16_t)peak;
    }
    for (uint32_t step = 1; step < plan->points / 2u; step *= 2u) {
        merge(plan, audio->work, step);
    }
    split(plan, audio->work);
    log_mel(plan, audio->work, logs);
    for (uint32_t k = 0; k < values; k++) {
        int64_t sum = logs[k];
        if (plan->coefficients) {
            sum = 0;
            for (uint32_t j = 0; j < plan->bands; j++) {
                sum += (int64_t)logs[j] * plan->dct[k * plan->bands + j];
            }
        }
        to[k] = feature(sum, plan->coefficients ? shift + 14 : shift);
    }
    audio->next = audio->next + 1u == plan->frames ? 0u : audio->next + 1u;
    audio->made += audio->made < plan->frames;
}

void tt_audio_reset(tt_audio *audio)
{
    audio->held = audio->next = audio->made = 0;
}

uint32_t tt_audio_push(const tt_audio_plan *plan, tt_audio *audio, const int16_t *pcm, uint32_t count)
{
    uint32_t frames = 0;
    while (count > 0u) {
        const uint32_t room = plan->window - audio->held;
        const uint32_t taken = count < room ? count : room;
        memcpy(audio->samples + audio->held, pcm, taken * sizeof *pcm);
        audio->held += taken;
        pcm += taken;
        count -= taken;
        if (audio->held == plan->window) {
            make_frame(plan, audio);
            frames++;
            audio->held -= plan->hop;
            memmove(audio->samples, audio->samples + plan->hop, audio->held * sizeof *pcm);
        }
    }
    return frames;
}

/* What the window's peak adds to the features that a change of level moves. */
static int32_t level_of(const tt_audio_plan *plan, const tt_audio *audio)
{
    int32_t peak = plan->quietest;
    for (uint32_t i = 0; i < plan->frames; i++) {
        peak = audio->peaks[i] > peak ? audio->peaks[i] : peak;
    }
    const int64_t doublings = (int64_t)(15 * 65536 - log_base2((uint64_t)peak)) * (plan->power ? 2 : 1);
    const int64_t change = (doublings * plan->log_factor + 32768) >> 16;
    const int32_t shift = 30 - plan->fraction;
    return (int32_t)((change * plan->level_factor + ((INT64_C(1) << shift) >> 1)) >> shift);
}

tt_status tt_audio_input(const tt_audio_plan *plan, const tt_audio *audio, int8_t *input)
{
    if (audio->made < plan->frames) {
        return TT_ERR_EMPTY;
    }
    const uint32_t values = plan->coefficients ? plan->coefficients : plan->bands;
    const uint32_t moved = plan->level_factor == 0 ? 0u : plan->coefficients ? 1u : values;
    const int32_t level = moved != 0u ? level_of(plan, audio) : 0;
    uint32_t frame = audio->next; /* the oldest */
    for (uint32_t i = 0; i < plan->frames; i++) {
        const int16_t *const from = audio->features + frame * values;
        for (uint32_t k = 0; k < values; k++) {
            const int64_t value = from[k] + (k < moved ? level : 0);
            const int64_t step = (value * plan->multiplier + plan->offset) >> 24;
            input[i * plan->frame_step + k * plan->value_step] = (int8_t)(step < -128 ? -128 : step > 127 ? 127 : step);
        }
        frame = frame + 1u == plan->frames ? 0u : frame + 1u;
    }
    return TT_OK;
}
